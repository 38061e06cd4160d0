//! Qwen 1.5 to 3, dense and with experts: "qwen2", "qwen2moe", "qwen3", "qwen3moe".
//!
//! Qwen 2 has biases on queries, keys and values; Qwen 3 has norms of their heads instead.
use super::Header;
use super::common::WIDEST;
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, Pairing, QkNorm, SharedExpert};

pub fn qwen2(header: &Header) -> Result<Config, ModelError> {
    decoder(header, QkNorm::None, header.dense()?)
}

pub fn qwen3(header: &Header) -> Result<Config, ModelError> {
    decoder(header, QkNorm::Head, header.dense()?)
}

/// The weights of the chosen experts are not renormalised; the shared expert has a gate of its own.
pub fn qwen2moe(header: &Header) -> Result<Config, ModelError> {
    let width = header.keys.required("expert_shared_feed_forward_length", WIDEST)?;
    let shared = Some(SharedExpert { width, gated: true });
    let experts = ExpertsConfig { shared, ..header.experts(header.expert_width()?)? };
    decoder(header, QkNorm::None, FeedForwardConfig::Experts(experts))
}

pub fn qwen3moe(header: &Header) -> Result<Config, ModelError> {
    let experts = ExpertsConfig { normalise: true, ..header.experts(header.expert_width()?)? };
    decoder(header, QkNorm::Head, FeedForwardConfig::Experts(experts))
}

fn decoder(header: &Header, qk_norm: QkNorm, feed_forward: FeedForwardConfig) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = qk_norm;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    header.decoder(header.rms_norm()?, attention, rope, feed_forward)
}
