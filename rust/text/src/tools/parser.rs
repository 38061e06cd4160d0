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
    Call(Box<dyn Dialect>),
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
    /// What begins a call, and then what means nothing.
    markers: Vec<&'static str>,
    openers: usize,
}

impl Parser {
    /// A parser at the beginning of an output.
    #[must_use]
    pub fn new(options: Options) -> Parser {
        let Options { format, tools, reasoning, inside_reasoning } = options;
        let calls = !tools.all().is_empty();
        let openers = if calls { format.openers() } else { &[] };
        let phase = if let Some(whole) = format.whole(&tools) {
            Phase::Call(whole)
        } else if inside_reasoning && reasoning.is_some() {
            Phase::Reasoning
        } else if reasoning.is_some() || (calls && format.bare().is_some()) {
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
        if !matches!(self.phase, Phase::Call(_)) {
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
            Phase::Call(dialect) => {
                let flow = dialect.advance(&mut self.input, &mut self.out);
                self.call(flow)
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
        if let Some(Reasoning { open, .. }) = self.reasoning.filter(|_| !thought) {
            match self.input.literal(&[open]) {
                Lookup::Found(_) => {
                    self.out.drop_space();
                    self.phase = Phase::Reasoning;
                    return true;
                }
                Lookup::Wait => return false,
                Lookup::No => {}
            }
        }
        self.phase = match self.format.bare() {
            Some(bare) if bare == c && !self.tools.all().is_empty() => {
                self.input.mark = self.input.at;
                Phase::Call(self.format.bare_dialect(&self.tools))
            }
            _ => Phase::Content,
        };
        true
    }

    fn think(&mut self) -> bool {
        let Some(Reasoning { close, .. }) = self.reasoning else {
            self.phase = Phase::Content;
            return true;
        };
        match self.input.next(&[close]) {
            Next::At(at, _) => {
                let text = self.input.take(at);
                self.out.reasoning(text);
                self.out.reasoning_end();
                self.input.take(close.len());
                self.phase = Phase::Start { thought: true };
                true
            }
            Next::Not(at) => {
                let text = self.input.take(at);
                self.out.reasoning(text);
                false
            }
        }
    }

    fn content(&mut self) -> bool {
        match self.input.next(&self.markers) {
            Next::At(at, index) => {
                let text = self.input.take(at);
                self.out.content(text);
                self.input.mark = self.input.at;
                self.input.take(self.markers.get(index).map_or(0, |m| m.len()));
                if index < self.openers {
                    self.phase = Phase::Call(self.format.dialect(index, &self.tools));
                }
                true
            }
            Next::Not(at) => {
                let text = self.input.take(at);
                self.out.content(text);
                false
            }
        }
    }

    /// After a step through a call; whether there is more to do.
    fn call(&mut self, flow: Flow) -> bool {
        match flow {
            Flow::More if !self.input.ended => return false,
            Flow::More => {
                self.input.take(usize::MAX / 2);
                self.out.malformed(self.input.raw(), "the output ends within a call".into());
            }
            Flow::Done => {}
            Flow::Bad(reason) => self.out.malformed(self.input.raw(), reason),
            Flow::Text => self.out.content(self.input.raw()),
        }
        self.phase = Phase::Content;
        true
    }
}
