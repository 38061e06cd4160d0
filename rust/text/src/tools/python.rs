//! Python literals and calls as JSON.

use super::{Reason, json};

/// Deepest nesting.
pub(super) const MOST_DEPTH: usize = 64;

/// A call: the name, and names and JSON texts of the arguments.
pub(super) type Call = (String, Vec<(Option<String>, String)>);

/// A list of calls, `[f(a=1), g("x")]`.
pub(super) fn calls(text: &str) -> Result<Vec<Call>, Reason> {
    let mut reader = Reader { rest: text };
    reader.expect('[')?;
    let mut calls = Vec::new();
    while !reader.skip(']') {
        let name = reader.name()?;
        reader.expect('(')?;
        let mut arguments = Vec::new();
        while !reader.skip(')') {
            let key = reader.keyword();
            arguments.push((key, reader.value(MOST_DEPTH)?));
            if !reader.skip(',') {
                reader.expect(')')?;
                break;
            }
        }
        calls.push((name, arguments));
        if !reader.skip(',') {
            reader.expect(']')?;
            break;
        }
    }
    reader.end()?;
    Ok(calls)
}

/// A literal.
pub(super) fn literal(text: &str) -> Result<String, Reason> {
    let mut reader = Reader { rest: text };
    let value = reader.value(MOST_DEPTH)?;
    reader.end()?;
    Ok(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.rest = &self.rest[c.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<(), Reason> {
        if self.skip(c) { Ok(()) } else { Err(format!("{c:?} is missing in the Python text").into()) }
    }

    fn end(&mut self) -> Result<(), Reason> {
        self.peek().map_or(Ok(()), |_| Err("more follows the Python text".into()))
    }

    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The name of a function, with dots and dashes.
    fn name(&mut self) -> Result<String, Reason> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if name.is_empty() { Err("the call has no name".into()) } else { Ok(name.to_owned()) }
    }

    /// `name=` before an argument.
    fn keyword(&mut self) -> Option<String> {
        let before = self.rest;
        let word = self.word();
        if !word.is_empty() && self.skip('=') {
            return Some(word.to_owned());
        }
        self.rest = before;
        None
    }

    fn value(&mut self, depth: usize) -> Result<String, Reason> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("the Python text is nested more than {MOST_DEPTH} levels deep").into());
        };
        match self.peek() {
            Some('"' | '\'') => Ok(json::quoted(&self.strings()?)),
            Some('[') => self.list(']', depth),
            Some('(') => self.list(')', depth),
            Some('{') => self.dict(depth),
            Some('-' | '+' | '.' | '0'..='9') => self.number(),
            _ => match self.word() {
                "True" | "true" => Ok("true".to_owned()),
                "False" | "false" => Ok("false".to_owned()),
                "None" | "null" => Ok("null".to_owned()),
                _ => Err("an argument is no literal".into()),
            },
        }
    }

    fn list(&mut self, close: char, depth: usize) -> Result<String, Reason> {
        self.rest = &self.rest[1..];
        let mut out = "[".to_owned();
        while !self.skip(close) {
            if out.len() > 1 {
                out.push_str(", ");
            }
            out.push_str(&self.value(depth)?);
            if !self.skip(',') {
                self.expect(close)?;
                break;
            }
        }
        out.push(']');
        Ok(out)
    }

    fn dict(&mut self, depth: usize) -> Result<String, Reason> {
        self.rest = &self.rest[1..];
        let mut out = "{".to_owned();
        while !self.skip('}') {
            if out.len() > 1 {
                out.push_str(", ");
            }
            if !matches!(self.peek(), Some('"' | '\'')) {
                return Err("a key of a dict is no string".into());
            }
            out.push_str(&json::quoted(&self.strings()?));
            self.expect(':')?;
            out.push_str(": ");
            out.push_str(&self.value(depth)?);
            if !self.skip(',') {
                self.expect('}')?;
                break;
            }
        }
        out.push('}');
        Ok(out)
    }

    fn number(&mut self) -> Result<String, Reason> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+'))).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let plain = text.trim_start_matches('+').replace('_', "");
        if let Ok(number) = json::whole(&plain) {
            return Ok(number);
        }
        // What Python allows and JSON does not: `.5`, `1.`, `007` is neither.
        let number: f64 = plain.parse().map_err(|_| "an argument is no number")?;
        let leading = plain.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
        let zeros = leading > 1 && plain.trim_start_matches('-').starts_with('0');
        match serde_json::Number::from_f64(number) {
            Some(number) if !zeros && plain.contains('.') => Ok(number.to_string()),
            _ => Err("an argument is no number".into()),
        }
    }

    /// Strings one after the other are one.
    fn strings(&mut self) -> Result<String, Reason> {
        let mut out = String::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            let mut chars = self.rest[1..].chars();
            loop {
                match chars.next() {
                    None => return Err("a string of the Python text does not end".into()),
                    Some(c) if c == quote => break,
                    Some('\\') => escape(&mut chars, &mut out)?,
                    Some(c) => out.push(c),
                }
            }
            self.rest = chars.as_str();
        }
        Ok(out)
    }
}

/// What follows a backslash.
fn escape(chars: &mut std::str::Chars<'_>, out: &mut String) -> Result<(), Reason> {
    let code = |chars: &mut std::str::Chars<'_>, digits: usize| {
        let text = chars.as_str().get(..digits).filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or(Reason::from("a string has a wrong escape"))?;
        *chars = chars.as_str()[digits..].chars();
        Ok::<u32, Reason>(code)
    };
    let c = match chars.next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('a') => '\u{7}',
        Some('v') => '\u{b}',
        Some('0') => '\0',
        Some('\n') => return Ok(()),
        Some(c @ ('\\' | '\'' | '"')) => c,
        Some(kind @ ('x' | 'u' | 'U')) => {
            let digits = match kind {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let mut found = code(chars, digits)?;
            // JSON's way to write characters beyond U+FFFF.
            if (0xd800..0xdc00).contains(&found) && chars.as_str().starts_with("\\u") {
                chars.nth(1);
                let low = code(chars, 4)?;
                if !(0xdc00..0xe000).contains(&low) {
                    return Err("a string has half of a surrogate pair".into());
                }
                found = 0x10000 + ((found - 0xd800) << 10) + (low - 0xdc00);
            }
            char::from_u32(found).ok_or(Reason::from("a string has an escape of no character"))?
        }
        // Python keeps the backslash of escapes that it does not know.
        Some(c) => {
            out.push('\\');
            c
        }
        None => return Err("a string of the Python text does not end".into()),
    };
    out.push(c);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        for (python, json) in [
            ("'a\\'b'", "\"a'b\""),
            ("\"x\\n\\u00e9\"", "\"x\\né\""),
            ("'a' \"b\"", "\"ab\""),
            ("True", "true"),
            ("None", "null"),
            ("[1, -2.5, (3,)]", "[1, -2.5, [3]]"),
            ("{'a': {'b': []}}", "{\"a\": {\"b\": []}}"),
            ("1_000", "1000"),
            (".5", "0.5"),
            ("1.", "1.0"),
            ("'\\ud83d\\ude00'", "\"😀\""),
            ("'\\d'", "\"\\\\d\""),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(literal(python).as_deref(), Ok(json), "{python}");
        }
        for wrong in
            ["x", "f()", "'a", "[1", "{1: 2}", "{'a'}", "1x", "007", "--1", "1 2", "", "inf", "'\\x1'", "'\\ud800'", "'\\ud83d\\u0041'"]
        {
            assert!(literal(wrong).is_err(), "{wrong}: {:?}", literal(wrong));
        }
        assert!(literal(&"[".repeat(100_000)).is_err());
    }
}
