//! Hermes and Qwen 2 to 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, a tag for each call.

use super::call::Shape;
use super::constraint::Lark;

pub(super) const OPENERS: &[&str] = &["<tool_call>"];
pub(super) const MARKERS: &[&str] = &["</tool_call>"];
pub(super) const SHAPE: Shape = Shape { before: &[], after: &["</tool_call>"], between: &[], guess: false };

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "arguments");
    let (open, close) = (lark.marker("<tool_call>"), lark.marker("</tool_call>"));
    lark.rule("tagged", &format!("{open} \"\\n\" {call} \"\\n\" {close}"));
    lark.repeated("tagged", "\"\\n\"")
}
