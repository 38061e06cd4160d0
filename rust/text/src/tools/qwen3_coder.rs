//! Qwen3-Coder: `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, with line feeds between.

use super::constraint::Lark;
use super::xml::{self, Tags};

pub(super) const OPENERS: &[&str] = &["<tool_call>", "<function="];
pub(super) const MARKERS: &[&str] = &["</tool_call>", "</function>", "<parameter=", "</parameter>"];
pub(super) const TAGS: Tags = Tags {
    block: ["<tool_call>", "</tool_call>"],
    call: ["<function=", ">", "</function>"],
    parameter: ["<parameter=", ">", "</parameter>"],
    feed: "\n",
    strips: true,
    several: false,
};

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    xml::grammar(&TAGS, lark)
}
