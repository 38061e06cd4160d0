//! Tensors named `.scale`, which multiply the weights beside them.
use fastllm_gguf::{DType, GgufFile, Writer};
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model, ModelError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A copy of a shipped model with more tensors: one row of floats each.
fn copy_with(name: &str, tensors: &[(&str, Vec<f32>)]) -> PathBuf {
    let file = GgufFile::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden/mixtral/model-f16.gguf")).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata().iter() {
        writer.set(key, value);
    }
    for t in file.tensors() {
        let mut data = vec![0; t.bytes as usize];
        file.read_at(t, 0, &mut data).unwrap();
        writer.add(t.name.clone(), &t.dims, t.dtype, data);
    }
    for (tensor, values) in tensors {
        writer.add(*tensor, &[values.len() as u64], DType::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.gguf"));
    writer.write(std::fs::File::create(&path).unwrap()).unwrap();
    path
}

fn logits(path: &Path) -> Result<Vec<f32>, ModelError> {
    let model = Model::load(&GgufFile::open(path)?, &LoadOptions::default(), &mut |_, _| true)?;
    let mut context = Context::new(Arc::new(model))?;
    let sequence = context.open();
    let rows: Vec<Row> = (0..8).map(|i| Row { sequence, position: i, token: 3 * i + 1, logits: true }).collect();
    Ok(context.forward(&rows, &AtomicBool::new(false))?.to_vec())
}

#[test]
fn scales_multiply_the_weights_of_each_expert() {
    // Powers of two, so that nothing is rounded.
    let scales: Vec<f32> = (0..8).map(|i| 2f32.powi(i - 3)).collect();
    let inverse: Vec<f32> = scales.iter().map(|x| 1.0 / x).collect();
    let (up, down) = ("blk.1.ffn_up_exps.scale", "blk.1.ffn_down_exps.scale");
    let plain = logits(&copy_with("plain", &[])).unwrap();
    let both = logits(&copy_with("both", &[(up, scales.clone()), (down, inverse)])).unwrap();
    assert!(plain.iter().zip(&both).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_ne!(plain, logits(&copy_with("up", &[(up, scales)])).unwrap());
}

#[test]
fn a_scale_multiplies_a_matrix() {
    let (v, o) = ("blk.0.attn_v.scale", "blk.0.attn_output.scale");
    let plain = logits(&copy_with("one-plain", &[])).unwrap();
    let both = logits(&copy_with("one-both", &[(v, vec![4.0]), (o, vec![0.25])])).unwrap();
    assert!(plain.iter().zip(&both).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_ne!(plain, logits(&copy_with("one-v", &[(v, vec![4.0])])).unwrap());
}

#[test]
fn a_wrong_number_of_scales_is_an_error_that_names_the_tensor() {
    for (name, count) in [("blk.0.ffn_up_exps.scale", 4), ("blk.0.attn_v.scale", 2)] {
        let error = logits(&copy_with("wrong", &[(name, vec![1.0; count])])).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
