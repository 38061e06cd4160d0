//! Falcon 7B, 40B and 180B: "falcon". Attention and feed-forward network read the same input, each with its own norm in the larger models.
//!
//! GELU is the exact one, as the models were trained with.
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Activation, Config, NormNames, Pairing, Wiring};

pub const FAMILY: Family = Family { harmless: &[("use_parallel_residual", When::Is(&[1.0]))], ..Family::new("falcon", config) };

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.layer_norm()?, attention, rope, header.dense()?)?;
    config.activation = Activation::Gelu;
    let norms = if header.first_layer_has("attn_norm_2") {
        NormNames { attention: Some("attn_norm_2"), feed_forward: Some("attn_norm"), ..NormNames::PRE }
    } else {
        NormNames { feed_forward: None, ..NormNames::PRE }
    };
    for layer in &mut config.layers {
        (layer.wiring, layer.norms) = (Wiring::Parallel, norms);
    }
    Ok(config)
}
