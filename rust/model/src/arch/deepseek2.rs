//! DeepSeek-V2, V2-Lite, V3 and R1: "deepseek2". Multi-head latent attention and experts in groups.
//!
//! Groups of experts are ranked as in the original models: by their best expert in V2 (softmax), by the sum of the best two in V3 (sigmoid).
use super::common::{LONGEST, MOST, WIDEST};
use super::{Family, Header, When, deepseek};
use crate::ModelError;
use crate::config::{AttentionConfig, Config, ExpertGroups, ExpertsConfig, Gating, LatentConfig, Pairing, QkNorm, RopeScaling};
use crate::error::invalid;
use fastllm_kernels::attention::MAX_HEAD;
use fastllm_kernels::rope::yarn_mscale;

/// Of a compressed head, `attention.key_length` and `value_length` are what the cache holds, which follows from other keys.
pub const FAMILY: Family = Family {
    harmless: &[
        ("attention.key_length", When::Always),
        ("attention.value_length", When::Always),
        ("attention.head_count_kv", When::Always),
        ("expert_group_used_count", When::Is(&[0.0, 1.0])),
    ],
    // Some files hold both layouts of the matrices that make keys and values from the compressed vector.
    harmless_tensors: &["attn_kv_b.weight"],
    ..Family::new("deepseek2", config)
};

fn config(header: &Header) -> Result<Config, ModelError> {
    let keys = &header.keys;
    let (mut attention, rotated) = attention(header)?;
    let mut rope = header.rope(Pairing::Interleaved, rotated)?;
    // With this key YaRN's factor acts on the scores instead of cosines and sines.
    let multiplier = keys.factor("rope.scaling.yarn_log_multiplier")?;
    if let (Some(m), &RopeScaling::Yarn { factor, .. }) = (multiplier, &rope.scaling) {
        attention.scale *= (1.0 + m * factor.max(1.0).ln()).powi(2);
        rope.magnitude /= yarn_mscale(f64::from(factor), 1.0);
    }
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    // Early files of GLM-4.7-Flash do not say that its gating is that of V3.
    let glm_flash = matches!(config.layers.len(), 47 | 48) && config.vocab_size == 154_880;
    let gating = if glm_flash { Gating::Sigmoid } else { Gating::Softmax };
    deepseek::sparse(header, &mut config, experts(header, gating, false)?)?;
    Ok(config)
}

/// Attention, and how many channels of a query head rotate.
fn attention(header: &Header) -> Result<(AttentionConfig, usize), ModelError> {
    let keys = &header.keys;
    let heads = header.heads()?;
    let rank = keys.required("attention.kv_lora_rank", MAX_HEAD)?;
    let rope = keys.required("rope.dimension_count", MAX_HEAD)?;
    // Older files give the sizes of a head under the plain names.
    let size = |mla: &str, plain: &str| match keys.count(mla, MAX_HEAD)? {
        Some(n) => Ok(n),
        None => keys.required(plain, MAX_HEAD),
    };
    let key = size("attention.key_length_mla", "attention.key_length")?;
    let value = size("attention.value_length_mla", "attention.value_length")?;
    if key <= rope || rank + rope > MAX_HEAD {
        return invalid!("heads of {key} channels with {rope} rotated ones, compressed to {rank}, cannot be");
    }
    let latent = LatentConfig { q_rank: keys.optional_count("attention.q_lora_rank", WIDEST)?, rank, nope: key - rope, rope, value };
    let attention = AttentionConfig {
        heads,
        kv_heads: 1,
        dim_k: rank + rope,
        dim_v: rank,
        scale: 1.0 / (key as f32).sqrt(),
        softcap: None,
        window: None,
        rope: Some(0),
        sinks: false,
        qk_norm: QkNorm::None,
        norm_after_rope: false,
        temperature: None,
        gated: false,
        latent: Some(latent),
    };
    Ok((attention, rope))
}

/// Experts whose gating, bias and groups the file states; `gating` and `normalise` are what a file means that does not.
pub fn experts(header: &Header, gating: Gating, normalise: bool) -> Result<ExpertsConfig, ModelError> {
    let keys = &header.keys;
    let mut experts = deepseek::experts(header, normalise)?;
    let gating = match keys.optional_count("expert_gating_func", MOST)? {
        None => gating,
        Some(1) => Gating::Softmax,
        Some(2) => Gating::Sigmoid,
        Some(n) => return Err(ModelError::Unsupported(format!("{} {n} is not supported", keys.name("expert_gating_func")))),
    };
    let biased = (0..MOST).find(|i| header.tensors.has(&format!("blk.{i}.ffn_gate_inp.weight")));
    experts.choice_bias = biased.is_some_and(|i| header.tensors.has(&format!("blk.{i}.exp_probs_b.bias")));
    experts.gating = gating;
    experts.groups = groups(header, &experts)?;
    Ok(experts)
}

fn groups(header: &Header, experts: &ExpertsConfig) -> Result<Option<ExpertGroups>, ModelError> {
    let count = header.keys.optional_count("expert_group_count", LONGEST)?.unwrap_or(1);
    if count == 1 {
        return Ok(None);
    }
    let used = header.keys.required("expert_group_used_count", count)?;
    if !experts.count.is_multiple_of(count) || experts.count / count * used < experts.used {
        let ExpertsConfig { count: all, used: chosen, .. } = experts;
        return invalid!("{chosen} of {all} experts cannot be chosen from {used} of {count} groups");
    }
    Ok(Some(ExpertGroups { count, used, best: if experts.gating == Gating::Sigmoid { 2 } else { 1 } }))
}
