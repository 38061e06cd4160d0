//! Command R and R+: "command-r". Attention and feed-forward network read the same norm.
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Config, NormNames, Pairing, QkNorm, Wiring};

pub const FAMILY: Family = Family { harmless: &[("use_parallel_residual", When::Is(&[1.0]))], ..Family::new("command-r", config) };

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    // Command R+ only.
    if header.first_layer_has("attn_q_norm") {
        attention.qk_norm = QkNorm::EachHead;
    }
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.layer_norm()?, attention, rope, header.dense()?)?;
    config.logit_scale = header.keys.positive("logit_scale")?.unwrap_or(1.0);
    for layer in &mut config.layers {
        layer.wiring = Wiring::Parallel;
        layer.norms = NormNames { feed_forward: None, ..NormNames::PRE };
    }
    Ok(config)
}
