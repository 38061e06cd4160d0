//! Qwen3-Next: "qwen3next"; Qwen 3.5 and 3.6: "qwen35", "qwen35moe". Three layers with a gated delta net, then one with gated attention;
//! experts everywhere but in "qwen35". The newer files store the heads of values in another order.
use super::common::{Blocks, MOST, WIDEST};
use super::qwen::DENSE_WIDTH;
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Config, DeltaNetConfig, ExpertsConfig, FeedForwardConfig, HeadOrder, Mixer, NormNames, Pairing, QkNorm, SharedExpert};
use crate::error::invalid;
use fastllm_kernels::attention::MAX_HEAD;

pub const FAMILY: Family =
    Family { harmless: &[DENSE_WIDTH, ("expert_shared_count", When::Is(&[0.0, 1.0]))], ..Family::new("qwen3next", config) };

pub const QWEN35: Family = Family::new("qwen35", |header| decoder(header, header.dense()?, HeadOrder::Tiled));
pub const QWEN35MOE: Family =
    Family { harmless: FAMILY.harmless, ..Family::new("qwen35moe", |header| decoder(header, experts(header)?, HeadOrder::Tiled)) };

fn config(header: &Header) -> Result<Config, ModelError> {
    decoder(header, experts(header)?, HeadOrder::Grouped)
}

/// Experts with weights renormalised, and a shared one with a gate.
fn experts(header: &Header) -> Result<FeedForwardConfig, ModelError> {
    let width = header.keys.required("expert_shared_feed_forward_length", WIDEST)?;
    let shared = Some(SharedExpert { width, gated: true });
    Ok(FeedForwardConfig::Experts(ExpertsConfig { shared, ..header.experts(header.expert_width()?, true)? }))
}

fn decoder(header: &Header, feed_forward: FeedForwardConfig, order: HeadOrder) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    if attention.dim_k != attention.dim_v {
        return invalid!("a head of {} channels cannot have gates for {}", attention.dim_v, attention.dim_k);
    }
    (attention.qk_norm, attention.gated) = (QkNorm::Head, true);
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, feed_forward)?;
    let recurrent = recurrent_layers(header)?;
    let delta_net = delta_net(header, order)?;
    for (layer, recurrent) in config.layers.iter_mut().zip(recurrent) {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
        if recurrent {
            layer.mixer = Mixer::DeltaNet(delta_net);
        }
    }
    Ok(config)
}

/// Which layers are recurrent: those of an array, or all but the last of each interval.
fn recurrent_layers(header: &Header) -> Result<Vec<bool>, ModelError> {
    let Blocks { layers, count } = header.blocks;
    let interval = header.keys.count("full_attention_interval", MOST)?.unwrap_or(4);
    let stated = header.keys.flags("attention.recurrent_layers", layers, count)?;
    Ok(stated.unwrap_or_else(|| (0..layers).map(|i| (i + 1) % interval != 0).collect()))
}

/// The keys have the names of another recurrence, Mamba's.
fn delta_net(header: &Header, order: HeadOrder) -> Result<DeltaNetConfig, ModelError> {
    let keys = &header.keys;
    let (heads, key_heads) = (keys.required("ssm.time_step_rank", MOST)?, keys.required("ssm.group_count", MOST)?);
    let (dim_k, inner) = (keys.required("ssm.state_size", MAX_HEAD)?, keys.required("ssm.inner_size", WIDEST)?);
    let kernel = keys.required("ssm.conv_kernel", 64)?;
    if !heads.is_multiple_of(key_heads) || !inner.is_multiple_of(16 * heads) || inner / heads > MAX_HEAD {
        return invalid!("{inner} channels cannot be shared among {heads} heads of a delta net with {key_heads} of keys");
    }
    Ok(DeltaNetConfig { heads, key_heads, dim_k, dim_v: inner / heads, kernel, order })
}
