//! Lark grammars before llguidance reads them: limits, what would be ignored, and the schemas and special tokens within.

use std::fmt::Write;

use fastllm_text::tokenizer::{TokenKind, Tokenizer};
use regex_syntax::Parser;
use regex_syntax::hir::{Hir, HirKind};
use serde_json::{Deserializer, Value};

use crate::error::{GrammarError, limit, position};
use crate::{limits, schema};

/// Attributes of rules that have an effect here. The others steer sampling, hide text or ask for captures, which nothing reads.
const ATTRIBUTES: [&str; 3] = ["lazy", "max_tokens", "suffix"];
/// Options of `%llguidance`.
const OPTIONS: [&str; 4] = ["no_forcing", "allow_invalid_utf8", "allow_initial_skip", "ignore_once"];

/// The grammar as llguidance reads it.
///
/// # Errors
/// A limit; something that is not honoured; a special token that the vocabulary does not have; a schema within that is none.
pub fn prepare(text: &str, tokenizer: &Tokenizer) -> Result<String, GrammarError> {
    Scanner { text, at: 0, out: String::with_capacity(text.len()), depth: 0, rules: 0, classes: 0, tokenizer }.run()
}

/// `text` as a literal of a Lark grammar.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Checks the syntax of a regex: what llguidance makes of one that is wrong is not always an error.
///
/// # Errors
/// What is wrong, and where.
pub fn check_regex(regex: &str) -> Result<(), GrammarError> {
    if regex.is_empty() {
        return Err(GrammarError::Regex("it is empty".to_owned()));
    }
    limit("a regex with bytes", regex.len(), limits::REGEX_BYTES)?;
    limit("Unicode character classes", unicode_classes(regex), limits::REGEX_CLASSES)?;
    match Parser::new().parse(regex) {
        Ok(hir) => check_repetitions(&hir),
        Err(regex_syntax::Error::Parse(error)) => Err(regex_error(regex, error.span().start.offset, error.kind())),
        Err(regex_syntax::Error::Translate(error)) => Err(regex_error(regex, error.span().start.offset, error.kind())),
        Err(error) => Err(GrammarError::Regex(error.to_string())),
    }
}

/// Classes of Unicode's in the text of a regex, such as `\w` and `\p{L}`: each becomes hundreds of ranges when it is read.
fn unicode_classes(regex: &str) -> usize {
    let mut chars = regex.chars();
    let mut count = 0;
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next().is_some_and(|c| "wWdDsSpP".contains(c)) {
            count += 1;
        }
    }
    count
}

/// The parser limits how deep a regex is nested.
fn check_repetitions(hir: &Hir) -> Result<(), GrammarError> {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let most = u64::from(repetition.max.unwrap_or(repetition.min));
            if most > limits::REPETITIONS {
                return Err(GrammarError::Limit { what: "repetitions", count: most, limit: limits::REPETITIONS });
            }
            check_repetitions(&repetition.sub)
        }
        HirKind::Capture(capture) => check_repetitions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().try_for_each(check_repetitions),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => Ok(()),
    }
}

fn regex_error(regex: &str, at: usize, what: &impl ToString) -> GrammarError {
    let (line, column) = position(regex, at);
    let place = if line == 1 { format!("column {column}") } else { format!("line {line}, column {column}") };
    GrammarError::Regex(format!("{place}: {}", what.to_string()))
}

/// Copies a grammar token by token.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    out: String,
    depth: usize,
    rules: usize,
    /// Classes of Unicode's in its regexes.
    classes: usize,
    tokenizer: &'a Tokenizer,
}

impl Scanner<'_> {
    fn run(mut self) -> Result<String, GrammarError> {
        let mut line_start = true;
        let mut negations = 0;
        while let Some(c) = self.rest().chars().next() {
            negations = if c == '~' { negations + 1 } else { 0 };
            limit("nested ~", negations, limits::GRAMMAR_DEPTH)?;
            let len = match c {
                '"' => self.quoted('"')?,
                '#' => self.line(),
                '/' if self.rest().starts_with("//") => self.line(),
                '/' => self.regex()?,
                '<' => {
                    self.special()?;
                    line_start = false;
                    continue;
                }
                '%' => {
                    self.directive()?;
                    line_start = false;
                    continue;
                }
                c if c.is_ascii_alphabetic() || matches!(c, '_' | '?' | '!') => {
                    let len = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || "_-?!".contains(c))).unwrap_or(self.rest().len());
                    if line_start && self.depth == 0 {
                        self.definition(len)?;
                    }
                    len
                }
                c if c.is_ascii_digit() => self.number()?,
                c => {
                    self.nest(c)?;
                    c.len_utf8()
                }
            };
            line_start = c == '\n' || (line_start && c.is_ascii_whitespace());
            self.copy(len);
        }
        limit("rules", self.rules, limits::GRAMMAR_RULES)?;
        Ok(self.out)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn copy(&mut self, len: usize) {
        self.out.push_str(&self.text[self.at..self.at + len]);
        self.at += len;
    }

    fn error(&self, what: impl Into<String>) -> GrammarError {
        let (line, column) = position(self.text, self.at);
        GrammarError::Syntax { language: "Lark", line, column, what: what.into() }
    }

    fn line(&self) -> usize {
        self.rest().find('\n').unwrap_or(self.rest().len())
    }

    fn quoted(&self, quote: char) -> Result<usize, GrammarError> {
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => return Ok(at + 1),
                _ => {}
            }
        }
        Err(self.error(format!("{quote} is never closed")))
    }

    fn regex(&mut self) -> Result<usize, GrammarError> {
        let len = self.quoted('/')?;
        self.classes += unicode_classes(&self.rest()[..len]);
        limit("Unicode character classes", self.classes, limits::REGEX_CLASSES)?;
        Ok(len)
    }

    /// The digits of a number, which is a count of repetitions unless it is the value of an attribute.
    fn number(&self) -> Result<usize, GrammarError> {
        let len = self.rest().find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest().len());
        let count = self.rest()[..len].parse().unwrap_or(u64::MAX);
        if count > limits::REPETITIONS && !self.text[..self.at].trim_end().ends_with('=') {
            return Err(GrammarError::Limit { what: "repetitions", count, limit: limits::REPETITIONS });
        }
        Ok(len)
    }

    fn nest(&mut self, c: char) -> Result<(), GrammarError> {
        match c {
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        limit("nested parentheses", self.depth, limits::GRAMMAR_DEPTH)
    }

    /// A name at the beginning of a line, `len` bytes long: what follows it may be attributes, a priority, and is a colon.
    fn definition(&mut self, len: usize) -> Result<(), GrammarError> {
        self.rules += 1;
        let after = self.rest()[len..].trim_start_matches([' ', '\t']);
        if after.starts_with('.') && !after.starts_with("..") {
            return Err(self.error("priorities of rules are not supported"));
        }
        let Some(attributes) = after.strip_prefix('[') else { return Ok(()) };
        let mut key_expected = true;
        let mut rest = attributes;
        while let Some(c) = rest.chars().next().filter(|c| *c != ']') {
            let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let key = &rest[..word];
            if key_expected && word > 0 && !ATTRIBUTES.contains(&key) {
                return Err(self.error(format!("the attribute {key:?} is not supported ({} are)", ATTRIBUTES.join(", "))));
            }
            key_expected = c == ',' || (key_expected && c.is_whitespace());
            let skip = match c {
                '"' | '/' => {
                    Scanner { text: rest, at: 0, out: String::new(), depth: 0, rules: 0, classes: 0, tokenizer: self.tokenizer }.quoted(c)
                }
                _ => Ok(word.max(c.len_utf8())),
            };
            rest = &rest[skip.map_err(|_| self.error("an attribute is never closed"))?..];
        }
        Ok(())
    }

    /// `<name>` becomes the id of the token, whatever kind it has; `<[1-3]>` stays.
    fn special(&mut self) -> Result<(), GrammarError> {
        let end = self.rest().find(|c: char| c == '>' || c.is_whitespace());
        let Some(end) = end.filter(|&end| end > 1 && self.rest()[end..].starts_with('>')) else {
            return Err(self.error("< begins a special token, such as <|im_end|>"));
        };
        let name = self.rest()[..=end].to_owned();
        if !name.starts_with("<[") {
            let found = self.tokenizer.token_id(&name);
            let literal = |id: &u32| matches!(self.tokenizer.kind(*id), Some(TokenKind::Control | TokenKind::UserDefined));
            let Some(id) = found.filter(literal) else {
                return Err(self.error(format!("the vocabulary has no special token {name}")));
            };
            let _ = write!(self.out, "<[{id}]>");
            self.at += name.len();
            return Ok(());
        }
        self.copy(name.len());
        Ok(())
    }

    fn directive(&mut self) -> Result<(), GrammarError> {
        let len = self.rest()[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(self.rest().len(), |len| len + 1);
        match &self.rest()[..len] {
            "%json" => self.json(len, |value| {
                let prepared = schema::prepare_value(&value)?;
                schema::check_counts(&prepared)?;
                Ok(prepared)
            }),
            "%llguidance" => self.json(len, |value| {
                match value.as_object().and_then(|options| options.keys().find(|key| !OPTIONS.contains(&key.as_str()))) {
                    Some(key) => Err(GrammarError::Keyword { keyword: key.clone(), place: "%llguidance".to_owned(), what: String::new() }),
                    None => Ok(value),
                }
            }),
            "%regex" => self.json(len, Ok),
            _ => {
                self.copy(len);
                Ok(())
            }
        }
    }

    /// A directive of `len` bytes and the JSON value after it, changed, on as many lines as before.
    fn json(&mut self, len: usize, change: impl FnOnce(Value) -> Result<Value, GrammarError>) -> Result<(), GrammarError> {
        let text = &self.rest()[len..];
        let mut values = Deserializer::from_str(text).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(self.error(format!("after {}: {error}", &self.rest()[..len]))),
            None => return Err(self.error(format!("nothing follows {}", &self.rest()[..len]))),
        };
        let read = values.byte_offset();
        let lines = text[..read].matches('\n').count();
        let changed = change(value)?.to_string();
        self.copy(len);
        self.out.extend(std::iter::repeat_n('\n', lines));
        self.out.push(' ');
        self.out.push_str(&changed);
        self.at += read;
        Ok(())
    }
}
