//! Seed-OSS: `<seed:tool_call><function=name><parameter=key>value</parameter></function></seed:tool_call>`, with line feeds
//! between tags; a long value may have them around it too.

use super::constraint::Lark;
use super::qwen3_coder;
use super::xml::{self, Tags};

pub(super) const OPENERS: &[&str] = &["<seed:tool_call>"];
pub(super) const MARKERS: &[&str] = &["</seed:tool_call>", "</function>", "<function=", "<parameter=", "</parameter>"];
pub(super) const TAGS: Tags = Tags { block: ["<seed:tool_call>", "</seed:tool_call>"], feed: "", ..qwen3_coder::TAGS };

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    xml::grammar(&TAGS, lark)
}
