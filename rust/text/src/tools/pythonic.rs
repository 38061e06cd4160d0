//! Llama 3.2 and 4, LFM2: calls as a list in Python, `[f(a=1), g(b="x")]`, as the whole answer or between markers.

use serde_json::Value;

use super::constraint::Lark;
use super::cursor::{Cursor, Lookup};
use super::sink::Sink;
use super::{Flow, Reason, Steps, Tools, json, python};

pub(super) const OPENERS: &[&str] = &["<|python_start|>", "<|tool_call_start|>"];
pub(super) const MARKERS: &[&str] = CLOSERS;
const CLOSERS: &[&str] = &["<|python_end|>", "<|tool_call_end|>"];

#[derive(Debug)]
enum Place {
    Start,
    /// Before the first bracket of a call.
    Head,
    Inside,
    After,
}

/// The list, read as a whole once it is complete.
#[derive(Debug)]
pub(super) struct List {
    tools: Tools,
    guess: bool,
    place: Place,
    from: usize,
    depth: usize,
    quote: Option<char>,
    escaped: bool,
}

impl List {
    /// `guess`: it may be another list, so that only calls of declared tools count.
    pub fn new(tools: &Tools, guess: bool) -> Self {
        List { tools: tools.clone(), guess, place: Place::Start, from: 0, depth: 0, quote: None, escaped: false }
    }

    /// Follows strings and brackets.
    fn track(&mut self, c: char) -> Result<(), Reason> {
        if let Some(quote) = self.quote {
            if self.escaped {
                self.escaped = false;
            } else if c == '\\' {
                self.escaped = true;
            } else if c == quote {
                self.quote = None;
            }
            return Ok(());
        }
        match c {
            '"' | '\'' => self.quote = Some(c),
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > python::MOST_DEPTH { Err("the list of calls is nested too deeply".into()) } else { Ok(()) }
    }

    fn emit(&self, text: &str, out: &mut Sink) -> Result<(), Reason> {
        let calls = python::calls(text)?;
        if calls.is_empty() {
            return Err("the list of calls is empty".into());
        }
        let calls: Vec<_> =
            calls.into_iter().map(|(name, arguments)| Ok((self.object(&name, arguments)?, name))).collect::<Result<_, Reason>>()?;
        for (arguments, name) in calls {
            out.call(&name, &arguments);
        }
        Ok(())
    }

    /// The arguments as an object. Those without keyword take the names of the schema, in its order.
    fn object(&self, name: &str, arguments: Vec<(Option<String>, String)>) -> Result<String, Reason> {
        let properties = self.tools.find(name).and_then(|tool| tool.parameters.get("properties")).and_then(Value::as_object);
        let mut names = properties.into_iter().flat_map(|p| p.keys());
        let mut out = "{".to_owned();
        for (key, value) in arguments {
            let key = key.or_else(|| names.next().cloned()).ok_or("an argument has no name")?;
            if out.len() > 1 {
                out.push_str(", ");
            }
            out.push_str(&json::quoted(&key));
            out.push_str(": ");
            out.push_str(&value);
        }
        out.push('}');
        Ok(out)
    }
}

impl Steps for List {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        if matches!(self.place, Place::Start | Place::After) {
            input.skip_space();
        }
        if matches!(self.place, Place::After) {
            return Ok(Some(if input.literal(CLOSERS) == Lookup::Wait { Flow::More } else { Flow::Done }));
        }
        let Some(c) = input.peek() else {
            return if input.ended { Err("the list of calls breaks off".into()) } else { Ok(Some(Flow::More)) };
        };
        let before = input.at;
        match self.place {
            Place::Start if c != '[' => return Err("no list of calls follows".into()),
            Place::Start => {
                self.from = before;
                self.place = Place::Head;
            }
            Place::Head if c == '(' => {
                let name = input.slice(self.from + 1, before).trim();
                if self.guess && self.tools.find(name).is_none() {
                    return Err("no such tool is declared".into());
                }
                self.place = Place::Inside;
            }
            Place::Head if !(c.is_alphanumeric() || c.is_whitespace() || matches!(c, '_' | '.' | '-')) => {
                return Err("the list has something that is no call".into());
            }
            _ => {}
        }
        self.track(c)?;
        input.at += c.len_utf8();
        if self.depth == 0 {
            self.emit(input.slice(self.from, input.at), out)?;
            self.place = Place::After;
        }
        Ok(None)
    }

    fn may_be_text(&self, _out: &Sink) -> bool {
        self.guess && matches!(self.place, Place::Start | Place::Head)
    }
}

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.each_with_properties(|lark, number, tool, properties| {
        // Two rules for what may follow: `n` after an argument, `f` where none was written yet.
        let count = properties.len();
        lark.rule(&format!("n_{number}_{count}"), "\")\"");
        lark.rule(&format!("f_{number}_{count}"), "\")\"");
        for (at, property) in properties.iter().enumerate().rev() {
            let value = lark.schema(&format!("v_{number}_{at}"), &property.schema);
            let (name, next) = (&property.name, format!("n_{number}_{}", at + 1));
            let written = |comma: &str| format!("{} {value} {next}", Lark::text(&format!("{comma}{name}=")));
            let (first, later) = (written(""), written(", "));
            let skip = format!("f_{number}_{}", at + 1);
            lark.rule(&format!("f_{number}_{at}"), &if property.required { first } else { format!("{first} | {skip}") });
            lark.rule(&format!("n_{number}_{at}"), &if property.required { later } else { format!("{later} | {next}") });
        }
        format!("{} f_{number}_0", Lark::text(&format!("{}(", tool.name)))
    });
    let (open, close) = if lark.is_control("<|tool_call_start|>") {
        (lark.marker("<|tool_call_start|>"), lark.marker("<|tool_call_end|>"))
    } else {
        (String::new(), String::new())
    };
    let calls = lark.repeated(&call, "\", \"");
    format!("{open} \"[\" {calls} \"]\" {close}").trim().to_owned()
}
