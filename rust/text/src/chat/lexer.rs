//! The source of a template as text and tags, and a tag as tokens.

use super::error::TemplateError;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Segment<'s> {
    /// Text and comments, copied as they are.
    Verbatim(&'s str),
    /// `{{ … }}` or `{% … %}`.
    Tag(Tag<'s>),
}

/// One tag with its markers, for example `{%-` and `-%}`.
#[derive(Debug)]
pub(super) struct Tag<'s> {
    pub(super) open: &'s str,
    pub(super) tokens: Vec<Token>,
    pub(super) close: &'s str,
    /// Lines that the tag spans, less one.
    pub(super) newlines: usize,
    /// Line on which it starts, from 1.
    pub(super) line: usize,
}

impl Tag<'_> {
    pub(super) fn is_block(&self) -> bool {
        self.open.starts_with("{%")
    }

    fn is_statement(&self, name: &str) -> bool {
        self.is_block() && matches!(self.tokens.as_slice(), [Token::Name(word)] if word == name)
    }
}

/// A token inside a tag.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Str(String),
    Int(String),
    Float(String),
    Op(&'static str),
}

const OPERATORS: [&str; 28] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "|", ";",
    "!", "&",
];

/// Splits a template into text and tags.
pub(super) fn segments(source: &str) -> Result<Vec<Segment<'_>>, TemplateError> {
    let mut segments = Vec::new();
    let mut rest = source;
    let mut line = 1;
    let mut raw = false;
    while !rest.is_empty() {
        let Some(start) = next_tag(rest) else {
            segments.push(Segment::Verbatim(rest));
            break;
        };
        let (text, tail) = rest.split_at(start);
        line += newlines(text);
        if let Some(comment) = tail.strip_prefix("{#") {
            let end = comment.find("#}").ok_or_else(|| syntax("unclosed comment", line))? + 4;
            segments.push(Segment::Verbatim(text));
            segments.push(Segment::Verbatim(&tail[..end]));
            line += newlines(&tail[..end]);
            rest = &tail[end..];
            continue;
        }
        segments.push(Segment::Verbatim(text));
        let (tag, end) = tag(tail, line)?;
        raw = raw || tag.is_statement("raw");
        line += tag.newlines;
        segments.push(Segment::Tag(tag));
        rest = &tail[end..];
        if raw {
            let end = endraw(rest).ok_or_else(|| syntax("unclosed raw block", line))?;
            segments.push(Segment::Verbatim(&rest[..end]));
            line += newlines(&rest[..end]);
            rest = &rest[end..];
            raw = false;
        }
    }
    Ok(segments)
}

fn next_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    bytes.windows(2).position(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'))
}

/// Where the `{% endraw %}` starts.
fn endraw(text: &str) -> Option<usize> {
    text.match_indices("{%").map(|(at, _)| at).find(|&at| {
        let inner = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        inner.strip_prefix("endraw").is_some_and(|tail| tail.trim_start().trim_start_matches(['-', '+']).starts_with("%}"))
    })
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

pub(super) fn syntax(message: impl Into<String>, line: usize) -> TemplateError {
    TemplateError::Syntax { message: message.into(), line: Some(line) }
}

/// Reads the tag at the start of `text`, and says where it ends.
fn tag(text: &str, line: usize) -> Result<(Tag<'_>, usize), TemplateError> {
    let block = text.starts_with("{%");
    let marker = if block { "%}" } else { "}}" };
    let mut at = if text[2..].starts_with(['-', '+']) { 3 } else { 2 };
    let open = &text[..at];
    let mut tokens = Vec::new();
    // Braces of mappings: while one is open, `}}` is not the end of the tag.
    let mut braces = 0usize;
    loop {
        let rest = &text[at..];
        let Some(c) = rest.chars().next() else { return Err(syntax("unclosed tag", line)) };
        let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if braces == 0 && unsigned.starts_with(marker) {
            let end = at + (rest.len() - unsigned.len()) + 2;
            let newlines = newlines(&text[..end]);
            return Ok((Tag { open, tokens, close: &text[at..end], newlines, line }, end));
        }
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (token, len) = token(rest, c, line)?;
        match token {
            Token::Op("{") => braces += 1,
            Token::Op("}") => braces = braces.saturating_sub(1),
            _ => {}
        }
        // Neighbouring literals are one string.
        match (tokens.last_mut(), token) {
            (Some(Token::Str(before)), Token::Str(text)) => before.push_str(&text),
            (_, token) => tokens.push(token),
        }
        at += len;
    }
}

fn token(rest: &str, c: char, line: usize) -> Result<(Token, usize), TemplateError> {
    if c == '\'' || c == '"' {
        return string(rest, c, line);
    }
    if c.is_ascii_digit() {
        return Ok(number(rest));
    }
    if c.is_alphabetic() || c == '_' {
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        return Ok((Token::Name(rest[..len].to_owned()), len));
    }
    OPERATORS
        .iter()
        .find(|op| rest.starts_with(**op))
        .map(|op| (Token::Op(op), op.len()))
        .ok_or_else(|| syntax(format!("unexpected character {c:?}"), line))
}

fn number(rest: &str) -> (Token, usize) {
    let digits = |text: &str| text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let int = digits(rest);
    let mut len = int;
    if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        len += 1 + digits(&rest[len + 1..]);
    }
    if rest[len..].starts_with(['e', 'E']) {
        let exponent = &rest[len + 1..];
        let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let n = digits(unsigned);
        if n > 0 {
            len += 1 + (exponent.len() - unsigned.len()) + n;
        }
    }
    let text = rest[..len].replace('_', "");
    (if len == int { Token::Int(text) } else { Token::Float(text) }, len)
}

/// A string literal with Python's escapes.
fn string(rest: &str, quote: char, line: usize) -> Result<(Token, usize), TemplateError> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((Token::Str(out), at + 1));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((_, escape)) = chars.next() else { break };
        match escape {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'v' => out.push('\x0b'),
            '\\' | '\'' | '"' => out.push(escape),
            '\n' => {}
            'x' | 'u' | 'U' => {
                let len = [('x', 2), ('u', 4)].iter().find(|(c, _)| *c == escape).map_or(8, |(_, n)| *n);
                let digits: String = chars.by_ref().take(len).map(|(_, c)| c).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == len).and_then(char::from_u32);
                out.push(code.ok_or_else(|| syntax(format!("bad escape \\{escape}{digits} in a string"), line))?);
            }
            '0'..='7' => {
                // Up to three octal digits.
                let tail = &rest[at + 1..];
                let len = tail.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = u32::from_str_radix(&tail[..len], 8).ok().and_then(char::from_u32);
                out.extend(code);
                for _ in 1..len {
                    chars.next();
                }
            }
            _ => out.extend(['\\', escape]),
        }
    }
    Err(syntax("unclosed string", line))
}
