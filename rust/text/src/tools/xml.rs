//! Calls between tags, with each argument as text between tags that name it.

use super::constraint::Lark;
use super::cursor::{Cursor, Lookup, Until};
use super::named::{LONGEST_NAME, checked};
use super::sink::Sink;
use super::tagged::Arguments;
use super::{Flow, Reason, Steps, Tools};

/// The tags of a format.
#[derive(Debug)]
pub(super) struct Tags {
    /// Around calls.
    pub block: [&'static str; 2],
    /// Before and after the name of a call, and after its arguments.
    pub call: [&'static str; 3],
    /// Before and after the name of a parameter, and after its value.
    pub parameter: [&'static str; 3],
    /// What a grammar writes on either side of a value.
    pub feed: &'static str,
    /// Whether one line feed on either side of a value belongs to the tags.
    pub strips: bool,
    /// Whether a block holds several calls.
    pub several: bool,
}

#[derive(Debug)]
enum Place {
    Start,
    Name,
    Inside,
    Key,
    Value(String),
    After,
}

/// A call, or a block of calls.
#[derive(Debug)]
pub(super) struct Calls {
    tags: &'static Tags,
    tools: Tools,
    place: Place,
    name: String,
    arguments: Arguments,
    any: bool,
}

impl Calls {
    /// `opener`: the number of the marker that was read: 0 is the tag of the block, 1 that of a call.
    pub fn new(tags: &'static Tags, tools: &Tools, opener: usize) -> Self {
        let place = if opener == 0 { Place::Start } else { Place::Name };
        Calls { tags, tools: tools.clone(), place, name: String::new(), arguments: Arguments::default(), any: false }
    }
}

/// The grammar of blocks of calls.
pub(super) fn grammar(tags: &'static Tags, lark: &mut Lark<'_>) -> String {
    let (open, close) = (lark.open(tags.block[0]), lark.marker(tags.block[1]));
    let [call_open, call_named, call_close] = tags.call;
    let [open_parameter, named, close_parameter] = tags.parameter;
    let feed = tags.feed;
    let call = lark.each_with_properties(|lark, number, tool, properties| {
        // The line feed is not part of the tag that ends a value: that tag ends it whatever follows.
        let before = |name: &str| format!("\n{open_parameter}{name}{named}{feed}");
        let parameters = lark.texts(number, tool, properties, before, &format!("{feed}{close_parameter}"));
        let head = Lark::text(&format!("{call_open}{}{call_named}", tool.name));
        format!("{head} {parameters} {}", Lark::text(&format!("\n{call_close}\n")))
    });
    let calls = if tags.several { lark.repeated(&call, "") } else { call };
    lark.rule("block", &format!("{open} \"\\n\" {calls} {close}"));
    lark.row("block", "\"\\n\"")
}

impl Steps for Calls {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        if matches!(self.place, Place::Start | Place::Inside | Place::After) {
            input.skip_space();
        }
        let [call_open, call_named, call_close] = self.tags.call;
        let [parameter_open, parameter_named, parameter_close] = self.tags.parameter;
        match &self.place {
            Place::Start => match input.literal(&[call_open]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(_) => self.place = Place::Name,
                Lookup::No => return Err(format!("{call_open} is missing").into()),
            },
            Place::Name => match input.until(&[call_named], LONGEST_NAME) {
                Until::Found(name, _) => {
                    checked(&name)?.clone_into(&mut self.name);
                    out.begin(&self.name);
                    self.any = true;
                    self.place = Place::Inside;
                }
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Inside => match input.literal(&[parameter_open, call_close]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(0) => self.place = Place::Key,
                Lookup::Found(_) => {
                    std::mem::take(&mut self.arguments).end(out);
                    self.place = Place::After;
                }
                Lookup::No => return Err("neither a parameter nor the end of the call follows".into()),
            },
            Place::Key => match input.until(&[parameter_named], LONGEST_NAME) {
                Until::Found(key, _) => self.place = Place::Value(checked(&key)?.to_owned()),
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of a parameter does not end".into()),
            },
            Place::Value(key) => {
                let Some(value) = self.arguments.value(input, parameter_close) else {
                    return if input.ended { Err("a parameter does not end".into()) } else { Ok(Some(Flow::More)) };
                };
                let mut value = value.as_str();
                if self.tags.strips {
                    value = value.strip_prefix('\n').unwrap_or(value);
                    value = value.strip_suffix('\n').unwrap_or(value);
                }
                self.arguments.push(&self.tools, &self.name, key, value, out);
                self.place = Place::Inside;
            }
            Place::After => return Ok(self.after(input)),
        }
        Ok(None)
    }
}

impl Calls {
    /// After a call: the end of the block, or where it may hold several the next call.
    fn after(&mut self, input: &mut Cursor) -> Option<Flow> {
        let options = if self.tags.several { &[self.tags.block[1], self.tags.call[0]][..] } else { &self.tags.block[1..] };
        match input.literal(options) {
            Lookup::Wait => return Some(Flow::More),
            Lookup::Found(1) => {
                self.place = Place::Name;
                return None;
            }
            _ => {}
        }
        Some(Flow::Done)
    }
}
