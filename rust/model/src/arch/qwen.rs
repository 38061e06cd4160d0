//! Qwen 1.5 to 3, dense and with experts: "qwen2", "qwen2moe", "qwen3", "qwen3moe"; the text halves of "qwen2vl" and "qwen3vl".
//!
//! Qwen 2 has biases on queries, keys and values; Qwen 3 has norms of their heads instead.
use super::common::WIDEST;
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, Pairing, QkNorm, SharedExpert};

pub const QWEN2: Family = Family::new("qwen2", qwen2);
pub const QWEN2MOE: Family =
    Family { harmless: &[DENSE_WIDTH, ("expert_shared_count", When::Is(&[0.0, 1.0]))], ..Family::new("qwen2moe", qwen2moe) };
/// Of text, the positions in time, height and width are equal: rotation is the plain one.
pub const QWEN2VL: Family = Family::new("qwen2vl", qwen2);
/// The layers that images are added to matter to images only.
pub const QWEN3VL: Family = Family { harmless: &[("n_deepstack_layers", When::Always)], ..Family::new("qwen3vl", qwen3) };
pub const QWEN3: Family = Family::new("qwen3", qwen3);
pub const QWEN3MOE: Family = Family { harmless: &[DENSE_WIDTH], ..Family::new("qwen3moe", qwen3moe) };

/// The width of dense layers, of which there are none.
pub const DENSE_WIDTH: (&str, When) = ("feed_forward_length", When::Always);

fn qwen2(header: &Header) -> Result<Config, ModelError> {
    decoder(header, QkNorm::None, header.dense()?)
}

fn qwen3(header: &Header) -> Result<Config, ModelError> {
    decoder(header, QkNorm::Head, header.dense()?)
}

/// The weights of the chosen experts are not renormalised; the shared expert has a gate of its own.
fn qwen2moe(header: &Header) -> Result<Config, ModelError> {
    let width = header.keys.required("expert_shared_feed_forward_length", WIDEST)?;
    let shared = Some(SharedExpert { width, gated: true });
    let experts = ExpertsConfig { shared, ..header.experts(header.expert_width()?, false)? };
    decoder(header, QkNorm::None, FeedForwardConfig::Experts(experts))
}

fn qwen3moe(header: &Header) -> Result<Config, ModelError> {
    let experts = header.experts(header.expert_width()?, true)?;
    decoder(header, QkNorm::Head, FeedForwardConfig::Experts(experts))
}

fn decoder(header: &Header, qk_norm: QkNorm, feed_forward: FeedForwardConfig) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = qk_norm;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    header.decoder(header.rms_norm()?, attention, rope, feed_forward)
}
