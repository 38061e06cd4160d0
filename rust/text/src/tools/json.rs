//! Reading JSON byte by byte: says where a value ends, and where it goes wrong, with a bounded memory.

use super::Reason;

/// Deepest nesting.
const MOST_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// A value, or the end of an empty list.
    First,
    /// A key, or the end of an empty object.
    FirstKey,
    Key,
    Colon,
    /// A comma or the end of what is open.
    Next,
    /// In a string; whether it is a key, and what of an escape is still to come.
    Text {
        key: bool,
        escape: Escape,
    },
    Number(Number),
    /// In `true`, `false` or `null`: what is still to come.
    Word(&'static [u8]),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Hex(u8),
}

/// The parts of a number, by what was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// The state after another byte; `None` where the number ends before it.
    fn after(self, byte: u8) -> Option<Number> {
        use Number::{E, Exponent, Fraction, Integer, Minus, Point, Sign, Zero};
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Integer | Fraction, b'e' | b'E') => E,
            (E, b'+' | b'-') => Sign,
            (E | Sign | Exponent, b'0'..=b'9') => Exponent,
            _ => return None,
        })
    }

    fn whole(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::Exponent)
    }
}

/// A reader of one JSON value. Raw control characters in strings are let pass: [`read`] escapes them.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// Whether what is open is an object (or a list), from the outside in.
    open: Vec<bool>,
    state: State,
}

impl Scanner {
    pub fn new() -> Self {
        Scanner { open: Vec::new(), state: State::Value }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many objects and lists are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether the next byte begins a value, unless it is white space.
    pub fn wants_value(&self) -> bool {
        self.state == State::Value
    }

    /// Whether a key has just ended.
    pub fn wants_colon(&self) -> bool {
        self.state == State::Colon
    }

    pub fn in_string(&self) -> bool {
        matches!(self.state, State::Text { .. })
    }

    pub fn in_key(&self) -> bool {
        matches!(self.state, State::Text { key: true, .. })
    }

    /// Whether a value has just ended, and what is open around it goes on.
    pub fn wants_comma(&self) -> bool {
        self.state == State::Next
    }

    /// Reads a byte. After an error, reading on makes no sense.
    pub fn byte(&mut self, byte: u8) -> Result<(), Reason> {
        if let State::Text { key, escape } = self.state {
            self.state = text(key, escape, byte)?;
            if self.state == State::Next {
                self.ended();
            }
            return Ok(());
        }
        if let State::Number(number) = self.state {
            if let Some(next) = number.after(byte) {
                self.state = State::Number(next);
                return Ok(());
            }
            if !number.whole() {
                return Err("a number in the JSON text breaks off".into());
            }
            self.ended();
        }
        if let State::Word([first, rest @ ..]) = self.state {
            if *first != byte {
                return Err("the JSON text has an unknown word".into());
            }
            self.state = State::Word(rest);
            if rest.is_empty() {
                self.ended();
            }
            return Ok(());
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        self.structure(byte)
    }

    fn structure(&mut self, byte: u8) -> Result<(), Reason> {
        match (self.state, byte) {
            (State::First, b']') | (State::FirstKey, b'}') => self.close(),
            (State::Next, b']') if self.open.last() == Some(&false) => self.close(),
            (State::Next, b'}') if self.open.last() == Some(&true) => self.close(),
            (State::Next, b',') => self.state = if self.open.last() == Some(&true) { State::Key } else { State::Value },
            (State::FirstKey | State::Key, b'"') => self.state = State::Text { key: true, escape: Escape::None },
            (State::Colon, b':') => self.state = State::Value,
            (State::Value | State::First, _) => return self.value(byte),
            (State::FirstKey | State::Key, _) => return Err("a key of the JSON text has no quotes".into()),
            _ => return Err("the JSON text has a wrong character between its values".into()),
        }
        Ok(())
    }

    fn value(&mut self, byte: u8) -> Result<(), Reason> {
        self.state = match byte {
            b'{' | b'[' => {
                if self.open.len() >= MOST_DEPTH {
                    return Err(format!("the JSON text is nested more than {MOST_DEPTH} levels deep").into());
                }
                self.open.push(byte == b'{');
                if byte == b'{' { State::FirstKey } else { State::First }
            }
            b'"' => State::Text { key: false, escape: Escape::None },
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            _ => return Err("the JSON text has something that is no value".into()),
        };
        Ok(())
    }

    fn close(&mut self) {
        self.open.pop();
        self.ended();
    }

    fn ended(&mut self) {
        self.state = if self.open.is_empty() { State::Done } else { State::Next };
    }
}

/// The state after a byte of a string; `Next` where it ends a value.
fn text(key: bool, escape: Escape, byte: u8) -> Result<State, Reason> {
    let escape = match (escape, byte) {
        (Escape::None, b'"') => return Ok(if key { State::Colon } else { State::Next }),
        (Escape::None, b'\\') => Escape::Begun,
        (Escape::Begun, b'u') => Escape::Hex(4),
        (Escape::None, _) | (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
        (Escape::Hex(left), _) if byte.is_ascii_hexdigit() => {
            if left > 1 {
                Escape::Hex(left - 1)
            } else {
                Escape::None
            }
        }
        _ => return Err("a string of the JSON text has a wrong escape".into()),
    };
    Ok(State::Text { key, escape })
}

/// Appends a JSON text whose scanner is before `text`, with raw control characters in strings escaped; reads until the value is
/// done. Returns the bytes of `text` that were read; on an error, those before the wrong one.
pub(super) fn read(scanner: &mut Scanner, text: &str, out: &mut String) -> (usize, Result<(), Reason>) {
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if scanner.is_done() {
            out.push_str(&text[from..at]);
            return (at, Ok(()));
        }
        if byte < 0x20 && scanner.in_string() {
            out.push_str(&text[from..at]);
            if let Err(reason) = scanner.byte(byte) {
                return (at, Err(reason));
            }
            escape(byte, out);
            from = at + 1;
        } else if let Err(reason) = scanner.byte(byte) {
            out.push_str(&text[from..at]);
            return (at, Err(reason));
        }
    }
    out.push_str(&text[from..]);
    (text.len(), Ok(()))
}

/// Appends a character of a JSON text that was read; `inside`: whether a string was open before it.
pub(super) fn push(c: char, inside: bool, out: &mut String) {
    match u8::try_from(c) {
        Ok(byte) if inside && byte < 0x20 => escape(byte, out),
        _ => out.push(c),
    }
}

fn escape(byte: u8, out: &mut String) {
    match byte {
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        _ => out.extend(["\\u00", &format!("{byte:02x}")]),
    }
}

/// A whole JSON value, with raw control characters in strings escaped.
pub(super) fn whole(text: &str) -> Result<String, Reason> {
    let mut scanner = Scanner::new();
    let mut out = String::with_capacity(text.len());
    let text = text.trim();
    let (read, result) = read(&mut scanner, text, &mut out);
    result?;
    if let State::Number(number) = scanner.state
        && number.whole()
    {
        return Ok(out);
    }
    if !scanner.is_done() {
        return Err("the JSON text breaks off".into());
    }
    if read < text.len() {
        return Err("more follows the JSON text".into());
    }
    Ok(out)
}

/// A whole JSON object, as [`whole`].
pub(super) fn object(text: &str) -> Result<String, Reason> {
    if !text.trim_start().starts_with('{') {
        return Err("the arguments are no JSON object".into());
    }
    whole(text)
}

/// A string as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_serde() {
        let texts = [
            "{}",
            "[]",
            "[1]",
            "{\"a\":1}",
            "{\"a\":[true,false,null]}",
            "1",
            "-0.5e+3",
            "\"x\\u00e9\\n\"",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "01",
            "1.",
            "-",
            "+1",
            "tru",
            "truex",
            "\"",
            "\"\\x\"",
            "[1 2]",
            "{\"a\" 1}",
            "{1:2}",
            "]",
            "[}",
            "{]",
            "",
            " ",
            "1e",
            "[[[]]]",
            "{\"a\":{}}x",
            "nul",
            "[1,2.5e-7,\"ü\"]",
            "\"\\ud83d\\ude00\"",
            "0",
            "-0",
            "00",
            "1 ",
            " 1",
            "[\"a\" , \"b\"]",
        ];
        for text in texts {
            let serde = serde_json::from_str::<serde_json::Value>(text);
            assert_eq!(whole(text).is_ok(), serde.is_ok(), "{text}: {:?} {serde:?}", whole(text));
        }
    }

    #[test]
    fn control_characters_in_strings_become_escapes() {
        assert_eq!(whole("{\"a\": \"x\ny\tz\u{1}\"\n}").unwrap(), "{\"a\": \"x\\ny\\tz\\u0001\"\n}");
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(whole(&("[".repeat(MOST_DEPTH) + &"]".repeat(MOST_DEPTH))).is_ok());
        assert!(whole(&("[".repeat(MOST_DEPTH + 1) + &"]".repeat(MOST_DEPTH + 1))).is_err());
        assert!(whole(&"[".repeat(1 << 20)).is_err());
    }
}
