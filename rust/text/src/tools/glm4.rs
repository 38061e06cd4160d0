//! GLM 4.5 and later: `<tool_call>name`, then `<arg_key>…</arg_key>` and `<arg_value>…</arg_value>` for each argument.

use super::constraint::Lark;
use super::cursor::{Cursor, Lookup, Until};
use super::named::{LONGEST_NAME, checked};
use super::sink::Sink;
use super::tagged::Arguments;
use super::{Flow, Reason, Steps, Tools};

pub(super) const OPENERS: &[&str] = &["<tool_call>"];
pub(super) const MARKERS: &[&str] = &["</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"];

#[derive(Debug)]
enum Place {
    Name,
    Inside,
    Key,
    Between(String),
    Value(String),
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    tools: Tools,
    place: Place,
    name: String,
    arguments: Arguments,
}

impl Call {
    pub fn new(tools: &Tools) -> Self {
        Call { tools: tools.clone(), place: Place::Name, name: String::new(), arguments: Arguments::default() }
    }
}

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let [open, close] = ["<tool_call>", "</tool_call>"].map(|marker| lark.marker(marker));
    let call = lark.each_with_properties(|lark, number, tool, properties| {
        let key = |name: &str| format!("<arg_key>{name}</arg_key>\n<arg_value>");
        let arguments = lark.texts(number, properties, key, "</arg_value>\n");
        format!("{open} {} {arguments} {close}", Lark::text(&format!("{}\n", tool.name)))
    });
    lark.repeated(&call, "\"\\n\"")
}

impl Steps for Call {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        if matches!(self.place, Place::Inside | Place::Between(_)) {
            input.skip_space();
        }
        match &mut self.place {
            Place::Name => match input.until(&["<"], LONGEST_NAME) {
                Until::Found(name, _) => {
                    input.at -= 1;
                    checked(&name)?.clone_into(&mut self.name);
                    out.begin(&self.name);
                    self.place = Place::Inside;
                }
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Inside => match input.literal(&["<arg_key>", "</tool_call>"]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(0) => self.place = Place::Key,
                Lookup::Found(_) => {
                    self.arguments.end(out);
                    return Ok(Some(Flow::Done));
                }
                Lookup::No => return Err("neither an argument nor the end of the call follows".into()),
            },
            Place::Key => match input.until(&["</arg_key>"], LONGEST_NAME) {
                Until::Found(key, _) => self.place = Place::Between(checked(&key)?.to_owned()),
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of an argument does not end".into()),
            },
            Place::Between(key) => match input.literal(&["<arg_value>"]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(_) => self.place = Place::Value(std::mem::take(key)),
                Lookup::No => return Err("an argument has no value".into()),
            },
            Place::Value(key) => {
                let Some(value) = self.arguments.value(input, "</arg_value>") else {
                    return if input.ended { Err("an argument does not end".into()) } else { Ok(Some(Flow::More)) };
                };
                self.arguments.push(&self.tools, &self.name, key, &value, out);
                self.place = Place::Inside;
            }
        }
        Ok(None)
    }
}
