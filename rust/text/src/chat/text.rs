//! Values as text: Python's `str`, `repr` and `json.dumps`.

use std::fmt::Write as _;

use minijinja::{Error, State, Value};

use super::error::fail;
use super::value::{Dict, Kind, charge, kind, type_name};

/// A string in the making whose bytes are charged as they come, so that it stops early.
pub(super) struct Text<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    pending: usize,
}

impl<'a, 'b, 'c> Text<'a, 'b, 'c> {
    pub(super) fn new(state: &'a State<'b, 'c>) -> Self {
        Text { state, out: String::new(), pending: 0 }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Error> {
        self.pending += text.len();
        if self.pending >= 64 {
            charge(self.state, self.pending)?;
            self.pending = 0;
        }
        self.out.push_str(text);
        Ok(())
    }

    pub(super) fn repeat(&mut self, text: &str, count: usize) -> Result<(), Error> {
        charge(self.state, text.len().saturating_mul(count))?;
        for _ in 0..count {
            self.out.push_str(text);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Appends `str(value)`.
    pub(super) fn str(&mut self, value: &Value) -> Result<(), Error> {
        match kind(value) {
            Kind::Undefined => Ok(()),
            Kind::Str(text) => self.push(text),
            _ => self.repr(value),
        }
    }

    /// Appends a text for HTML: escaped, unless it is safe.
    pub(super) fn markup(&mut self, value: &Value) -> Result<(), Error> {
        let text = to_str(self.state, value)?;
        if value.is_safe() { self.push(&text) } else { self.escaped(&text) }
    }

    /// Appends a text with the escapes of HTML.
    pub(super) fn escaped(&mut self, text: &str) -> Result<(), Error> {
        text.chars().try_for_each(|c| match c {
            '&' => self.push("&amp;"),
            '<' => self.push("&lt;"),
            '>' => self.push("&gt;"),
            '\'' => self.push("&#39;"),
            '"' => self.push("&#34;"),
            _ => self.push(c.encode_utf8(&mut [0; 4])),
        })
    }

    /// Appends `repr(value)`.
    pub(super) fn repr(&mut self, value: &Value) -> Result<(), Error> {
        match kind(value) {
            Kind::Undefined => self.push("Undefined"),
            Kind::None => self.push("None"),
            Kind::Bool(flag) => self.push(if flag { "True" } else { "False" }),
            Kind::Int(int) => self.push(&int.to_string()),
            Kind::Float(float) => self.push(&float_repr(float)),
            Kind::Str(text) => self.quoted(text),
            Kind::List(list) => {
                let items = list.lock().clone();
                self.sequence("[", &items, "]")
            }
            Kind::Tuple(tuple) => self.sequence("(", tuple, if tuple.len() == 1 { ",)" } else { ")" }),
            Kind::Dict(dict) => self.mapping(dict),
            Kind::Other => self.push("<object>"),
        }
    }

    fn sequence(&mut self, open: &str, items: &[Value], close: &str) -> Result<(), Error> {
        self.push(open)?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.push(", ")?;
            }
            self.repr(item)?;
        }
        self.push(close)
    }

    fn mapping(&mut self, dict: &Dict) -> Result<(), Error> {
        self.push("{")?;
        for (i, (key, value)) in dict.pairs().iter().enumerate() {
            if i > 0 {
                self.push(", ")?;
            }
            self.repr(key)?;
            self.push(": ")?;
            self.repr(value)?;
        }
        self.push("}")
    }

    fn quoted(&mut self, text: &str) -> Result<(), Error> {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut out = String::with_capacity(text.len() + 2);
        out.push(quote);
        for c in text.chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                _ if c == quote => out.extend(['\\', c]),
                '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => write!(out, "\\x{:02x}", u32::from(c)).unwrap_or_default(),
                _ => out.push(c),
            }
        }
        out.push(quote);
        self.push(&out)
    }
}

/// `str(value)`.
pub(super) fn to_str(state: &State, value: &Value) -> Result<String, Error> {
    let mut text = Text::new(state);
    text.str(value)?;
    Ok(text.finish())
}

/// `repr(float)`: the shortest digits that read back, in Python's layout.
pub(super) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// The options of `json.dumps`.
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// Text of one level.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
}

impl Text<'_, '_, '_> {
    /// Appends `json.dumps(value)`.
    pub(super) fn json(&mut self, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Error> {
        match kind(value) {
            Kind::None => self.push("null"),
            Kind::Bool(flag) => self.push(if flag { "true" } else { "false" }),
            Kind::Int(int) => self.push(&int.to_string()),
            Kind::Float(float) => self.push(&float_json(float)),
            Kind::Str(text) => self.json_string(text, style),
            Kind::List(list) => {
                let items = list.lock().clone();
                self.json_items('[', ']', &items, style, depth, |text, item| text.json(item, style, depth + 1))
            }
            Kind::Tuple(tuple) => self.json_items('[', ']', tuple, style, depth, |text, item| text.json(item, style, depth + 1)),
            Kind::Dict(dict) => {
                let mut pairs = Vec::with_capacity(dict.len());
                for (key, item) in dict.pairs() {
                    pairs.push((json_key(&key)?, item));
                }
                if style.sort_keys {
                    charge(self.state, pairs.len() * 64)?;
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.json_items('{', '}', &pairs, style, depth, |text, (key, item)| {
                    text.json_string(key, style)?;
                    text.push(&style.key_separator)?;
                    text.json(item, style, depth + 1)
                })
            }
            Kind::Undefined | Kind::Other => Err(fail(format!("Object of type {} is not JSON serializable", type_name(value)))),
        }
    }

    fn json_items<T>(
        &mut self,
        open: char,
        close: char,
        items: &[T],
        style: &JsonStyle,
        depth: usize,
        mut write: impl FnMut(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut buffer = [0; 4];
        self.push(open.encode_utf8(&mut buffer))?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.push(&style.item_separator)?;
            }
            self.json_line(style, depth + 1)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.json_line(style, depth)?;
        }
        self.push(close.encode_utf8(&mut buffer))
    }

    fn json_line(&mut self, style: &JsonStyle, depth: usize) -> Result<(), Error> {
        let Some(indent) = &style.indent else { return Ok(()) };
        self.push("\n")?;
        self.repeat(indent, depth)
    }

    fn json_string(&mut self, text: &str, style: &JsonStyle) -> Result<(), Error> {
        let mut out = String::with_capacity(text.len() + 2);
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
                _ if style.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").unwrap_or_default();
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
        self.push(&out)
    }
}

fn float_json(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        float_repr(value)
    }
}

fn json_key(key: &Value) -> Result<String, Error> {
    Ok(match kind(key) {
        Kind::Str(text) => text.to_owned(),
        Kind::Int(int) => int.to_string(),
        Kind::Float(float) => float_json(float),
        Kind::Bool(flag) => if flag { "true" } else { "false" }.to_owned(),
        Kind::None => "null".to_owned(),
        _ => return Err(fail(format!("keys must be str, int, float, bool or None, not {}", type_name(key)))),
    })
}
