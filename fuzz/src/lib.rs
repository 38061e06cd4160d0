//! What the targets share: the promises of a parsed header, and of a loaded model.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fastllm_gguf::{GgufFile, Header, Value};
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model, ModelError};

/// Parses and checks what the reader promises. Panics are findings.
pub fn check_gguf(bytes: &[u8], file_len: u64) {
    let Ok(header) = Header::parse(bytes, file_len) else { return };
    for (key, value) in header.metadata.iter() {
        assert_eq!(header.metadata.get(key).map(|v| v.kind()), Some(value.kind()));
        visit(value);
    }
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for tensor in &header.tensors {
        assert_eq!(tensor.offset % header.alignment, 0);
        assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.bytes));
        let end = tensor.offset.checked_add(tensor.bytes).expect("a range inside the file");
        assert!(tensor.offset >= header.data_start && end <= file_len);
        ends.push((tensor.offset, end));
    }
    ends.sort_unstable();
    assert!(ends.windows(2).all(|w| w[0].1 <= w[1].0));
}

/// Loads a file and runs two tokens. Errors are fine; panics, signals and hangs are findings.
///
/// # Errors
/// Whatever is wrong with the file.
pub fn load_model(path: &Path) -> Result<(), ModelError> {
    let file = GgufFile::open(path)?;
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let mut context = Context::new(Arc::new(Model::load(&file, &options, &mut |_, _| true)?))?;
    let vocab = context.model().config().vocab_size;
    let sequence = context.open();
    let row = |position| Row { sequence, position, token: 0, logits: true };
    let logits = context.forward(&[row(0), row(1)], &AtomicBool::new(false))?;
    assert_eq!(logits.len(), 2 * vocab);
    Ok(())
}

fn visit(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        array.iter().for_each(visit);
        let _ = (array.to_f32s(), array.to_i32s(), array.to_u32s(), array.to_bools());
    }
}
