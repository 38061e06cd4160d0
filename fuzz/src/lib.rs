//! What the targets share: the promises of a parsed header, of a loaded model, and of parsed tool calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fastllm_gguf::{GgufFile, Header, Value};
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model, ModelError};
use fastllm_text::tools::{Event, Format, Options, Parser, Reasoning, Tools};

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

/// Parses the output of a model in every format: cuts do not matter, and every call that ends is JSON text of an object.
pub fn check_tool_calls(text: &str, cuts: &[u8]) {
    let declared = [serde_json::json!({"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}})];
    let tools = Tools::from_json(&declared).expect("a tool");
    let cut = |at: usize| cuts.get(at % cuts.len().max(1)).is_some_and(|cut| cut & 1 == 1);
    for format in Format::ALL {
        let options = Options { format, tools: tools.clone(), reasoning: Some(Reasoning::THINK), inside_reasoning: cut(0) };
        let mut whole = Parser::new(options.clone());
        let expected = joined([whole.push(text), whole.finish()].concat());
        let mut parser = Parser::new(options);
        let mut events = Vec::new();
        let mut from = 0;
        for (at, _) in text.char_indices().filter(|(at, _)| cut(*at)) {
            events.extend(parser.push(&text[from..at]));
            from = at;
        }
        events.extend(parser.push(&text[from..]));
        events.extend(parser.finish());
        assert_eq!(expected, joined(events));
    }
}

/// Content, reasoning, and the text of each call that was not taken back.
fn joined(events: Vec<Event>) -> (String, String, BTreeMap<usize, (String, String)>) {
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), BTreeMap::new());
    for event in events {
        match event {
            Event::Content(text) => content += &text,
            Event::Reasoning(text) => reasoning += &text,
            Event::CallBegin { index, name } => assert!(calls.insert(index, (name, String::new())).is_none()),
            Event::Arguments { index, json } => calls.get_mut(&index).expect("a call").1 += &json,
            Event::CallEnd { index } => assert!(calls[&index].1.starts_with('{') && calls[&index].1.ends_with('}')),
            Event::Malformed { index, .. } => assert!(index.is_none_or(|index| calls.remove(&index).is_some())),
        }
    }
    (content, reasoning, calls)
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
