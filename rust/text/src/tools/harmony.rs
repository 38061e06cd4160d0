//! gpt-oss: the output is a row of messages, `<|channel|>analysis<|message|>…<|end|>`; the channel says what it is (analysis: reasoning,
//! final: the answer, commentary: what is said before a call), and the recipient, `to=functions.name`, makes it a call.

use super::call::Arguments;
use super::constraint::Lark;
use super::cursor::{Cursor, Lookup, Next, Until};
use super::format::Reasoning;
use super::named::{LONGEST_NAME, checked};
use super::sink::Sink;
use super::{Dialect, Flow, Reason, Tools};

pub(super) const MARKERS: &[&str] = &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>"];
/// What ends the text of a message. The last two belong to the next one.
const ENDS: &[&str] = &["<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>"];

#[derive(Debug)]
enum Place {
    /// The prompt ends with the beginning of a header, which models forget at times.
    Begin,
    Outside,
    Header,
    Reasoning,
    Content,
    Call(Arguments),
}

/// The messages.
#[derive(Debug)]
pub(super) struct Messages {
    calls: bool,
    place: Place,
    said: bool,
}

impl Messages {
    pub fn new(tools: &Tools) -> Self {
        Messages { calls: !tools.all().is_empty(), place: Place::Begin, said: false }
    }

    /// One step; false where more text must come first.
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<bool, Reason> {
        match &mut self.place {
            Place::Begin => {
                let before = input.at;
                let found = input.literal(&["<|channel|>", "<|message|>", "<|constrain|>", " to=", "to="]);
                input.at = before;
                self.place = match found {
                    Lookup::Wait => return Ok(false),
                    Lookup::Found(_) => Place::Header,
                    Lookup::No => Place::Content,
                };
                Ok(true)
            }
            Place::Outside => Ok(self.outside(input, out)),
            Place::Header => self.header(input, out),
            Place::Content | Place::Reasoning => Ok(self.text(input, out)),
            Place::Call(arguments) => {
                if !arguments.advance(input, out)? {
                    return if input.ended { Err("the call breaks off".into()) } else { Ok(false) };
                }
                out.end();
                self.place = Place::Outside;
                Ok(true)
            }
        }
    }

    fn outside(&mut self, input: &mut Cursor, out: &mut Sink) -> bool {
        let next = input.next(MARKERS);
        let (Next::At(at, _) | Next::Not(at)) = next;
        let text = input.take(at);
        out.content(text);
        let Next::At(_, marker) = next else { return false };
        input.mark = input.at;
        let marker = MARKERS.get(marker).copied().unwrap_or_default();
        match marker {
            "<|start|>" => {
                input.take(marker.len());
                self.place = Place::Header;
            }
            "<|channel|>" | "<|message|>" => self.place = Place::Header,
            _ => {
                input.take(marker.len());
            }
        }
        true
    }

    fn header(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<bool, Reason> {
        let header = match input.until(&["<|message|>"], LONGEST_NAME) {
            Until::Found(header, _) => header,
            Until::Wait => return Ok(false),
            Until::No => return Err("the header of a message does not end".into()),
        };
        // Models write two channels, or recipients, at times: the last counts.
        let recipient = after(&header, "to=").filter(|to| self.calls && !matches!(*to, "assistant" | "user" | "all"));
        if let Some(recipient) = recipient {
            out.begin(checked(recipient.strip_prefix("functions.").unwrap_or(recipient))?);
            self.place = Place::Call(Arguments::new());
        } else if after(&header, "<|channel|>") == Some("analysis") {
            self.place = Place::Reasoning;
        } else {
            if std::mem::replace(&mut self.said, true) {
                out.hold("\n");
            }
            self.place = Place::Content;
        }
        Ok(true)
    }

    fn text(&mut self, input: &mut Cursor, out: &mut Sink) -> bool {
        let reasoning = matches!(self.place, Place::Reasoning);
        let next = input.next(ENDS);
        let (Next::At(at, _) | Next::Not(at)) = next;
        let text = input.take(at);
        if reasoning {
            out.reasoning(text);
        } else {
            out.content(text);
        }
        let Next::At(_, end) = next else { return false };
        if reasoning {
            out.reasoning_end();
        }
        if end < 3 {
            input.take(ENDS.get(end).map_or(0, |marker| marker.len()));
        }
        self.place = Place::Outside;
        true
    }
}

/// The word after the last `key`.
fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.rsplit_once(key)?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(rest.len());
    Some(&rest[..end])
}

impl Dialect for Messages {
    fn advance(&mut self, input: &mut Cursor, out: &mut Sink) -> Flow {
        loop {
            match self.step(input, out) {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    if matches!(self.place, Place::Header) {
                        // Its marker is read, so that it does not begin again; at the end, all of it.
                        input.literal(MARKERS);
                        if input.ended {
                            input.take(input.rest().len());
                        }
                    }
                    out.malformed(input.raw(), reason);
                    input.mark = input.at;
                    self.place = Place::Content;
                }
            }
        }
        if matches!(self.place, Place::Outside | Place::Content | Place::Reasoning) {
            input.forget();
        }
        if input.ended { Flow::Done } else { Flow::More }
    }
}

/// What begins the reasoning, and ends it.
pub(super) const REASONING: Reasoning = Reasoning { open: "<|channel|>analysis<|message|>", close: "<|end|>" };

/// A grammar for a message of reasoning and the beginning of the next one.
pub(super) fn thought(mut lark: Lark<'_>) -> String {
    lark.through("through", "<|end|>");
    let analysis = message(&lark, "analysis");
    lark.text_of(&analysis)
}

/// The header of the answer.
pub(super) fn answer(lark: Lark<'_>) -> String {
    let [channel, message] = ["<|channel|>", "<|message|>"].map(|marker| lark.marker(marker));
    lark.text_of(&format!("{channel} \"final\" {message}"))
}

/// A message in a channel, whose text is the rule `through`, and the beginning of the next one.
fn message(lark: &Lark<'_>, name: &str) -> String {
    let [start, channel, message] = ["<|start|>", "<|channel|>", "<|message|>"].map(|marker| lark.marker(marker));
    format!("{channel} \"{name}\" {message} through {start} \"assistant\"")
}

/// A grammar for the messages after the reasoning: what is said before, and a call or the answer. Where reasoning is not limited it may
/// go on between them.
pub(super) fn among_text(mut lark: Lark<'_>) -> String {
    lark.through("through", "<|end|>");
    let channels = if lark.has_budget() { &["commentary"][..] } else { &["commentary", "analysis"] };
    let before: Vec<String> = channels.iter().map(|channel| message(&lark, channel)).collect();
    let [channel, message] = ["<|channel|>", "<|message|>"].map(|marker| lark.marker(marker));
    lark.rule("final", &format!("{channel} \"final\" {message} /(?s:.*)/"));
    let mut last = vec!["final".to_owned()];
    if lark.has_tools() {
        last.push(calls(&mut lark));
    }
    lark.text_of(&format!("({})* ({})", before.join(" | "), last.join(" | ")))
}

/// A rule for a call.
fn calls(lark: &mut Lark<'_>) -> String {
    let [channel, message, constrain, call_end] =
        ["<|channel|>", "<|message|>", "<|constrain|>", "<|call|>"].map(|marker| lark.marker(marker));
    lark.each(|_, name, arguments| {
        let header = Lark::text(&format!("commentary to=functions.{name} "));
        format!("{channel} {header} {constrain} \"json\" {message} {arguments} {call_end}")
    })
}

pub(super) fn grammar(mut lark: Lark<'_>) -> String {
    let call = calls(&mut lark);
    lark.text_of(&call)
}
