//! Files that contradict themselves: an error or a model that runs, never a panic.
mod variants;
use fastllm_gguf::OwnedValue;
use fastllm_kernels::attention::CacheType;
use fastllm_model::MemoryPlan;
use variants::{Parts, logits, models};

/// Keys of the architecture, not of the tokenizer.
fn keys(parts: &Parts) -> Vec<(usize, OwnedValue)> {
    let ours = |key: &str| !key.starts_with("general.") && !key.starts_with("tokenizer.");
    parts.metadata.iter().enumerate().filter(|(_, (key, _))| ours(key)).map(|(i, (_, value))| (i, value.clone())).collect()
}

fn wrong_values(value: &OwnedValue) -> Vec<OwnedValue> {
    match value {
        OwnedValue::F32(_) => [0.0, -1.0, 1.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-45].map(OwnedValue::F32).to_vec(),
        OwnedValue::String(_) => ["", "none", "linear", "yarn", "longrope"].map(OwnedValue::from).to_vec(),
        OwnedValue::Bool(b) => vec![OwnedValue::Bool(!b), OwnedValue::U32(1)],
        _ => {
            let mut all = [0, 1, 2, 3, 5, 16, 64, 100, 576, 577, 4096, u32::MAX].map(OwnedValue::U32).to_vec();
            all.extend([OwnedValue::U64(u64::MAX), OwnedValue::I32(-1), OwnedValue::from("7"), OwnedValue::from(&[1u32, 2][..])]);
            all
        }
    }
}

/// Loads and runs what can be planned.
fn exercise(parts: &Parts) -> bool {
    let file = parts.open();
    if MemoryPlan::new(&file, None, CacheType::F16, 1).is_err() {
        return false;
    }
    match variants::load(&file) {
        Ok(mut context) => logits(&mut context, &[1, 2, 3]).is_ok(),
        Err(_) => false,
    }
}

#[test]
fn wrong_metadata_never_panic() {
    for (name, parts) in models() {
        let (mut refused, mut ran) = (0, 0);
        for (i, value) in keys(&parts) {
            for wrong in wrong_values(&value) {
                let mut changed = parts.clone();
                changed.metadata[i].1 = wrong;
                if exercise(&changed) { ran += 1 } else { refused += 1 }
            }
            let mut changed = parts.clone();
            changed.metadata.remove(i);
            exercise(&changed);
        }
        println!("{name}: {refused} refused, {ran} ran");
        assert!(refused > 20, "{name}: {refused}");
    }
}

#[test]
fn a_tensor_that_is_absent_or_of_another_shape_is_an_error_that_names_it() {
    for (name, parts) in models() {
        for i in 0..parts.tensors.len() {
            let tensor = &parts.tensors[i];
            // The shape of the one gives the vocabulary; the other is for shorter contexts.
            if tensor.name == "token_embd.weight" || tensor.name == "rope_factors_short.weight" {
                continue;
            }
            let mut short = parts.clone();
            let last = short.tensors[i].dims.len() - 1;
            if short.tensors[i].dims[last] == 1 {
                continue;
            }
            let rows = short.tensors[i].dims[last];
            short.tensors[i].dims[last] -= 1;
            short.tensors[i].data.truncate(tensor.data.len() / rows as usize * (rows as usize - 1));
            let error = MemoryPlan::new(&short.open(), None, CacheType::F16, 1).unwrap_err().to_string();
            assert!(error.contains(&tensor.name), "{name}: {error}");
        }
    }
}
