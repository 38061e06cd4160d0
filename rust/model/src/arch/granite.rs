//! Granite 3: "granite". Llama with multipliers on embeddings, blocks, scores and logits.
use super::Header;
use crate::ModelError;
use crate::config::{Config, Pairing};

pub fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.scale = header.keys.positive("attention.scale")?.unwrap_or(attention.scale);
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    config.embedding_scale = header.keys.positive("embedding_scale")?.unwrap_or(1.0);
    config.residual_scale = header.keys.positive("residual_scale")?.unwrap_or(1.0);
    config.logit_scale = 1.0 / header.keys.positive("logit_scale")?.unwrap_or(1.0);
    Ok(config)
}
