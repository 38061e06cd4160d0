//! Seed-OSS: "seed_oss". Qwen 2 with another name of the norm before the feed-forward network.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, NormNames, Pairing};

pub const FAMILY: Family = Family::new("seed_oss", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
    }
    Ok(config)
}
