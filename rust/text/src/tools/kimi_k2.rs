//! Kimi K2: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>` in a section.

use super::constraint::Lark;
use super::named::{Named, NamedCalls};

pub(super) const OPENERS: &[&str] = &["<|tool_calls_section_begin|>", "<|tool_call_begin|>"];
pub(super) const MARKERS: &[&str] = &["<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"];
const SPEC: Named = Named {
    begin: "<|tool_call_begin|>",
    separator: "<|tool_call_argument_begin|>",
    end: "<|tool_call_end|>",
    close: "<|tool_calls_section_end|>",
    name,
    fenced: false,
};

/// `functions.name:0` without what is around the name.
fn name(id: &str) -> &str {
    let id = id.trim();
    let id = id.strip_prefix("functions.").unwrap_or(id);
    match id.rsplit_once(':') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => id,
    }
}

pub(super) fn calls(opener: usize) -> NamedCalls {
    NamedCalls::new(SPEC, opener == 1)
}

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let [open, begin, separator, end, close] = [
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ]
    .map(|marker| lark.marker(marker));
    let call = lark.each(|_, name, arguments| {
        format!("{begin} {} /[0-9]{{1,3}}/ {separator} {arguments} {end}", Lark::text(&format!("functions.{name}:")))
    });
    let calls = lark.repeated(&call, "");
    format!("{open} {calls} {close}")
}
