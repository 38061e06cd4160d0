//! What the targets share: the promises of a parsed header.

use fastllm_gguf::{Header, Value};

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

fn visit(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        array.iter().for_each(visit);
        let _ = (array.to_f32s(), array.to_i32s(), array.to_u32s(), array.to_bools());
    }
}
