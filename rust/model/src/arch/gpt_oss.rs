//! gpt-oss 20B and 120B: "gpt-oss". Experts with biases, sinks in the softmax, a window on every other layer.
use super::Header;
use crate::ModelError;
use crate::config::{
    Activation, AttentionConfig, Config, ExpertsConfig, FeedForwardConfig, Gating, Mixer, NormNames, Pairing, RopeScaling,
};

pub fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.sinks = true;
    let mut rope = header.rope(Pairing::Halves, attention.dim_k)?;
    // As in the original; the file has no key for it.
    if let RopeScaling::Yarn { truncate, .. } = &mut rope.scaling {
        *truncate = false;
    }
    let experts = ExpertsConfig { gating: Gating::SoftmaxOfChosen, ..header.experts(header.expert_width()?)? };
    let mut config = header.decoder(header.rms_norm()?, attention.clone(), rope, FeedForwardConfig::Experts(experts))?;
    config.activation = Activation::ClampedSwiGlu { alpha: 1.702, limit: 7.0 };
    let window = header.window()?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
        if i % 2 == 0 {
            layer.mixer = Mixer::Attention(AttentionConfig { window, ..attention.clone() });
        }
    }
    Ok(config)
}
