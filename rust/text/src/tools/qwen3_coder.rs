//! Qwen3-Coder: `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, with line feeds between.

use super::constraint::Lark;
use super::cursor::{Cursor, Lookup, Until};
use super::named::{LONGEST_NAME, checked};
use super::sink::Sink;
use super::tagged::Arguments;
use super::{Flow, Reason, Steps, Tools};

pub(super) const OPENERS: &[&str] = &["<tool_call>", "<function="];
pub(super) const MARKERS: &[&str] = &["</tool_call>", "</function>", "<parameter=", "</parameter>"];

#[derive(Debug)]
enum Place {
    Start,
    Name,
    Inside,
    Key,
    Value(String),
    After,
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
    pub fn new(tools: &Tools, opener: usize) -> Self {
        let place = if opener == 0 { Place::Start } else { Place::Name };
        Call { tools: tools.clone(), place, name: String::new(), arguments: Arguments::default() }
    }
}

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let (open, close) = (lark.marker("<tool_call>"), lark.marker("</tool_call>"));
    let call = lark.each_with_properties(|lark, number, tool, properties| {
        let parameters = lark.texts(number, properties, |name| format!("<parameter={name}>\n"), "\n</parameter>\n");
        let function = Lark::text(&format!("\n<function={}>\n", tool.name));
        format!("{open} {function} {parameters} \"</function>\\n\" {close}")
    });
    lark.repeated(&call, "\"\\n\"")
}

impl Steps for Call {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        if matches!(self.place, Place::Start | Place::Inside | Place::After) {
            input.skip_space();
        }
        match &self.place {
            Place::Start => match input.literal(&["<function="]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(_) => self.place = Place::Name,
                Lookup::No => return Err("<function= is missing".into()),
            },
            Place::Name => match input.until(&[">"], LONGEST_NAME) {
                Until::Found(name, _) => {
                    checked(&name)?.clone_into(&mut self.name);
                    out.begin(&self.name);
                    self.place = Place::Inside;
                }
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Inside => match input.literal(&["<parameter=", "</function>"]) {
                Lookup::Wait => return Ok(Some(Flow::More)),
                Lookup::Found(0) => self.place = Place::Key,
                Lookup::Found(_) => {
                    self.arguments.end(out);
                    self.place = Place::After;
                }
                Lookup::No => return Err("neither a parameter nor the end of the call follows".into()),
            },
            Place::Key => match input.until(&[">"], LONGEST_NAME) {
                Until::Found(key, _) => self.place = Place::Value(checked(&key)?.to_owned()),
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of a parameter does not end".into()),
            },
            Place::Value(key) => {
                let Some(value) = self.arguments.value(input, "</parameter>") else {
                    return if input.ended { Err("a parameter does not end".into()) } else { Ok(Some(Flow::More)) };
                };
                // One line feed on either side belongs to the tags.
                let value = value.strip_prefix('\n').unwrap_or(&value);
                let value = value.strip_suffix('\n').unwrap_or(value);
                self.arguments.push(&self.tools, &self.name, key, value, out);
                self.place = Place::Inside;
            }
            Place::After => return Ok(Some(if input.literal(&["</tool_call>"]) == Lookup::Wait { Flow::More } else { Flow::Done })),
        }
        Ok(None)
    }
}
