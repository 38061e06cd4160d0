//! Llama 1 to 3, Mistral 7B, Yi, and with experts Mixtral: `general.architecture` "llama".
use super::keys::Keys;
use crate::ModelError;
use crate::config::{AttentionConfig, Config, ExpertsConfig, FeedForwardConfig, LayerConfig, Pairing, RopeConfig, RopeScaling};
use crate::error::invalid;
use crate::weights::{Declared, Tensors, Weights};
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::MAX_HEAD;

/// More layers, heads or experts than any model has: keeps sizes that come from a file small.
const MOST: usize = 4096;
/// The widest vector: 2^24 channels.
const WIDEST: usize = 1 << 24;

pub fn declare(file: &GgufFile, keys: &Keys) -> Result<(Config, Weights<Declared>), ModelError> {
    let tensors = Tensors::new(file);
    let hidden = keys.required("embedding_length", WIDEST)?;
    let layers = keys.required("block_count", MOST)?;
    let attention = attention(keys, hidden)?;
    let feed_forward = feed_forward(keys)?;
    let config = Config {
        architecture: keys.arch.to_owned(),
        vocab_size: tensors.rows("token_embd.weight")?,
        hidden,
        context_length: keys.required("context_length", 1 << 30)?,
        norm_eps: keys.required_positive("attention.layer_norm_rms_epsilon")?,
        ropes: vec![rope(keys, &attention, &tensors)?],
        layers: vec![LayerConfig { attention, feed_forward }; layers],
    };
    let weights = tensors.decoder(&config)?;
    Ok((config, weights))
}

fn attention(keys: &Keys, hidden: usize) -> Result<AttentionConfig, ModelError> {
    let heads = keys.required("attention.head_count", MOST)?;
    let kv_heads = keys.count("attention.head_count_kv", MOST)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return invalid!("{heads} query heads cannot be shared among {kv_heads} key/value heads");
    }
    let dim_k = match keys.count("attention.key_length", MAX_HEAD)? {
        Some(n) => n,
        None if hidden.is_multiple_of(heads) && hidden / heads <= MAX_HEAD => hidden / heads,
        None => return invalid!("a width of {hidden} gives no head size for {heads} heads"),
    };
    let dim_v = keys.count("attention.value_length", MAX_HEAD)?.unwrap_or(dim_k);
    let window = keys.count("attention.sliding_window", 1 << 30)?;
    Ok(AttentionConfig { heads, kv_heads, dim_k, dim_v, scale: 1.0 / (dim_k as f32).sqrt(), window, rope: 0 })
}

fn feed_forward(keys: &Keys) -> Result<FeedForwardConfig, ModelError> {
    let width = keys.required("feed_forward_length", WIDEST)?;
    // Converters write an expert count of 0 for dense models.
    let count = keys.metadata.u64(&format!("{}.expert_count", keys.arch))?.unwrap_or(0);
    if count == 0 {
        return Ok(FeedForwardConfig::Dense { width });
    }
    let count = keys.required("expert_count", MOST)?;
    let used = keys.required("expert_used_count", count)?;
    Ok(FeedForwardConfig::Experts(ExpertsConfig { count, used, width }))
}

fn rope(keys: &Keys, attention: &AttentionConfig, tensors: &Tensors) -> Result<RopeConfig, ModelError> {
    let dim = keys.count("rope.dimension_count", attention.dim_k)?.unwrap_or(attention.dim_k);
    if dim % 2 != 0 {
        return invalid!("{}.rope.dimension_count is {dim}, but channels rotate in pairs", keys.arch);
    }
    let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let factor = keys.positive("rope.scaling.factor")?;
    let scaling = match keys.text("rope.scaling.type")? {
        None | Some("none") if tensors.has("rope_freqs.weight") => RopeScaling::Divisors,
        // Files older than the key `rope.scaling.type`.
        None => keys.positive("rope.scale_linear")?.map_or(RopeScaling::None, RopeScaling::Linear),
        Some("none") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear(factor.unwrap_or(1.0)),
        Some("yarn") => RopeScaling::Yarn {
            factor: factor.unwrap_or(1.0),
            original_context: keys.required("rope.scaling.original_context_length", 1 << 30)?,
            attention_factor: keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0),
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        Some(other) => return Err(ModelError::Unsupported(format!("{}.rope.scaling.type {other:?} is not supported", keys.arch))),
    };
    Ok(RopeConfig { pairing: Pairing::Interleaved, dim, base, scaling })
}
