//! Nemotron Nano: `<TOOLCALL>[{"name": …, "arguments": {…}}]</TOOLCALL>`.

use super::call::Shape;
use super::constraint::Lark;

pub(super) const OPENERS: &[&str] = &["<TOOLCALL>"];
pub(super) const MARKERS: &[&str] = &["</TOOLCALL>"];
pub(super) const SHAPE: Shape = Shape { before: &[], after: &["</TOOLCALL>"], between: &[], guess: false };

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "arguments");
    let (open, close) = (lark.marker("<TOOLCALL>"), lark.marker("</TOOLCALL>"));
    let list = lark.repeated(&call, "\", \"");
    format!("{open} \"[\" {list} \"]\" {close}")
}
