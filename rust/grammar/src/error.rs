//! What is wrong with a grammar.

use std::time::Duration;

/// Why a source is no grammar that output can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The text of a JSON schema is not JSON.
    #[error("the JSON schema is not JSON: {0}")]
    Json(String),
    /// A keyword of a JSON schema, or an option of a grammar, that is not honoured.
    #[error("the keyword {keyword:?} at {place} is not supported{}{what}", if what.is_empty() { "" } else { " " })]
    Keyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer of the schema that has it.
        place: String,
        /// In which use; empty: in none is it supported.
        what: String,
    },
    /// Anything else about a JSON schema.
    #[error("the JSON schema at {place}: {what}")]
    Schema {
        /// JSON pointer of the schema.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The text of a grammar cannot be read.
    #[error("line {line}, column {column} of the {language} grammar: {what}")]
    Syntax {
        /// "GBNF" or "Lark".
        language: &'static str,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// The regex cannot be read.
    #[error("the regex: {0}")]
    Regex(String),
    /// The choices are none.
    #[error("choices: {0}")]
    Choices(String),
    /// More than a limit allows.
    #[error("the grammar has {what}: {count}, the most is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is, at least.
        count: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The text can be read, but there is no automaton for it within the limits, or no output follows it.
    #[error("the grammar cannot be compiled: {0}")]
    Compile(String),
    /// It took too long.
    #[error("the grammar was not compiled within {} seconds", .0.as_secs())]
    Time(Duration),
    /// The vocabulary of the model does not allow constraints.
    #[error("the vocabulary of the model cannot be used with a grammar: {0}")]
    Vocabulary(String),
    /// The system gave no thread, which takes memory for its stack.
    #[error("not enough memory: the thread that compiles grammars could not be started: {0}")]
    Thread(String),
    /// Less memory is available than a step may need.
    #[error("not enough memory for {what}: up to {bytes} bytes are needed")]
    OutOfMemory {
        /// What the memory is for.
        what: &'static str,
        /// Maximum number of bytes that it takes.
        bytes: u64,
    },
}

/// Line and column, both from 1 and the column in characters, of the byte `at` of `text`.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// Refuses `count` above `limit`.
pub(crate) fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), GrammarError> {
    if count <= limit { Ok(()) } else { Err(GrammarError::Limit { what, count: count as u64, limit: limit as u64 }) }
}
