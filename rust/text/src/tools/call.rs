//! Calls written as JSON: objects with name and arguments, alone or in lists, and arguments alone.

use super::cursor::{Cursor, Lookup};
use super::json::{self, Scanner};
use super::sink::Sink;
use super::{Flow, Reason, Steps, Tools};

/// Arguments alone: a JSON object, given on as it comes.
#[derive(Debug)]
pub(super) struct Arguments {
    scanner: Scanner,
}

impl Arguments {
    pub fn new() -> Self {
        Arguments { scanner: Scanner::new() }
    }

    /// Reads on; the call must be open. `Done` after the object.
    pub fn advance(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<bool, Reason> {
        if self.scanner.depth() == 0 {
            input.skip_space();
            match input.peek() {
                None => return Ok(false),
                Some('{') => {}
                Some(_) => return Err("the arguments are no JSON object".into()),
            }
        }
        let mut text = String::new();
        let (read, result) = json::read(&mut self.scanner, input.rest(), &mut text);
        input.take(read);
        out.arguments(&text);
        result?;
        Ok(self.scanner.is_done())
    }
}

/// What a key of a call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

fn field(key: &str) -> Field {
    match key {
        "name" | "tool_name" => Field::Name,
        "arguments" | "parameters" | "args" => Field::Arguments,
        _ => Field::Other,
    }
}

/// The arguments of a [`CallObject`].
#[derive(Debug)]
enum Given {
    Nothing,
    /// They are given on as they come.
    Flowing,
    /// They came before the name, or as a string.
    Kept(String),
    All,
}

/// A call as one JSON object, `{"name": …, "arguments": {…}}`, in any order and with other keys, which are ignored.
#[derive(Debug)]
struct CallObject {
    scanner: Scanner,
    field: Field,
    /// Where the key or value began that is read now.
    from: usize,
    name: Option<String>,
    given: Given,
}

impl CallObject {
    fn new() -> Self {
        CallObject { scanner: Scanner::new(), field: Field::Other, from: 0, name: None, given: Given::Nothing }
    }

    /// Reads on. True after the object, whose call was ended then.
    fn advance(&mut self, input: &mut Cursor, out: &mut Sink, guess: Option<&Tools>) -> Result<bool, Reason> {
        let mut piece = String::new();
        while let Some(c) = input.peek() {
            let result = self.character(c, input, out, guess, &mut piece);
            if matches!(self.given, Given::All) || result.is_err() || self.scanner.is_done() {
                out.arguments(&std::mem::take(&mut piece));
            }
            result?;
            input.at += c.len_utf8();
            if self.scanner.is_done() {
                self.finish(out, guess)?;
                return Ok(true);
            }
        }
        out.arguments(&piece);
        Ok(false)
    }

    /// Reads the character under the cursor.
    fn character(&mut self, c: char, input: &Cursor, out: &mut Sink, guess: Option<&Tools>, piece: &mut String) -> Result<(), Reason> {
        let (depth, wanted, inside, in_key) =
            (self.scanner.depth(), self.scanner.wants_value(), self.scanner.in_string(), self.scanner.in_key());
        let had_ended = self.scanner.wants_comma();
        if depth == 0 && c != '{' {
            return Err("a call is no JSON object".into());
        }
        let mut utf8 = [0; 4];
        for byte in c.encode_utf8(&mut utf8).bytes() {
            self.scanner.byte(byte)?;
        }
        let here = input.at;
        let next = here + c.len_utf8();
        if depth == 1 && wanted && !c.is_ascii_whitespace() {
            self.from = here;
            self.begin_value(c, out, guess)?;
        } else if depth == 1 && !inside && self.scanner.in_key() {
            self.from = here;
        } else if in_key && depth == 1 && self.scanner.wants_colon() {
            self.field = field(&decode(input.slice(self.from, next))?);
        }
        if matches!(self.given, Given::Flowing) {
            json::push(c, inside, piece);
        }
        if self.scanner.depth() == 1 && self.scanner.wants_comma() && !(had_ended && depth == 1) {
            self.end_value(input.slice(self.from, next))?;
        }
        Ok(())
    }

    fn begin_value(&mut self, first: char, out: &mut Sink, guess: Option<&Tools>) -> Result<(), Reason> {
        match (self.field, first) {
            (Field::Name, '"') if self.name.is_none() => Ok(()),
            (Field::Name, _) => Err("the name of a call is no string, or given twice".into()),
            (Field::Arguments, '{' | '"' | 'n') if matches!(self.given, Given::Nothing) => {
                if first == '{'
                    && let Some(name) = &self.name
                {
                    known(name, guess)?;
                    out.begin(name);
                    self.given = Given::Flowing;
                }
                Ok(())
            }
            (Field::Arguments, _) => Err("the arguments are no JSON object, or given twice".into()),
            (Field::Other, _) => Ok(()),
        }
    }

    fn end_value(&mut self, text: &str) -> Result<(), Reason> {
        match (self.field, &self.given) {
            (Field::Name, _) => {
                let name = decode(text)?;
                if name.is_empty() {
                    return Err("the name of a call is empty".into());
                }
                self.name = Some(name);
            }
            (Field::Arguments, Given::Flowing) => self.given = Given::All,
            (Field::Arguments, _) => {
                self.given = Given::Kept(match text.as_bytes().first() {
                    Some(b'"') => json::object(&decode(text)?)?,
                    Some(b'n') => "{}".to_owned(),
                    _ => json::object(text)?,
                });
            }
            (Field::Other, _) => {}
        }
        self.field = Field::Other;
        Ok(())
    }

    fn finish(&mut self, out: &mut Sink, guess: Option<&Tools>) -> Result<(), Reason> {
        let name = self.name.as_deref().ok_or("a call has no name")?;
        match &self.given {
            Given::All | Given::Flowing => out.end(),
            Given::Kept(arguments) => {
                known(name, guess)?;
                out.call(name, arguments);
            }
            Given::Nothing if guess.is_some() => return Err("a call has no arguments".into()),
            Given::Nothing => out.call(name, "{}"),
        }
        Ok(())
    }
}

/// Where the text is only perhaps a call, it must be one of a declared tool.
fn known(name: &str, guess: Option<&Tools>) -> Result<(), Reason> {
    match guess {
        Some(tools) if tools.find(name).is_none() => Err("no such tool is declared".into()),
        _ => Ok(()),
    }
}

fn decode(quoted: &str) -> Result<String, Reason> {
    serde_json::from_str(quoted).map_err(|_| "a key or name of a call cannot be read".into())
}

/// How a format writes calls as JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// What may stand between the opening marker and the JSON text.
    pub before: &'static [&'static str],
    /// What ends the call or list; may be missing where the model forgot it.
    pub after: &'static [&'static str],
    /// What may stand between objects outside of a list.
    pub between: &'static [&'static str],
    /// Whether the opening marker occurs in ordinary text, so that only calls of declared tools count.
    pub guess: bool,
}

#[derive(Debug)]
enum Place {
    Before,
    Start,
    /// In a list, where an object, or its end, must come.
    Item,
    Object(Box<CallObject>, bool),
    /// After an object of a list.
    Comma,
    After,
}

/// Calls as JSON, as [`Shape`] says.
#[derive(Debug)]
pub(super) struct JsonCalls {
    shape: Shape,
    tools: Tools,
    place: Place,
    any: bool,
}

impl JsonCalls {
    pub fn new(shape: Shape, tools: &Tools) -> Self {
        JsonCalls { shape, tools: tools.clone(), place: Place::Before, any: false }
    }

    fn after(&mut self, input: &mut Cursor) -> Option<Flow> {
        match input.literal(self.shape.after) {
            Lookup::Wait => return Some(Flow::More),
            Lookup::Found(_) => return Some(Flow::Done),
            Lookup::No => {}
        }
        match input.literal(self.shape.between) {
            Lookup::Wait => Some(Flow::More),
            Lookup::Found(_) => {
                self.place = Place::Start;
                None
            }
            Lookup::No => Some(Flow::Done),
        }
    }
}

impl Steps for JsonCalls {
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason> {
        if !matches!(self.place, Place::Object(..)) {
            input.skip_space();
            if input.peek().is_none() && !input.ended {
                return Ok(Some(Flow::More));
            }
        }
        let next = input.peek();
        match &mut self.place {
            Place::Before => {
                if input.literal(self.shape.before) == Lookup::Wait {
                    return Ok(Some(Flow::More));
                }
                self.place = Place::Start;
            }
            Place::Start | Place::Item if next == Some('{') => {
                let listed = matches!(self.place, Place::Item);
                self.place = Place::Object(Box::new(CallObject::new()), listed);
            }
            Place::Start if next == Some('[') => {
                input.take(1);
                self.place = Place::Item;
            }
            Place::Item if next == Some(']') => {
                input.take(1);
                self.place = Place::After;
            }
            Place::Start | Place::Item => return Err("no JSON text of a call follows".into()),
            Place::Object(object, listed) => {
                let guess = Some(&self.tools).filter(|_| self.shape.guess);
                if !object.advance(input, out, guess)? {
                    return if input.ended { Err("the call breaks off".into()) } else { Ok(Some(Flow::More)) };
                }
                self.any = true;
                self.place = if *listed { Place::Comma } else { Place::After };
            }
            Place::Comma => match next {
                Some(c @ (',' | ']')) => {
                    input.take(1);
                    self.place = if c == ',' { Place::Item } else { Place::After };
                }
                _ => return Ok(Some(Flow::Done)),
            },
            Place::After => return Ok(self.after(input)),
        }
        Ok(None)
    }

    fn may_be_text(&self, out: &Sink) -> bool {
        self.shape.guess && !self.any && !out.has_open()
    }
}
