//! What a file holds beyond what its family understands: refused by name where it could change the result, ignored where it could not.
mod variants;
use fastllm_gguf::{DType, OwnedValue};
use fastllm_kernels::attention::CacheType;
use fastllm_model::{MemoryPlan, ModelError};
use variants::{Parts, logits, models};

const TOKENS: [u32; 24] = [1, 17, 400, 3, 99, 255, 17, 17, 8, 301, 42, 43, 44, 45, 46, 500, 2, 7, 100, 200, 201, 202, 203, 204];

fn architecture(parts: &Parts) -> String {
    match parts.metadata.iter().find(|(key, _)| key == "general.architecture") {
        Some((_, OwnedValue::String(name))) => String::from_utf8(name.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn value<'a>(parts: &'a Parts, key: &str) -> Option<&'a OwnedValue> {
    parts.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
}

fn blocks(parts: &Parts) -> u32 {
    match value(parts, &format!("{}.block_count", architecture(parts))) {
        Some(OwnedValue::U32(n)) => *n,
        other => panic!("{other:?}"),
    }
}

fn plan(parts: &Parts) -> Result<MemoryPlan, ModelError> {
    MemoryPlan::new(&parts.open(), None, CacheType::F32, 1)
}

fn run(parts: &Parts) -> Vec<f32> {
    logits(&mut parts.load().unwrap(), &TOKENS).unwrap()
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Asserts that a file is refused as unsupported, by an error that names `what`.
fn refused(name: &str, parts: &Parts, what: &str) {
    match plan(parts) {
        Err(ModelError::Unsupported(text)) => assert!(text.contains(what), "{name}: {what} is not in: {text}"),
        other => panic!("{name} with {what}: {other:?}"),
    }
}

fn with(parts: &Parts, key: &str, value: impl Into<OwnedValue>) -> Parts {
    let mut changed = parts.clone();
    changed.set(key, value);
    changed
}

/// Keys that turn on a mechanism which no family here has, or only others have.
#[test]
fn keys_that_could_change_the_result_are_refused_by_name() {
    let all: [(&str, OwnedValue); 26] = [
        ("a_key_of_the_future", 1u32.into()),
        ("attention.causal", false.into()),
        ("pooling_type", 4u32.into()),
        ("attention.temperature_scale", 0.1f32.into()),
        ("attention.shared_kv_layers", 1u32.into()),
        ("attention.clamp_kqv", 8f32.into()),
        ("attention.max_alibi_bias", 8f32.into()),
        ("attention.indexer.top_k", 16u32.into()),
        ("attention.output_scale", 0.5f32.into()),
        ("attention.key_length_swa", 8u32.into()),
        ("router_logit_softcapping", 30f32.into()),
        ("hyper_connection.count", 2u32.into()),
        ("embedding_length_per_layer_input", 16u32.into()),
        ("embedding_length_out", 8u32.into()),
        ("moe_latent_size", 8u32.into()),
        ("expert_group_scale", 0.05f32.into()),
        ("interleave_moe_layer_step", 2u32.into()),
        ("shortconv.l_cache", 3u32.into()),
        ("swin_norm", true.into()),
        ("hidden_activation", "relu2".into()),
        ("classifier.output_labels", OwnedValue::from(vec!["yes".to_owned(), "no".to_owned()])),
        ("rope.scaling.alpha", 1000f32.into()),
        ("rope.scaling.yarn_ext_factor", 0.5f32.into()),
        ("rope.scaling.yarn_attn_factor", 0.5f32.into()),
        ("decoder_block_count", 2u32.into()),
        ("wkv.head_size", 64u32.into()),
    ];
    for (name, parts) in models() {
        let arch = architecture(&parts);
        for (key, value) in &all {
            let key = format!("{arch}.{key}");
            refused(&name, &with(&parts, &key, value.clone()), &key);
        }
    }
}

#[test]
fn keys_of_other_kinds_of_file_are_refused_by_name() {
    let parts = Parts::of("llama");
    for (key, value) in [
        ("general.type", OwnedValue::from("adapter")),
        ("general.type", "mmproj".into()),
        ("adapter.type", "lora".into()),
        ("diffusion.shift_logits", true.into()),
        ("xielu.alpha_n", 1f32.into()),
    ] {
        refused("llama", &with(&parts, key, value), key);
    }
    let mut old = with(&parts, "general.quantization_version", 1u32);
    assert!(plan(&old).is_ok(), "no tensor is quantized");
    old.take("token_embd.weight");
    old.add("token_embd.weight", &[160, 512], DType::Q8_0, vec![0; 160 / 32 * 34 * 512]);
    refused("llama", &old, "general.quantization_version");
}

/// What real files carry, and what says that a mechanism is off.
#[test]
fn keys_that_change_nothing_are_accepted_with_the_same_bits() {
    for (name, parts) in models() {
        let (arch, plain) = (architecture(&parts), run(&parts));
        let mut more = parts.clone();
        let layers = blocks(&parts) as usize;
        for (key, value) in [
            ("vocab_size", OwnedValue::from(7u32)),
            ("pooling_type", 3u32.into()),
            ("attention.causal", true.into()),
            ("attention.temperature_scale", 0f32.into()),
            ("attention.max_alibi_bias", 0f32.into()),
            ("rope.scaling.finetuned", true.into()),
            ("rope.dimension_sections", OwnedValue::from(&[8u32, 4, 4, 0][..])),
            ("rope.scaling.yarn_ext_factor", 1f32.into()),
            ("nextn_predict_layers", 0u32.into()),
            ("attention.shared_kv_layers", 0u32.into()),
            ("vision.block_count", 27u32.into()),
            ("mm.tokens_per_image", 256u32.into()),
        ] {
            more.set(&format!("{arch}.{key}"), value);
        }
        if arch != "qwen3next" {
            more.set(&format!("{arch}.attention.recurrent_layers"), &vec![false; layers][..]);
        }
        for (key, value) in [
            ("general.sampling.temp", OwnedValue::from(0.6f32)),
            ("general.base_model.0.name", "Llama".into()),
            ("quantize.imatrix.entries_count", 224i32.into()),
            ("tokenizer.ggml.add_sep_token", false.into()),
            ("somebody.else", 3u32.into()),
        ] {
            more.set(key, value);
        }
        more.add("v.blk.0.attn_q.weight", &[32, 32], DType::F16, vec![0; 2048]);
        more.add("mm.input_projection.weight", &[32, 32], DType::F16, vec![0; 2048]);
        assert!(same_bits(&run(&more), &plain), "{name}");
        assert_eq!(plan(&more).unwrap().weights, plan(&parts).unwrap().weights);
    }
}

/// A number for every layer is an array of equal ones.
#[test]
fn counts_may_be_given_for_each_layer() {
    for (name, parts) in models() {
        let (arch, layers, plain) = (architecture(&parts), blocks(&parts) as usize, run(&parts));
        let mut arrays = parts.clone();
        for key in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
            let key = format!("{arch}.{key}");
            match value(&parts, &key) {
                Some(OwnedValue::U32(n)) => arrays.set(&key, &vec![*n; layers][..]),
                other => panic!("{name}: {key} is {other:?}"),
            }
        }
        assert!(same_bits(&run(&arrays), &plain), "{name}");
        for (len, bad) in [(layers + 1, 4u32), (layers, 0)] {
            let key = format!("{arch}.attention.head_count");
            let error = plan(&with(&parts, &key, &vec![bad; len][..])).unwrap_err().to_string();
            assert!(error.contains(&key), "{name}: {error}");
        }
    }
}

/// A narrower last layer is one whose other channels are 0.
#[test]
fn widths_may_differ_from_layer_to_layer() {
    let plain = Parts::of("llama");
    let (mut zeros, mut narrow) = (plain.clone(), plain.clone());
    let (width, kept) = (384usize, 128usize);
    for part in ["ffn_gate", "ffn_up"] {
        let name = format!("blk.1.{part}.weight");
        for (parts, cut) in [(&mut zeros, false), (&mut narrow, true)] {
            let mut t = parts.take(&name);
            let row = t.data.len() / width;
            t.data[kept * row..].fill(0);
            if cut {
                t.data.truncate(kept * row);
                t.dims[1] = kept as u64;
            }
            parts.tensors.push(t);
        }
    }
    let mut down = narrow.take("blk.1.ffn_down.weight");
    down.data = down.data.chunks(2 * width).flat_map(|row| row[..2 * kept].to_vec()).collect();
    down.dims[0] = kept as u64;
    narrow.tensors.push(down);
    narrow.set("llama.feed_forward_length", &[384u32, 128][..]);
    let (a, b) = (run(&zeros), run(&narrow));
    let error = a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error < 1e-4, "{error}");
    assert!(run(&plain).iter().zip(&a).any(|(a, b)| (a - b).abs() > 1e-2));
}

/// Fewer heads in the last layer are heads whose output is not used.
#[test]
fn heads_may_differ_from_layer_to_layer() {
    let plain = Parts::of("mistral");
    let (mut zeros, mut few) = (plain.clone(), plain.clone());
    let dim = 48usize;
    // Four query heads on two of keys and values: the last two belong to the second.
    let mut out = zeros.take("blk.1.attn_output.weight");
    out.data.chunks_mut(2 * 4 * dim).for_each(|row| row[2 * 2 * dim..].fill(0));
    zeros.tensors.push(out);
    for (part, heads) in [("attn_q", 2), ("attn_k", 1), ("attn_v", 1)] {
        let mut t = few.take(&format!("blk.1.{part}.weight"));
        t.dims[1] = (heads * dim) as u64;
        t.data.truncate(2 * 128 * heads * dim);
        few.tensors.push(t);
    }
    let mut out = few.take("blk.1.attn_output.weight");
    out.data = out.data.chunks(2 * 4 * dim).flat_map(|row| row[..2 * 2 * dim].to_vec()).collect();
    out.dims[0] = (2 * dim) as u64;
    few.tensors.push(out);
    few.set("llama.attention.head_count", &[4u32, 2][..]);
    few.set("llama.attention.head_count_kv", &[2u32, 1][..]);
    let (a, b) = (run(&zeros), run(&few));
    let error = a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error < 1e-4, "{error}");
}

#[test]
fn tensors_that_are_not_used_are_refused_by_name() {
    for (name, parts) in models() {
        let last = blocks(&parts) - 1;
        for tensor in [
            "cls.output.weight".to_owned(),
            "token_embd_norm.weight".to_owned(),
            "output.bias".to_owned(),
            format!("blk.{last}.attn_sub_norm.weight"),
            format!("blk.{last}.ffn_norm_exps.weight"),
            format!("blk.{last}.attn_q.weight.lora_a"),
            format!("blk.{last}.nextn.eh_proj.weight"),
            // One more layer than the file says.
            format!("blk.{}.attn_norm.weight", last + 1),
        ] {
            let mut more = parts.clone();
            more.add(&tensor, &[16], DType::F32, vec![0; 64]);
            refused(&name, &more, &tensor);
        }
    }
}

/// A bias of a norm that has none by its formula would be ignored.
#[test]
fn a_bias_of_a_root_mean_square_norm_is_refused() {
    let mut parts = Parts::of("llama");
    parts.add("blk.0.attn_norm.bias", &[160], DType::F32, vec![0; 640]);
    refused("llama", &parts, "blk.0.attn_norm.bias");
}

/// NVFP4 files: factors beside matrices are applied; ranges of inputs are for those who round them.
#[test]
fn factors_of_matrices_are_understood() {
    let mut parts = Parts::of("llama");
    parts.add("blk.0.ffn_up.scale", &[1], DType::F32, 1f32.to_le_bytes().to_vec());
    parts.add("blk.0.ffn_up.input_scale", &[1], DType::F32, 3f32.to_le_bytes().to_vec());
    assert!(same_bits(&run(&parts), &run(&Parts::of("llama"))));
    parts.add("blk.0.attn_norm.scale", &[1], DType::F32, 3f32.to_le_bytes().to_vec());
    refused("llama", &parts, "blk.0.attn_norm.scale");
}

/// Adds a tail for multi-token prediction, whose layer is a copy of the last: arrays have an entry for it.
fn with_tail(parts: &Parts) -> Parts {
    let (arch, layers) = (architecture(parts), blocks(parts));
    let mut tail = parts.clone();
    let hidden = parts.tensors.iter().find(|t| t.name == "output_norm.weight").unwrap().dims[0];
    let prefix = format!("blk.{}.", layers - 1);
    for t in parts.tensors.iter().filter(|t| t.name.starts_with(&prefix)) {
        tail.add(&t.name.replacen(&prefix, &format!("blk.{layers}."), 1), &t.dims, t.dtype, t.data.clone());
    }
    tail.add(&format!("blk.{layers}.nextn.eh_proj.weight"), &[2 * hidden, hidden], DType::F32, vec![0; (8 * hidden * hidden) as usize]);
    for part in ["enorm", "hnorm", "shared_head_norm"] {
        tail.add(&format!("blk.{layers}.nextn.{part}.weight"), &[hidden], DType::F32, vec![0; 4 * hidden as usize]);
    }
    for (key, value) in &mut tail.metadata {
        if let (true, OwnedValue::Array(_, entries)) = (key.starts_with(&arch), value) {
            entries.push(entries.last().unwrap().clone());
        }
    }
    tail.set(&format!("{arch}.block_count"), layers + 1);
    tail.set(&format!("{arch}.nextn_predict_layers"), 1u32);
    tail
}

#[test]
fn tails_for_multi_token_prediction_are_skipped() {
    for (name, parts) in models() {
        let (arch, tail) = (architecture(&parts), with_tail(&parts));
        assert!(same_bits(&run(&tail), &run(&parts)), "{name}");
        let (a, b) = (plan(&tail).unwrap(), plan(&parts).unwrap());
        assert_eq!((a.weights, a.kv_cache, a.scratch), (b.weights, b.kv_cache, b.scratch), "{name}");
        // Of a tail that was left out, the counts remain.
        let mut stripped = tail.clone();
        let prefix = format!("blk.{}.", blocks(&parts));
        stripped.tensors.retain(|t| !t.name.starts_with(&prefix));
        assert!(same_bits(&run(&stripped), &run(&parts)), "{name}");
        // A layer is no tail.
        let mut layer = tail.clone();
        layer.tensors.retain(|t| !t.name.contains(".nextn."));
        let error = plan(&layer).unwrap_err().to_string();
        assert!(error.contains("nextn_predict_layers"), "{name}: {error}");
        let all = with(&tail, &format!("{arch}.nextn_predict_layers"), blocks(&tail));
        assert!(plan(&all).unwrap_err().to_string().contains("nextn_predict_layers"));
    }
}

/// A window that no sequence outgrows is none, where a family has none.
#[test]
fn a_window_is_understood_or_refused() {
    for (name, parts) in models() {
        let (arch, plain) = (architecture(&parts), run(&parts));
        let key = format!("{arch}.attention.sliding_window");
        let narrow = with(&parts, &key, 4u32);
        if ["llama", "phi3", "olmo2", "gemma2", "gemma3", "gpt-oss"].contains(&arch.as_str()) {
            assert!(!same_bits(&run(&narrow), &plain), "{name}");
        } else {
            refused(&name, &narrow, &key);
            assert!(same_bits(&run(&with(&parts, &key, 0u32)), &plain), "{name}");
            assert!(same_bits(&run(&with(&parts, &key, 1u32 << 20)), &plain), "{name}");
        }
    }
}

/// A period stands for the array of the flags that it makes, and flags decide.
#[test]
fn patterns_of_windows() {
    for (name, period) in [("gemma2", 2usize), ("gemma3", 6), ("gpt-oss", 2), ("olmo3", 4)] {
        let parts = Parts::of(name);
        let (arch, plain, layers) = (architecture(&parts), run(&parts), blocks(&parts) as usize);
        let key = format!("{arch}.attention.sliding_window_pattern");
        let flags: Vec<bool> = (0..layers).map(|i| (i + 1) % period != 0).collect();
        let mut none = parts.clone();
        none.remove_key(&key);
        for same in [with(&parts, &key, &flags[..]), with(&parts, &key, period as u32), none] {
            assert!(same_bits(&run(&same), &plain), "{name}");
        }
        let everywhere = with(&parts, &key, &vec![true; layers][..]);
        assert!(!same_bits(&run(&everywhere), &plain), "{name}");
    }
}

/// In Granite files the key is a switch.
#[test]
fn granite_without_rotation() {
    let parts = Parts::of("granite");
    let still = with(&parts, "granite.rope.scaling.finetuned", false);
    assert!(!same_bits(&run(&still), &run(&parts)));
    // Without rotation the order of the tokens before the last does not matter to the first layer: only that all are seen.
    assert!(same_bits(&run(&with(&parts, "granite.rope.scaling.finetuned", true)), &run(&parts)));
}

#[test]
fn the_ends_of_yarns_ramp_are_those_of_the_file() {
    let parts = Parts::of("deepseek-v3");
    let plain = run(&parts);
    let mut absent = parts.clone();
    absent.remove_key("deepseek2.rope.scaling.yarn_beta_fast");
    absent.remove_key("deepseek2.rope.scaling.yarn_beta_slow");
    assert!(same_bits(&run(&absent), &plain));
    // Kimi K2 has 1 and 1.
    assert!(!same_bits(&run(&with(&parts, "deepseek2.rope.scaling.yarn_beta_fast", 1f32)), &plain));
}

/// Without a type, a factor is that of linear scaling.
#[test]
fn a_factor_without_a_type_is_linear() {
    let parts = Parts::of("llama-bias");
    let mut untyped = parts.clone();
    untyped.remove_key("llama.rope.scaling.type");
    assert!(same_bits(&run(&untyped), &run(&parts)));
    refused("llama", &with(&Parts::of("llama"), "llama.rope.scaling.factor", 8f32), "rope_freqs.weight");
}

/// Ollama's names for the bases of Gemma 3.
#[test]
fn gemma_3_with_other_names() {
    let parts = Parts::of("gemma3");
    let mut other = parts.clone();
    other.remove_key("gemma3.rope.freq_base");
    other.remove_key("gemma3.rope.freq_base_swa");
    other.set("gemma3.rope.global.freq_base", 1_000_000f32);
    other.set("gemma3.rope.local.freq_base", 10_000f32);
    assert!(same_bits(&run(&other), &run(&parts)));
    other.remove_key("gemma3.rope.global.freq_base");
    assert!(plan(&other).unwrap_err().to_string().contains("gemma3.rope.freq_base"));
}

/// Whether weights of experts are renormalised is what the file says.
#[test]
fn the_norm_of_the_weights_of_experts() {
    for (name, usual) in [("mixtral", true), ("qwen3next", true), ("gpt-oss", false)] {
        let parts = Parts::of(name);
        let (arch, plain) = (architecture(&parts), run(&parts));
        for key in ["expert_weights_norm", "norm_top_k_prob"] {
            let key = format!("{arch}.{key}");
            assert!(same_bits(&run(&with(&parts, &key, usual)), &plain), "{name}");
        }
    }
    let parts = Parts::of("mixtral");
    assert!(!same_bits(&run(&with(&parts, "llama.expert_weights_norm", false)), &run(&parts)));
}
