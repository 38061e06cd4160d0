//! The parser: finds reasoning and calls in the text, and leaves the calls to the format.

use super::cursor::{Cursor, Lookup, Next};
use super::format::{Format, Reasoning};
use super::sink::Sink;
use super::{Dialect, Event, Flow, Tools};

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How calls are written.
    pub format: Format,
    /// The declared tools. Where there are none, nothing is a call.
    pub tools: Tools,
    /// The markers of reasoning; `None`: there is none.
    pub reasoning: Option<Reasoning>,
    /// Whether the prompt has opened the reasoning already.
    pub inside_reasoning: bool,
}

/// Where the parser is.
#[derive(Debug)]
enum Phase {
    /// Nothing came but white space, or nothing but that after the reasoning.
    Start {
        thought: bool,
    },
    Reasoning,
    Content,
    Call {
        dialect: Box<dyn Dialect>,
        /// Whether it began while reasoning was open.
        thinking: bool,
    },
}

/// A marker that may still end something, and is no part of the content then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Of reasoning that a call has ended: right after the calls.
    Reasoning,
    /// Of an answer in text: anywhere.
    Reply,
}

/// An incremental parser of the output of a model.
#[derive(Debug)]
pub struct Parser {
    input: Cursor,
    out: Sink,
    phase: Phase,
    format: Format,
    tools: Tools,
    reasoning: Option<Reasoning>,
    /// What begins a call, then what means nothing, and last the marker of `closing`.
    markers: Vec<&'static str>,
    openers: usize,
    closing: Option<Closing>,
    /// What ends the reasoning, and then what begins a call, which ends it too.
    ends: Vec<&'static str>,
}

impl Parser {
    /// A parser at the beginning of an output.
    #[must_use]
    pub fn new(options: Options) -> Parser {
        let Options { format, tools, reasoning, inside_reasoning } = options;
        let calls = !tools.all().is_empty();
        let openers = if calls { format.openers() } else { &[] };
        let phase = if let Some(whole) = format.whole(&tools) {
            Phase::Call { dialect: whole, thinking: false }
        } else if inside_reasoning && reasoning.is_some() {
            Phase::Reasoning
        } else if reasoning.is_some() || (calls && (format.bare().is_some() || format.reply().is_some())) {
            Phase::Start { thought: false }
        } else {
            Phase::Content
        };
        Parser {
            input: Cursor::default(),
            out: Sink::new(calls || format.whole(&tools).is_some()),
            phase,
            tools,
            reasoning,
            markers: [openers, format.silent()].concat(),
            openers: openers.len(),
            closing: None,
            ends: reasoning.iter().map(|reasoning| reasoning.close).chain(openers.iter().copied()).collect(),
            format,
        }
    }

    /// Takes the next piece of the output. Joined over all pieces, events do not depend on the cuts.
    pub fn push(&mut self, text: &str) -> Vec<Event> {
        if !self.input.ended {
            self.input.push(text);
            self.run();
        }
        std::mem::take(&mut self.out.events)
    }

    /// Says that the output is complete.
    pub fn finish(&mut self) -> Vec<Event> {
        if !self.input.ended {
            self.input.ended = true;
            self.run();
            self.out.finish();
        }
        std::mem::take(&mut self.out.events)
    }

    fn run(&mut self) {
        while self.step() {}
        if !matches!(self.phase, Phase::Call { .. }) {
            self.input.forget();
        }
    }

    /// Reads on; false when nothing can be said before more text comes.
    fn step(&mut self) -> bool {
        match &mut self.phase {
            Phase::Start { thought } => {
                let thought = *thought;
                self.start(thought)
            }
            Phase::Reasoning => self.think(),
            Phase::Content => self.content(),
            Phase::Call { dialect, thinking } => {
                let thinking = *thinking;
                let flow = dialect.advance(&mut self.input, &mut self.out);
                self.call(flow, thinking)
            }
        }
    }

    fn start(&mut self, thought: bool) -> bool {
        let from = self.input.at;
        self.input.skip_space();
        if !thought {
            self.out.hold(self.input.slice(from, self.input.at));
        }
        let Some(c) = self.input.peek() else {
            return false;
        };
        let calls = !self.tools.all().is_empty();
        let reasoning = self.reasoning.filter(|_| !thought);
        let reply = self.format.reply().filter(|_| calls && self.closing.is_none());
        let opens: Vec<&str> = reasoning.iter().chain(&reply).map(|markers| markers.open).collect();
        match self.input.literal(&opens) {
            Lookup::Found(0) if reasoning.is_some() => {
                self.out.drop_space();
                self.phase = Phase::Reasoning;
                return true;
            }
            Lookup::Found(_) => {
                self.out.drop_space();
                self.expect(Closing::Reply);
                self.phase = Phase::Start { thought: true };
                return true;
            }
            Lookup::Wait => return false,
            Lookup::No => {}
        }
        self.phase = match self.format.bare() {
            Some(bare) if bare == c && calls => {
                self.input.mark = self.input.at;
                Phase::Call { dialect: self.format.bare_dialect(&self.tools), thinking: false }
            }
            _ => Phase::Content,
        };
        true
    }

    /// Looks for a marker that ends something.
    fn expect(&mut self, closing: Closing) {
        self.expect_nothing();
        let markers = match closing {
            Closing::Reasoning => self.reasoning,
            Closing::Reply => self.format.reply(),
        };
        if let Some(Reasoning { close, .. }) = markers {
            self.markers.push(close);
            self.closing = Some(closing);
        }
    }

    fn expect_nothing(&mut self) {
        if self.closing.take().is_some() {
            self.markers.pop();
        }
    }

    fn think(&mut self) -> bool {
        let next = self.input.next(&self.ends);
        let (Next::At(at, _) | Next::Not(at)) = next;
        let text = self.input.take(at);
        self.out.reasoning(text);
        let Next::At(_, end) = next else { return false };
        self.input.mark = self.input.at;
        self.input.take(self.ends.get(end).map_or(0, |marker| marker.len()));
        self.phase = match end.checked_sub(1) {
            None => {
                self.out.reasoning_end();
                Phase::Start { thought: true }
            }
            Some(opener) => Phase::Call { dialect: self.format.dialect(opener, &self.tools), thinking: true },
        };
        true
    }

    fn content(&mut self) -> bool {
        let next = self.input.next(&self.markers);
        let (Next::At(at, _) | Next::Not(at)) = next;
        let text = self.input.take(at);
        self.out.content(text);
        if self.closing == Some(Closing::Reasoning) && !text.trim_start().is_empty() {
            // What follows the calls is the answer; a marker in it is text.
            self.expect_nothing();
            return true;
        }
        let Next::At(_, index) = next else { return false };
        self.input.mark = self.input.at;
        self.input.take(self.markers.get(index).map_or(0, |m| m.len()));
        if index < self.openers {
            self.phase = Phase::Call { dialect: self.format.dialect(index, &self.tools), thinking: false };
        } else if self.closing.is_some() && index + 1 == self.markers.len() {
            self.expect_nothing();
            self.out.drop_space();
            self.phase = Phase::Start { thought: true };
        }
        true
    }

    /// After a step through a call; whether there is more to do.
    fn call(&mut self, flow: Flow, thinking: bool) -> bool {
        let (is_done, is_text) = (matches!(flow, Flow::Done), matches!(flow, Flow::Text));
        let reason = match flow {
            Flow::More if !self.input.ended => return false,
            Flow::More => {
                self.input.take(usize::MAX / 2);
                Some("the output ends within a call".into())
            }
            Flow::Bad(reason) => Some(reason),
            Flow::Done | Flow::Text => None,
        };
        if thinking && !is_done && !self.out.has_called() {
            // Reasoning may speak of calls.
            match reason {
                Some(reason) => self.out.malformed_thought(self.input.raw(), reason),
                None => self.out.reasoning(self.input.raw()),
            }
            self.phase = Phase::Reasoning;
            return true;
        }
        if thinking {
            self.out.reasoning_end();
            self.expect(Closing::Reasoning);
        }
        match reason {
            Some(reason) => self.out.malformed(self.input.raw(), reason),
            None if is_text => self.out.content(self.input.raw()),
            None => {}
        }
        self.phase = Phase::Content;
        true
    }
}
