//! Granite 3: "granite", and with experts "granitemoe". Llama with multipliers on embeddings, blocks, scores and logits.
use super::common::WIDEST;
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, Pairing, SharedExpert};

pub const FAMILY: Family = Family::new("granite", config);

pub const GRANITEMOE: Family = Family::new("granitemoe", moe);

fn config(header: &Header) -> Result<Config, ModelError> {
    decoder(header, header.dense()?)
}

/// Softmax over the chosen experts, which is softmax over all, renormalised; perhaps a shared expert without a gate.
fn moe(header: &Header) -> Result<Config, ModelError> {
    let experts = header.experts(header.uniform("feed_forward_length", WIDEST)?, true)?;
    let shared = header.keys.optional_count("expert_shared_feed_forward_length", WIDEST)?;
    let shared = shared.map(|width| SharedExpert { width, gated: false });
    decoder(header, FeedForwardConfig::Experts(ExpertsConfig { shared, ..experts }))
}

fn decoder(header: &Header, feed_forward: FeedForwardConfig) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    // For this family a switch: without it the layers do not rotate.
    if header.keys.flag("rope.scaling.finetuned")? == Some(false) {
        attention.rope = None;
    }
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, feed_forward)?;
    config.embedding_scale = header.keys.factor("embedding_scale")?.unwrap_or(1.0);
    config.residual_scale = header.keys.factor("residual_scale")?.unwrap_or(1.0);
    config.logit_scale = 1.0 / header.keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(config)
}
