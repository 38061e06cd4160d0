//! Command R7B and A: `<|START_ACTION|>[{"tool_call_id": …, "tool_name": …, "parameters": {…}}]<|END_ACTION|>`. Command R and R+:
//! ``Action: ```json [{"tool_name": …, "parameters": {…}}] ``` ``.

use super::call::Shape;
use super::constraint::Lark;

pub(super) const OPENERS: &[&str] = &["<|START_ACTION|>", "Action:"];
pub(super) const MARKERS: &[&str] = &["<|END_ACTION|>"];
/// Around the answer.
pub(super) const SILENT: &[&str] = &["<|START_RESPONSE|>", "<|END_RESPONSE|>"];

pub(super) fn shape(opener: usize) -> Shape {
    // "Action:" is also a word.
    Shape { before: &["```json", "```"], after: &["<|END_ACTION|>", "```"], between: &[], guess: opener == 1 }
}

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects_after("{\"tool_call_id\": \"", "/[0-9]{1,3}/", "\", ", "tool_name", "parameters");
    let (open, close) = (lark.marker("<|START_ACTION|>"), lark.marker("<|END_ACTION|>"));
    let list = lark.repeated(&call, "\",\\n    \"");
    format!("{open} \"[\\n    \" {list} \"\\n]\" {close}")
}

pub(super) fn grammar_plus(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("tool_name", "parameters");
    let list = lark.repeated(&call, "\",\\n    \"");
    format!("\"Action:\\n```json\\n[\\n    \" {list} \"\\n]```\"")
}
