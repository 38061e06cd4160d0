//! A format of our own, for templates that write no tools, or teach calls in a way that is not known: the prompt says how to write
//! them, and a grammar holds every answer to it. An answer is text after `<reply>`, or calls as Hermes has them. The marker before
//! text is there for small models: the choice between two markers follows the question, where a marker that competes with any first
//! word is hardly ever chosen.

use super::constraint::{Constraint, Lark};
use super::format::{Format, Reasoning};

pub(super) use super::hermes::{MARKERS, OPENERS, SHAPE};

/// What begins text, and may end it.
pub(super) const REPLY: Reasoning = Reasoning { open: "<reply>", close: "</reply>" };

/// Calls without anything between them: a token that joins the end of a call and a line feed would lead into a further call.
pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "arguments");
    let (open, close) = (lark.open("<tool_call>"), lark.marker("</tool_call>"));
    lark.rule("tagged", &format!("{open} \"\\n\" {call} \"\\n\" {close}"));
    lark.row("tagged", "")
}

/// The grammars of an answer in text: without the marker that ends it, and with it; calls may follow that.
pub(super) fn replies(constraint: &Constraint<'_>) -> [Option<String>; 2] {
    let mut open = Lark::among_text(constraint);
    let head = format!("{} \"\\n\"", open.marker(REPLY.open));
    open.text_without("TEXT", Format::Generic, &[REPLY.close]);
    let open = open.text_of(&format!("{head} TEXT"));
    let ended = Lark::new(constraint).map(|mut lark| {
        lark.text_without("TEXT", Format::Generic, &[REPLY.close]);
        if lark.is_control(REPLY.close) {
            let close = lark.marker(REPLY.close);
            lark.rule("ended", &format!("TEXT {close}"));
        } else {
            lark.rule("ended[lazy]", &format!("TEXT {}", Lark::text(REPLY.close)));
        }
        let calls = grammar(&mut lark);
        lark.text_of(&format!("{head} ended [/\\n{{1,2}}/ {calls}]"))
    });
    [Some(open), ended]
}
