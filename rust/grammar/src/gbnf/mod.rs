//! GBNF, the grammars of llama.cpp, as Lark grammars.
//!
//! GBNF has no lexer: its rules go down to characters. What is regular (rules that are not recursive, and runs of such parts within
//! others) becomes terminals, which are exact by themselves and fast; recursive rules stay rules. A lexer takes the longest match:
//! terminals for which that could leave out a text are taken apart, so that both grammars allow the same texts.

mod analyse;
mod chars;
mod conflict;
mod emit;
mod parse;
mod positions;

use crate::error::GrammarError;

/// A Lark grammar for a GBNF grammar.
///
/// # Errors
/// What is wrong, with line and column: syntax; a rule that is defined twice or not at all; left recursion; no `root`; a limit.
pub fn to_lark(text: &str) -> Result<String, GrammarError> {
    let grammar = parse::parse(text)?;
    let regular = analyse::check(&grammar)?;
    let is_one_terminal = regular.iter().all(|regular| *regular);
    let splits = if is_one_terminal { emit::Splits::default() } else { conflict::resolve(&grammar, &regular)? };
    Ok(emit::emit(&grammar, &regular, &emit::parts(&grammar, &regular, &splits)))
}

fn error(text: &str, at: usize, what: impl Into<String>) -> GrammarError {
    let (line, column) = crate::error::position(text, at);
    GrammarError::Syntax { language: "GBNF", line, column, what: what.into() }
}

/// A grammar whose names are numbers of rules.
struct Grammar<'a> {
    text: &'a str,
    rules: Vec<Rule<'a>>,
    root: usize,
}

struct Rule<'a> {
    name: &'a str,
    body: Vec<Sequence>,
}

/// One alternative.
type Sequence = Vec<Node>;

enum Node {
    Literal(String),
    /// One character of these ranges, or not of these.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Any character.
    Any,
    Rule {
        index: usize,
        at: usize,
    },
    /// A special token, as Lark writes it.
    Token(String),
    Group(Vec<Sequence>),
    Repeat {
        node: Box<Node>,
        least: u32,
        most: Option<u32>,
    },
}

impl Node {
    /// Calls `visit` with the rules that occur here.
    fn rules(&self, visit: &mut dyn FnMut(usize, usize)) {
        match self {
            Self::Rule { index, at } => visit(*index, *at),
            Self::Group(options) => options.iter().flatten().for_each(|node| node.rules(visit)),
            Self::Repeat { node, .. } => node.rules(visit),
            Self::Literal(_) | Self::Class { .. } | Self::Any | Self::Token(_) => {}
        }
    }

    /// Whether it has a special token.
    fn has_token(&self) -> bool {
        match self {
            Self::Token(_) => true,
            Self::Group(options) => options.iter().flatten().any(Self::has_token),
            Self::Repeat { node, .. } => node.has_token(),
            Self::Literal(_) | Self::Class { .. } | Self::Any | Self::Rule { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
