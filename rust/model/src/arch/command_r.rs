//! Command R and R+: "command-r"; Command R7B and Aya Expanse: "cohere2". Attention and feed-forward network read the same norm.
use super::common::{rotate_windows_only, set_windows};
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Config, NormNames, Pairing, QkNorm, Wiring};

pub const FAMILY: Family = Family { harmless: &[("use_parallel_residual", When::Is(&[1.0]))], ..Family::new("command-r", config) };

pub const COHERE2: Family = Family { harmless: FAMILY.harmless, ..Family::new("cohere2", cohere2) };

/// Windows on three layers of four, which rotate; the fourth sees everything and does not.
fn cohere2(header: &Header) -> Result<Config, ModelError> {
    let mut config = config(header)?;
    let windows = header.windows(4)?;
    set_windows(&mut config, &windows);
    rotate_windows_only(&mut config, &windows);
    Ok(config)
}

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
