//! Where the parsers put what they find.

use super::{Event, Reason};

/// Collects events. White space that may lie before a call, or at the end of reasoning, is held back: it is dropped there.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub events: Vec<Event>,
    /// Whether white space is held back at all.
    trims: bool,
    space: String,
    calls: usize,
    /// The call that was begun and not ended.
    open: Option<usize>,
    after_call: bool,
    /// How many calls were ended.
    ended: usize,
    thought: String,
    thinking: bool,
}

impl Sink {
    pub fn new(trims: bool) -> Self {
        Sink { trims, ..Sink::default() }
    }

    pub fn content(&mut self, text: &str) {
        let body = if self.trims { text.trim_end() } else { text };
        if !body.is_empty() {
            let held = std::mem::take(&mut self.space);
            self.push_content(&held);
            self.push_content(body);
            self.after_call = false;
        }
        self.space.push_str(&text[body.len()..]);
    }

    fn push_content(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Event::Content(last)) = self.events.last_mut() {
            last.push_str(text);
        } else {
            self.events.push(Event::Content(text.to_owned()));
        }
    }

    /// Reasoning; the white space around all of it is dropped.
    pub fn reasoning(&mut self, text: &str) {
        let text = if self.thinking { text } else { text.trim_start() };
        let body = text.trim_end();
        if !body.is_empty() {
            self.thinking = true;
            let text = std::mem::take(&mut self.thought) + body;
            if let Some(Event::Reasoning(last)) = self.events.last_mut() {
                last.push_str(&text);
            } else {
                self.events.push(Event::Reasoning(text));
            }
        }
        self.thought.push_str(&text[body.len()..]);
    }

    /// Ends a part of the reasoning; a further one goes on in a new line.
    pub fn reasoning_end(&mut self) {
        self.thought.clear();
        if self.thinking {
            self.thought.push('\n');
        }
    }

    pub fn begin(&mut self, name: &str) {
        self.space.clear();
        self.events.push(Event::CallBegin { index: self.calls, name: name.to_owned() });
        self.open = Some(self.calls);
        self.calls += 1;
    }

    pub fn arguments(&mut self, json: &str) {
        let Some(index) = self.open.filter(|_| !json.is_empty()) else { return };
        match self.events.last_mut() {
            Some(Event::Arguments { index: last, json: text }) if *last == index => text.push_str(json),
            _ => self.events.push(Event::Arguments { index, json: json.to_owned() }),
        }
    }

    pub fn end(&mut self) {
        if let Some(index) = self.open.take() {
            self.events.push(Event::CallEnd { index });
            self.after_call = true;
            self.ended += 1;
        }
    }

    /// A whole call.
    pub fn call(&mut self, name: &str, arguments: &str) {
        self.begin(name);
        self.arguments(arguments);
        self.end();
    }

    pub fn has_open(&self) -> bool {
        self.open.is_some()
    }

    /// A call that is none: takes back the open one, if there is one, and makes its text content.
    pub fn malformed(&mut self, raw: &str, reason: Reason) {
        let index = self.open.take();
        self.events.push(Event::Malformed { index, raw: raw.to_owned(), reason });
        self.content(raw);
    }

    /// As [`Sink::malformed`], of what began within the reasoning, which goes on.
    pub fn malformed_thought(&mut self, raw: &str, reason: Reason) {
        let index = self.open.take();
        self.events.push(Event::Malformed { index, raw: raw.to_owned(), reason });
        self.reasoning(raw);
    }

    /// Whether a call is complete.
    pub fn has_called(&self) -> bool {
        self.ended > 0
    }

    /// Holds back white space.
    pub fn hold(&mut self, space: &str) {
        self.space.push_str(space);
    }

    /// Drops white space that is held back: something follows that it only set apart.
    pub fn drop_space(&mut self) {
        self.space.clear();
    }

    /// No more comes.
    pub fn finish(&mut self) {
        if !self.after_call {
            let space = std::mem::take(&mut self.space);
            self.push_content(&space);
        }
        self.space.clear();
    }
}
