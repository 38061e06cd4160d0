//! Qwen3-Next: "qwen3next". Three layers with a gated delta net, then one with gated attention; experts everywhere.
use super::Header;
use super::common::{MOST, WIDEST};
use crate::ModelError;
use crate::config::{Config, DeltaNetConfig, ExpertsConfig, FeedForwardConfig, Mixer, NormNames, Pairing, QkNorm, SharedExpert};
use crate::error::invalid;
use fastllm_kernels::attention::MAX_HEAD;

pub fn config(header: &Header) -> Result<Config, ModelError> {
    let keys = &header.keys;
    let mut attention = header.attention()?;
    if attention.dim_k != attention.dim_v {
        return invalid!("a head of {} channels cannot have gates for {}", attention.dim_v, attention.dim_k);
    }
    (attention.qk_norm, attention.gated) = (QkNorm::Head, true);
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let width = keys.required("expert_shared_feed_forward_length", WIDEST)?;
    let experts =
        ExpertsConfig { normalise: true, shared: Some(SharedExpert { width, gated: true }), ..header.experts(header.expert_width()?)? };
    let mut config = header.decoder(header.rms_norm()?, attention, rope, FeedForwardConfig::Experts(experts))?;
    let interval = keys.count("full_attention_interval", MOST)?.unwrap_or(4);
    let delta_net = delta_net(header)?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
        if (i + 1) % interval != 0 {
            layer.mixer = Mixer::DeltaNet(delta_net);
        }
    }
    Ok(config)
}

/// The keys have the names of another recurrence, Mamba's.
fn delta_net(header: &Header) -> Result<DeltaNetConfig, ModelError> {
    let keys = &header.keys;
    let (heads, key_heads) = (keys.required("ssm.time_step_rank", MOST)?, keys.required("ssm.group_count", MOST)?);
    let (dim_k, inner) = (keys.required("ssm.state_size", MAX_HEAD)?, keys.required("ssm.inner_size", WIDEST)?);
    let kernel = keys.required("ssm.conv_kernel", 64)?;
    if !heads.is_multiple_of(key_heads) || !inner.is_multiple_of(16 * heads) || inner / heads > MAX_HEAD {
        return invalid!("{inner} channels cannot be shared among {heads} heads of a delta net with {key_heads} of keys");
    }
    Ok(DeltaNetConfig { heads, key_heads, dim_k, dim_v: inner / heads, kernel })
}
