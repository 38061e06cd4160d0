//! gpt-oss 20B and 120B: "gpt-oss". Experts with biases, sinks in the softmax, a window on every other layer.
use super::common::set_windows;
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Activation, Config, ExpertsConfig, FeedForwardConfig, Gating, NormNames, Pairing, RopeScaling};

pub const FAMILY: Family = Family {
    harmless: &[("feed_forward_length", When::Always), ("expert_gating_func", When::Is(&[3.0]))],
    ..Family::new("gpt-oss", config)
};

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.sinks = true;
    let mut rope = header.rope(Pairing::Halves, attention.dim_k)?;
    // As in the original; the file has no key for it.
    if let RopeScaling::Yarn { truncate, .. } = &mut rope.scaling {
        *truncate = false;
    }
    let experts = ExpertsConfig { gating: Gating::SoftmaxOfChosen, ..header.experts(header.expert_width()?, false)? };
    let mut config = header.decoder(header.rms_norm()?, attention, rope, FeedForwardConfig::Experts(experts))?;
    config.activation = Activation::ClampedSwiGlu { alpha: 1.702, limit: 7.0 };
    for layer in &mut config.layers {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
    }
    set_windows(&mut config, &header.windows(2)?);
    Ok(config)
}
