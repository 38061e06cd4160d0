//! Refuses files that hold more than this version understands: whatever could change the result, and would be ignored, is named.
//!
//! A family understands the keys that it reads and the tensors that its weights are declared from. What is left must be harmless: on the
//! lists here or on the family's own.
use super::{Blocks, Family, Keys};
use crate::ModelError;
use crate::config::Activation;
use crate::weights::Tensors;
use fastllm_gguf::{GgufFile, TensorInfo, Value};
use std::collections::BTreeSet;

/// When a key that was not read changes nothing.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Always.
    Always,
    /// If it is one of these numbers (a bool counts as 0 or 1), or an array of them.
    Is(&'static [f32]),
    /// If it is one of these texts.
    Text(&'static [&'static str]),
    /// If it has the value of a different key.
    Same(&'static str),
    /// If another key, which turns it on, is absent or 0.
    Without(&'static str),
    /// If it is 0, or at least as many positions as a sequence can have.
    BeyondContext,
}

use When::{Always, BeyondContext, Is, Same, Text, Without};

/// Keys that mean the same for every family that does not read them: after llama.cpp's list of keys, and those that other writers add.
const HARMLESS: &[(&str, When)] = &[
    // About other parts of the model than the decoder's layers.
    ("vocab_size", Always),
    ("embedding_length_out", Same("embedding_length")),
    ("embedding_length_per_layer_input", Is(&[0.0])),
    ("nextn_predict_layers", Is(&[0.0])),
    ("n_deepstack_layers", Is(&[0.0])),
    // How the vectors of a text are made one: of no effect on logits. 4 is the score of a reranker.
    ("pooling_type", Is(&[0.0, 1.0, 2.0, 3.0])),
    // How the original was stored, which converters undo.
    ("use_parallel_residual", Is(&[0.0])),
    ("tensor_data_layout", Text(&["Meta AI original pth", "jploski"])),
    // Attention.
    ("attention.causal", Is(&[1.0])),
    ("attention.max_alibi_bias", Is(&[0.0])),
    ("attention.clamp_kqv", Is(&[0.0])),
    ("attention.key_length_swa", Same("attention.key_length")),
    ("attention.value_length_swa", Same("attention.value_length")),
    ("attention.q_lora_rank", Is(&[0.0])),
    ("attention.kv_lora_rank", Is(&[0.0])),
    ("attention.output_scale", Is(&[0.0, 1.0])),
    ("attention.value_scale", Is(&[0.0, 1.0])),
    ("attention.temperature_scale", Is(&[0.0])),
    ("attention.temperature_length", Without("attention.temperature_scale")),
    ("attention.shared_kv_layers", Is(&[0.0])),
    ("attention.recurrent_layers", Is(&[0.0])),
    ("attention.sliding_window", BeyondContext),
    ("attention.sliding_window_pattern", Without("attention.sliding_window")),
    // Each family has one kind of norm.
    ("attention.layer_norm_epsilon", Always),
    ("attention.layer_norm_rms_epsilon", Always),
    ("swin_norm", Is(&[0.0])),
    // Scales and caps, where 0 stands for none.
    ("logit_scale", Is(&[0.0, 1.0])),
    ("residual_scale", Is(&[0.0, 1.0])),
    ("embedding_scale", Is(&[0.0, 1.0])),
    ("attn_logit_softcapping", Is(&[0.0])),
    ("final_logit_softcapping", Is(&[0.0])),
    ("router_logit_softcapping", Is(&[0.0])),
    // Experts.
    ("expert_count", Is(&[0.0])),
    ("expert_used_count", Without("expert_count")),
    ("expert_feed_forward_length", Without("expert_count")),
    ("expert_shared_count", Is(&[0.0])),
    ("expert_shared_feed_forward_length", Is(&[0.0])),
    ("expert_gating_func", Is(&[0.0, 1.0])),
    ("expert_weights_scale", Is(&[0.0, 1.0])),
    ("expert_weights_norm", Without("expert_count")),
    ("expert_group_count", Is(&[0.0, 1.0])),
    ("expert_group_used_count", Is(&[0.0, 1.0])),
    ("expert_group_scale", Is(&[0.0, 1.0])),
    ("experts_per_group", Is(&[0.0])),
    ("leading_dense_block_count", Is(&[0.0])),
    ("moe_every_n_layers", Is(&[0.0, 1.0])),
    ("interleave_moe_layer_step", Is(&[0.0, 1.0])),
    ("moe_latent_size", Is(&[0.0])),
    ("swiglu_clamp_exp", Is(&[0.0])),
    ("swiglu_clamp_shexp", Is(&[0.0])),
    ("norm_top_k_prob", Without("expert_count")),
    // Rotation. Of text the positions in all sections are equal.
    ("rope.dimension_sections", Always),
    ("rope.mrope_section", Always),
    ("rope.dimension_count_swa", Same("rope.dimension_count")),
    ("rope.freq_base_swa", Same("rope.freq_base")),
    ("rope.scaling.alpha", Is(&[0.0, 1.0])),
    ("rope.scaling.yarn_log_multiplier", Is(&[0.0])),
    ("rope.scaling.yarn_ext_factor", Is(&[1.0])),
    ("rope.scaling.yarn_attn_factor", Is(&[1.0])),
    // Images: those files hold the text model and its eyes.
    ("image_token_index", Always),
    ("spatial_merge_size", Always),
];

/// Keys that begin like this are of parts that only images and sound go through.
const HARMLESS_KEYS: &[&str] = &["vision.", "audio.", "mm."];

/// Tensors that begin like this are of those parts.
const HARMLESS_TENSORS: &[&str] = &["v.", "a.", "mm."];

/// Namespaces of keys of other kinds of file, or of mechanisms that no family here has.
const FOREIGN: &[(&str, &str)] = &[
    ("adapter.", "the file is an adapter (LoRA), not a model"),
    ("diffusion.", "diffusion models are not supported"),
    ("xielu.", "the activation xIELU is not supported"),
];

/// What to do about it.
const ADVICE: &str = "ignoring it would change the result. A newer version of fastllm may support it";

/// Refuses keys of the file that no family is asked about.
pub fn check_general(file: &GgufFile) -> Result<(), ModelError> {
    let metadata = file.metadata();
    let unsupported = |text: String| Err(ModelError::Unsupported(text));
    match metadata.str("general.type")? {
        None | Some("model") => {}
        Some(other) => {
            let other = crate::error::quoted(other);
            return unsupported(format!("general.type is {other}, but only files of the type \"model\" hold a whole model"));
        }
    }
    for (key, _) in metadata.iter() {
        if let Some((_, why)) = FOREIGN.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            return unsupported(format!("{} is set: {why}", shown(key)));
        }
    }
    // Blocks of the first version have other layouts under the same types.
    if let Some(version @ (0 | 1)) = metadata.u64("general.quantization_version")?
        && let Some(t) = file.tensors().iter().find(|t| t.dtype.block_size() > 1)
    {
        return unsupported(format!(
            "general.quantization_version is {version}, and the tensor {} is quantized: only version 2 is supported; quantize the model again",
            t.name
        ));
    }
    Ok(())
}

/// Refuses keys of the architecture that were not read and could change the result.
pub fn check_keys(keys: &Keys, family: &Family, activation: Activation, positions: usize) -> Result<(), ModelError> {
    for (name, value) in keys.unread() {
        let of = |list: &'static [(&'static str, When)]| list.iter().find(|(key, _)| *key == name).map(|(_, when)| *when);
        let harmless = match of(family.harmless).or_else(|| of(HARMLESS)) {
            Some(when) => is_harmless(keys, value, when, positions),
            None if name == "hidden_activation" => value.as_str().is_some_and(|text| names(activation).contains(&text)),
            None => HARMLESS_KEYS.iter().any(|prefix| name.starts_with(prefix)),
        };
        if !harmless {
            let (key, arch) = (shown(&keys.name(name)), keys.arch());
            return Err(ModelError::Unsupported(format!(
                "{key} is {}, which is not supported for the architecture {arch}: {ADVICE}",
                shown_value(value)
            )));
        }
    }
    Ok(())
}

/// Refuses tensors that no weight was declared from and that could change the result.
pub fn check_tensors(file: &GgufFile, tensors: Tensors<'_>, family: &Family, blocks: &Blocks) -> Result<(), ModelError> {
    let tails: BTreeSet<usize> = file.tensors().iter().filter_map(|t| block(&t.name).filter(|_| t.name.contains(".nextn."))).collect();
    for t in file.tensors() {
        if tensors.used(t).is_some() || is_harmless_tensor(file, tensors, family, t) {
            continue;
        }
        if let Some(block) = block(&t.name).filter(|block| blocks.tail().contains(block)) {
            // What is taken for a tail must be one: a layer that was dropped by mistake would be silent.
            if tails.contains(&block) {
                continue;
            }
            return Err(ModelError::Invalid(format!(
                "{}.nextn_predict_layers makes block {block} one for multi-token prediction, but there is no tensor blk.{block}.nextn.*",
                family.name
            )));
        }
        return Err(ModelError::Unsupported(format!(
            "the tensor {} is not supported for the architecture {}: {ADVICE}",
            shown(&t.name),
            family.name
        )));
    }
    Ok(())
}

fn is_harmless_tensor(file: &GgufFile, tensors: Tensors<'_>, family: &Family, t: &TensorInfo) -> bool {
    let name = t.name.as_str();
    // Without the number of the block.
    let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, part)| part);
    // NVFP4: of a matrix a factor, which the loader applies, and the range of its inputs, which only those need who round them.
    let matrix_of = |suffix: &str| {
        let weight = name.strip_suffix(suffix).map(|prefix| format!("{prefix}.weight"));
        weight.and_then(|weight| tensors.used(file.tensor(&weight)?)).is_some_and(|matrix| matrix)
    };
    HARMLESS_TENSORS.iter().any(|prefix| name.starts_with(prefix))
        || family.harmless_tensors.contains(&part)
        // The frequencies of the rotation, which follow from its base.
        || part.starts_with("attn_rot_embd")
        || matrix_of(".scale")
        || matrix_of(".input_scale")
}

/// The number of the block that a tensor belongs to.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

fn is_harmless(keys: &Keys, value: Value<'_>, when: When, positions: usize) -> bool {
    match when {
        Always => true,
        Is(numbers) => {
            let is = |value: Value<'_>| number(value).is_some_and(|x| numbers.contains(&x));
            value.as_array().map_or_else(|| is(value), |array| array.iter().all(is))
        }
        Text(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
        Same(other) => keys.peek(other) == Some(value),
        Without(other) => keys.peek(other).is_none_or(|other| number(other) == Some(0.0)),
        BeyondContext => value.as_u64().is_some_and(|n| n == 0 || n >= positions as u64),
    }
}

fn number(value: Value<'_>) -> Option<f32> {
    value.as_bool().map(|b| f32::from(u8::from(b))).or_else(|| value.as_f32())
}

/// What `hidden_activation` may call an activation.
fn names(activation: Activation) -> &'static [&'static str] {
    match activation {
        Activation::SwiGlu => &["silu", "swish"],
        Activation::GegluTanh => &["gelu_pytorch_tanh", "gelu_tanh", "gelu_new"],
        Activation::Gelu => &["gelu"],
        Activation::ClampedSwiGlu { .. } => &[],
    }
}

/// A name from a file, cut off where it is long.
fn shown(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_graphic()) && name.len() <= 96 { name.to_owned() } else { crate::error::quoted(name) }
}

fn shown_value(value: Value<'_>) -> String {
    match value {
        Value::String(text) => crate::error::quoted(&String::from_utf8_lossy(text)),
        Value::Array(array) => format!("an array of {} {}", array.len(), array.kind()),
        Value::Bool(x) => x.to_string(),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        other => other.as_i64().map_or_else(|| other.as_u64().unwrap_or(0).to_string(), |x| x.to_string()),
    }
}
