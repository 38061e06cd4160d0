//! Granite 3 and Phi-4-mini: `<|tool_call|>` (Granite also `<tool_call>`) and a JSON list.

use super::call::Shape;
use super::constraint::Lark;

pub(super) const OPENERS: &[&str] = &["<|tool_call|>", "<tool_call>"];
pub(super) const MARKERS: &[&str] = &["<|/tool_call|>", "</tool_call>"];
pub(super) const SHAPE: Shape = Shape { before: &[], after: &["<|/tool_call|>", "</tool_call>"], between: &[], guess: false };

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "arguments");
    let open = lark.marker("<|tool_call|>");
    let list = lark.repeated(&call, "\", \"");
    format!("{open} \"[\" {list} \"]\"")
}
