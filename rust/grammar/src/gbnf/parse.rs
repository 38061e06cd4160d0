//! Text to rules.

use std::collections::HashMap;

use super::{Grammar, Node, Rule, Sequence, error};
use crate::error::{GrammarError, limit};
use crate::limits;

pub fn parse(text: &str) -> Result<Grammar<'_>, GrammarError> {
    let mut parser = Parser { text, at: 0, depth: 0, numbers: HashMap::new(), names: Vec::new() };
    let mut bodies: Vec<Option<Vec<Sequence>>> = Vec::new();
    parser.space(true);
    while parser.peek().is_some() {
        let at = parser.at;
        let index = parser.name()?.ok_or_else(|| error(text, at, "a rule begins with its name"))?;
        parser.space(false);
        if !parser.skip("::=") {
            return Err(parser.error("::= follows the name of a rule"));
        }
        let body = parser.alternatives()?;
        bodies.resize_with(parser.names.len(), || None);
        if bodies[index].replace(body).is_some() {
            return Err(error(text, at, format!("the rule {:?} is defined twice", parser.names[index].0)));
        }
        if !matches!(parser.peek(), None | Some('\n' | '\r')) {
            return Err(parser.error("this is no part of a rule"));
        }
        parser.space(true);
    }
    let mut rules = Vec::with_capacity(bodies.len());
    for (body, &(name, used)) in bodies.into_iter().zip(&parser.names) {
        let body = body.ok_or_else(|| error(text, used, format!("the rule {name:?} is not defined")))?;
        rules.push(Rule { name, body });
    }
    let root = rules.iter().position(|rule| rule.name == "root").ok_or_else(|| error(text, 0, "there is no rule \"root\""))?;
    Ok(Grammar { text, rules, root })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The number of every name, and every name with its first place.
    numbers: HashMap<&'a str, usize>,
    names: Vec<(&'a str, usize)>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn error(&self, what: impl Into<String>) -> GrammarError {
        error(self.text, self.at, what)
    }

    /// White space and comments.
    fn space(&mut self, newlines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if newlines => self.at += 1,
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                _ => break,
            }
        }
    }

    fn name(&mut self) -> Result<Option<usize>, GrammarError> {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).unwrap_or(rest.len());
        if len == 0 {
            return Ok(None);
        }
        let name = &rest[..len];
        let next = self.names.len();
        let index = *self.numbers.entry(name).or_insert(next);
        if index == next {
            self.names.push((name, self.at));
            limit("rules", self.names.len(), limits::GRAMMAR_RULES)?;
        }
        self.at += len;
        Ok(Some(index))
    }

    fn alternatives(&mut self) -> Result<Vec<Sequence>, GrammarError> {
        self.space(true);
        let mut options = vec![self.sequence()?];
        loop {
            // An alternative may stand on a line of its own.
            let end = self.at;
            self.space(true);
            if !self.skip("|") {
                if self.depth == 0 {
                    self.at = end;
                }
                return Ok(options);
            }
            self.space(true);
            options.push(self.sequence()?);
        }
    }

    fn sequence(&mut self) -> Result<Sequence, GrammarError> {
        let mut nodes = Sequence::new();
        loop {
            self.space(self.depth > 0);
            let Some(node) = self.atom()? else { return Ok(nodes) };
            let node = self.repeated(node)?;
            nodes.push(node);
        }
    }

    fn atom(&mut self) -> Result<Option<Node>, GrammarError> {
        let at = self.at;
        Ok(Some(match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('<') => self.token()?,
            Some('.') => {
                self.at += 1;
                Node::Any
            }
            Some('(') => {
                self.at += 1;
                self.depth += 1;
                limit("nested parentheses", self.depth, limits::GRAMMAR_DEPTH)?;
                let options = self.alternatives()?;
                if !self.skip(")") {
                    return Err(error(self.text, at, "( is never closed"));
                }
                self.depth -= 1;
                Node::Group(options)
            }
            Some('!') => return Err(self.error("negated tokens are not supported")),
            _ => match self.name()? {
                Some(index) => Node::Rule { index, at },
                None => return Ok(None),
            },
        }))
    }

    /// The repetitions after an atom.
    fn repeated(&mut self, mut node: Node) -> Result<Node, GrammarError> {
        let mut times = 0;
        loop {
            self.space(self.depth > 0);
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.braces()?,
                _ => return Ok(node),
            };
            times += 1;
            limit("repetitions of repetitions", times, limits::GRAMMAR_DEPTH)?;
            self.at += 1;
            node = Node::Repeat { node: Box::new(node), least, most };
        }
    }

    /// `{m}`, `{m,}`, `{m,n}` or `{,n}`, up to the brace that closes it.
    fn braces(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let start = self.at;
        self.at += 1;
        let least = self.number()?;
        self.space(self.depth > 0);
        let most = if self.skip(",") { self.number()? } else { least };
        self.space(self.depth > 0);
        if self.peek() != Some('}') || (least.is_none() && most.is_none()) {
            return Err(error(self.text, start, "repetitions are {m}, {m,} or {m,n}"));
        }
        let least = least.unwrap_or(0);
        if most.is_some_and(|most| most < least) {
            return Err(error(self.text, start, format!("at least {least} and at most fewer repetitions")));
        }
        Ok((least, most))
    }

    fn number(&mut self) -> Result<Option<u32>, GrammarError> {
        self.space(self.depth > 0);
        let rest = self.rest();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.parse::<u64>().unwrap_or(u64::MAX);
        if number > limits::REPETITIONS {
            return Err(GrammarError::Limit { what: "repetitions", count: number, limit: limits::REPETITIONS });
        }
        self.at += digits.len();
        Ok(Some(number as u32))
    }

    fn literal(&mut self) -> Result<Node, GrammarError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(Node::Literal(text));
                }
                None | Some('\n') => return Err(error(self.text, start, "\" is never closed")),
                Some(_) => text.push(self.character()?),
            }
        }
    }

    fn class(&mut self) -> Result<Node, GrammarError> {
        let start = self.at;
        self.at += 1;
        let negated = self.skip("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                Some(']') if ranges.is_empty() => return Err(error(self.text, start, "a class without characters")),
                Some(']') => {
                    self.at += 1;
                    return Ok(Node::Class { negated, ranges });
                }
                None | Some('\n') => return Err(error(self.text, start, "[ is never closed")),
                Some(_) => {}
            }
            let at = self.at;
            let first = self.character()?;
            let mut last = first;
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.at += 1;
                last = self.character()?;
            }
            if last < first {
                return Err(error(self.text, at, format!("the range {first:?} to {last:?} is the wrong way round")));
            }
            ranges.push((first, last));
        }
    }

    /// A character of a literal or a class, which may be escaped.
    fn character(&mut self) -> Result<char, GrammarError> {
        let start = self.at;
        let unfinished = || error(self.text, start, "the text ends within a character");
        let c = self.take().ok_or_else(unfinished)?;
        if c != '\\' {
            return Ok(c);
        }
        let digits = match self.take().ok_or_else(|| error(self.text, start, "the text ends within a character"))? {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/') => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c => return Err(error(self.text, start, format!("\\{c} is no escape"))),
        };
        let hex = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        let c = code.ok_or_else(|| error(self.text, start, format!("no character with {digits} hexadecimal digits")))?;
        self.at += digits;
        Ok(c)
    }

    fn token(&mut self) -> Result<Node, GrammarError> {
        let rest = self.rest();
        let end = rest.find(|c: char| c == '>' || c.is_whitespace()).filter(|&end| end > 1 && rest[end..].starts_with('>'));
        let end = end.ok_or_else(|| self.error("< begins a special token, such as <|im_end|>"))?;
        self.at += end + 1;
        Ok(Node::Token(rest[..=end].to_owned()))
    }
}
