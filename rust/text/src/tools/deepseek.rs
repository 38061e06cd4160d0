//! DeepSeek V3, R1 and V3.1: calls between markers of their own. V3 and R1 write the type, the name in a line and the arguments in a
//! fence, V3.1 the name and the arguments.

use super::constraint::Lark;
use super::named::{Named, NamedCalls};

pub(super) const OPENERS: &[&str] = &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"];
pub(super) const MARKERS: &[&str] = &["<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"];
const SPEC: Named = Named {
    begin: "<｜tool▁call▁begin｜>",
    separator: "<｜tool▁sep｜>",
    end: "<｜tool▁call▁end｜>",
    close: "<｜tool▁calls▁end｜>",
    name: str::trim,
    fenced: true,
};

pub(super) fn calls(opener: usize) -> NamedCalls {
    NamedCalls::new(SPEC, opener == 1)
}

pub(super) fn grammar(lark: &mut Lark<'_>, fenced: bool) -> String {
    let [open, begin, separator, end, close] =
        ["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"]
            .map(|marker| lark.marker(marker));
    let call = lark.each(|_, name, arguments| {
        if fenced {
            let line = Lark::text(&format!("{name}\n```json\n"));
            format!("{begin} \"function\" {separator} {line} {arguments} \"\\n```\" {end}")
        } else {
            format!("{begin} {} {separator} {arguments} {end}", Lark::text(name))
        }
    });
    let calls = lark.repeated(&call, if fenced { "\"\\n\"" } else { "" });
    format!("{open} {calls} {close}")
}
