//! Whether there is memory for a template and its renders.
//!
//! The interpreter copies strings wherever a template handles them, and cannot report an allocation that fails: the process would
//! end. So the memory that a conversation is likely to need is reserved, and given back, before the interpreter starts.

use serde_json::Value;

use super::translate::MAX_SOURCE;
use super::{RenderInput, TemplateError};
use crate::memory;

/// Copies of the strings of a conversation that exist at a time: as values, as the text (which grows by doubling), filtered and joined
/// by the template, and with guards.
const COPIES: usize = 12;
/// Bytes of a value beyond its string.
const NODE: usize = 256;
/// Bytes of a syntax tree and its instructions for each byte of a source: a token takes a few bytes of it, and a node about a hundred.
const TREE: usize = 64;
/// What every run needs, its thread's heap and thread-local data included.
const BASE: usize = 4 << 20;

/// Bytes that a render of `input` is likely to need.
pub fn of_render(input: &RenderInput<'_>) -> usize {
    let mut bytes = size(input.messages) + input.tools.map_or(0, size);
    bytes += input.variables.values().map(size).sum::<usize>();
    bytes.saturating_mul(COPIES).saturating_add(BASE)
}

/// Bytes that compiling a template is likely to need: its syntax tree is larger than its source. One that is too large is not compiled.
pub fn of_compilation(source: &str) -> usize {
    let compiled = if source.len() > MAX_SOURCE { 0 } else { source.len() };
    compiled.saturating_mul(TREE).saturating_add(BASE)
}

/// # Errors
/// [`TemplateError::OutOfMemory`] where `needed` bytes are not available.
pub fn check(needed: usize) -> Result<(), TemplateError> {
    if memory::available(needed) { Ok(()) } else { Err(TemplateError::OutOfMemory { needed }) }
}

fn size(value: &Value) -> usize {
    NODE / COPIES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + NODE / COPIES + size(value)).sum(),
            _ => 0,
        }
}
