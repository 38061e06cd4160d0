//! Mistral: `[TOOL_CALLS]`, and either a JSON list or, since 2025, `name[ARGS]{…}`, perhaps with `[CALL_ID]…` between.

use super::call::{Arguments, JsonCalls, Shape};
use super::constraint::Lark;
use super::cursor::{Cursor, Until};
use super::named::{LONGEST_NAME, checked};
use super::sink::Sink;
use super::{Flow, Reason, Steps, Tools};

pub(super) const OPENERS: &[&str] = &["[TOOL_CALLS]"];
pub(super) const MARKERS: &[&str] = &["[ARGS]", "[CALL_ID]"];
const SHAPE: Shape = Shape { before: &[], after: &[], between: &[], guess: false };

#[derive(Debug)]
enum Place {
    Start,
    List(JsonCalls),
    Name,
    Id(String),
    Arguments(Arguments),
}

/// What follows `[TOOL_CALLS]`.
#[derive(Debug)]
pub(super) struct Calls {
    tools: Tools,
    place: Place,
}

impl Calls {
    pub fn new(tools: &Tools) -> Self {
        Calls { tools: tools.clone(), place: Place::Start }
    }

    fn begin(&mut self, name: &str, out: &mut Sink) -> Result<(), Reason> {
        out.begin(checked(name)?);
        self.place = Place::Arguments(Arguments::new());
        Ok(())
    }
}

pub(super) fn grammar_list(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "arguments");
    let open = lark.marker("[TOOL_CALLS]");
    let list = lark.repeated(&call, "\", \"");
    format!("{open} \"[\" {list} \"]\"")
}

impl Steps for Calls {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        match &mut self.place {
            Place::Start => {
                input.skip_space();
                self.place = match input.peek() {
                    None if !input.ended => return Ok(Some(Flow::More)),
                    Some('[' | '{') => Place::List(JsonCalls::new(SHAPE, &self.tools)),
                    _ => Place::Name,
                };
            }
            Place::List(list) => return list.step(input, out),
            Place::Name => match input.until(&["[ARGS]", "[CALL_ID]", "{"], LONGEST_NAME) {
                Until::Found(name, 1) => self.place = Place::Id(name),
                Until::Found(name, option) => {
                    if option == 2 {
                        input.at -= 1;
                    }
                    self.begin(&name, out)?;
                }
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Id(name) => match input.until(&["[ARGS]"], LONGEST_NAME) {
                Until::Found(..) => {
                    let name = std::mem::take(name);
                    self.begin(&name, out)?;
                }
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the id of the call does not end".into()),
            },
            Place::Arguments(arguments) => {
                if !arguments.advance(input, out)? {
                    return if input.ended { Err("the call breaks off".into()) } else { Ok(Some(Flow::More)) };
                }
                out.end();
                return Ok(Some(Flow::Done));
            }
        }
        Ok(None)
    }
}

pub(super) fn grammar_args(lark: &mut Lark<'_>) -> String {
    let (open, args) = (lark.marker("[TOOL_CALLS]"), lark.marker("[ARGS]"));
    let id = if lark.is_control("[CALL_ID]") { format!("[{} /[a-zA-Z0-9]{{9}}/] ", lark.marker("[CALL_ID]")) } else { String::new() };
    let call = lark.each(|_, name, arguments| format!("{open} {} {id}{args} {arguments}", Lark::text(name)));
    lark.repeated(&call, "")
}
