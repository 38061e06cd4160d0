//! Whether there is memory for a render.
//!
//! The interpreter copies strings wherever a template handles them, and cannot report an allocation that fails: the process would
//! end. So the memory that a conversation is likely to need is reserved, and given back, before the interpreter starts.

use serde_json::Value;

use super::{RenderInput, TemplateError};

/// Copies of the strings of a conversation that exist at a time: as values, as the text (which grows by doubling), filtered and joined
/// by the template, and with guards.
const COPIES: usize = 12;
/// Bytes of a value beyond its string.
const NODE: usize = 256;
/// What every render needs.
const BASE: usize = 1 << 20;

/// # Errors
/// [`TemplateError::OutOfMemory`] where there is less than a render of `input` is likely to need.
pub fn check(input: &RenderInput<'_>) -> Result<(), TemplateError> {
    let mut bytes = size(input.messages) + input.tools.map_or(0, size);
    bytes += input.variables.values().map(size).sum::<usize>();
    let needed = bytes.saturating_mul(COPIES).saturating_add(BASE);
    Vec::<u8>::new().try_reserve_exact(needed).map_err(|_| TemplateError::OutOfMemory { needed })
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
