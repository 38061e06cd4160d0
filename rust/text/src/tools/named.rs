//! Calls with the name between markers, and the arguments as JSON after it.

use super::call::Arguments;
use super::cursor::{Cursor, Lookup, Until};
use super::sink::Sink;
use super::{Flow, Reason, Steps};

/// The longest name, with what stands beside it.
pub(super) const LONGEST_NAME: usize = 256;

/// The markers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    /// Before each call.
    pub begin: &'static str,
    /// After the name.
    pub separator: &'static str,
    /// After each call.
    pub end: &'static str,
    /// After all calls.
    pub close: &'static str,
    /// The name of the tool in the text before the separator.
    pub name: fn(&str) -> &str,
    /// Whether the text before the separator may be the type of the call: then the name, a line of its own, and the arguments, in a
    /// fence, follow it.
    pub fenced: bool,
}

#[derive(Debug)]
enum Place {
    /// Before a call, or the end.
    Outside,
    Name,
    /// After the separator.
    Head(String),
    Line,
    Fence(String),
    Arguments(Arguments),
    AfterFence,
    After,
}

/// The calls after an opening marker.
#[derive(Debug)]
pub(super) struct NamedCalls {
    spec: Named,
    place: Place,
    fence: bool,
}

impl NamedCalls {
    /// `inside`: the marker before the first call was read.
    pub fn new(spec: Named, inside: bool) -> Self {
        NamedCalls { spec, place: if inside { Place::Name } else { Place::Outside }, fence: false }
    }

    fn begin(&mut self, name: &str, out: &mut Sink) -> Result<(), Reason> {
        out.begin(checked(name)?);
        self.place = Place::Arguments(Arguments::new());
        Ok(())
    }
}

/// A name, without the space around it.
pub(super) fn checked(name: &str) -> Result<&str, Reason> {
    let name = name.trim();
    if name.is_empty() || name.contains(['\n', '<', '{']) { Err("the call has no name".into()) } else { Ok(name) }
}

impl Steps for NamedCalls {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        let spec = self.spec;
        match &mut self.place {
            Place::Outside => {
                input.skip_space();
                match input.literal(&[spec.begin, spec.close]) {
                    Lookup::Wait => return Ok(Some(Flow::More)),
                    Lookup::Found(0) => self.place = Place::Name,
                    _ => return Ok(Some(Flow::Done)),
                }
            }
            Place::Name => match input.until(&[spec.separator], LONGEST_NAME) {
                Until::Found(head, _) => self.place = Place::Head(head),
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Head(head) => {
                input.skip_space();
                match input.peek() {
                    None if !input.ended => return Ok(Some(Flow::More)),
                    Some('{') | None => {
                        let head = std::mem::take(head);
                        self.begin((spec.name)(&head), out)?;
                    }
                    Some(_) if spec.fenced => self.place = Place::Line,
                    Some(_) => return Err("the arguments are no JSON object".into()),
                }
            }
            Place::Line => match input.until(&["\n"], LONGEST_NAME) {
                Until::Found(name, _) => self.place = Place::Fence(name),
                Until::Wait => return Ok(Some(Flow::More)),
                Until::No => return Err("the name of the call does not end".into()),
            },
            Place::Fence(name) => {
                let found = input.literal(&["```json", "```"]);
                if found == Lookup::Wait {
                    return Ok(Some(Flow::More));
                }
                self.fence = found != Lookup::No;
                let name = std::mem::take(name);
                self.begin(&name, out)?;
            }
            Place::Arguments(arguments) => {
                if !arguments.advance(input, out)? {
                    return if input.ended { Err("the call breaks off".into()) } else { Ok(Some(Flow::More)) };
                }
                out.end();
                self.place = if self.fence { Place::AfterFence } else { Place::After };
            }
            Place::AfterFence => {
                input.skip_space();
                if input.literal(&["```"]) == Lookup::Wait {
                    return Ok(Some(Flow::More));
                }
                self.fence = false;
                self.place = Place::After;
            }
            Place::After => {
                input.skip_space();
                if input.literal(&[spec.end]) == Lookup::Wait {
                    return Ok(Some(Flow::More));
                }
                self.place = Place::Outside;
            }
        }
        Ok(None)
    }
}
