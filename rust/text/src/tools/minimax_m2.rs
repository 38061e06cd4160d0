//! MiniMax M2: `<minimax:tool_call><invoke name="f"><parameter name="key">value</parameter></invoke></minimax:tool_call>`, with line feeds
//! between tags and none around values. One block holds all calls.

use super::constraint::Lark;
use super::xml::{self, Tags};

pub(super) const OPENERS: &[&str] = &["<minimax:tool_call>"];
pub(super) const MARKERS: &[&str] = &["</minimax:tool_call>", "<invoke name=\"", "</invoke>", "<parameter name=\"", "</parameter>"];
pub(super) const TAGS: Tags = Tags {
    block: ["<minimax:tool_call>", "</minimax:tool_call>"],
    call: ["<invoke name=\"", "\">", "</invoke>"],
    parameter: ["<parameter name=\"", "\">", "</parameter>"],
    feed: "",
    strips: false,
    several: true,
};

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    xml::grammar(&TAGS, lark)
}
