//! Granite 3: "granite". Llama with multipliers on embeddings, blocks, scores and logits.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Pairing};

pub const FAMILY: Family = Family::new("granite", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    // For this family a switch: without it the layers do not rotate.
    if header.keys.flag("rope.scaling.finetuned")? == Some(false) {
        attention.rope = None;
    }
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    config.embedding_scale = header.keys.factor("embedding_scale")?.unwrap_or(1.0);
    config.residual_scale = header.keys.factor("residual_scale")?.unwrap_or(1.0);
    config.logit_scale = 1.0 / header.keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(config)
}
