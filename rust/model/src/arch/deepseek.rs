//! DeepSeek-MoE and the first DeepSeek: "deepseek". Llama with many small experts, some shared by all tokens, after a few dense layers.
use super::common::{MOST, WIDEST};
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, Pairing, SharedExpert};

pub const FAMILY: Family = Family::new("deepseek", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    sparse(header, &mut config, experts(header, false)?)?;
    Ok(config)
}

/// The experts, with the shared ones as one network.
pub fn experts(header: &Header, normalise: bool) -> Result<ExpertsConfig, ModelError> {
    let width = header.expert_width()?;
    let shared = header.keys.optional_count("expert_shared_count", MOST)?;
    Ok(ExpertsConfig { shared: shared.map(|n| SharedExpert { width: n * width, gated: false }), ..header.experts(width, normalise)? })
}

/// Gives experts to all layers but the first few.
pub fn sparse(header: &Header, config: &mut Config, experts: ExpertsConfig) -> Result<(), ModelError> {
    let dense = header.keys.optional_count("leading_dense_block_count", WIDEST)?.unwrap_or(0);
    for layer in config.layers.iter_mut().skip(dense) {
        layer.feed_forward = FeedForwardConfig::Experts(experts);
    }
    Ok(())
}
