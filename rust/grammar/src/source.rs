//! What a caller gives.

use crate::error::{GrammarError, limit};
use crate::limits;

/// The rule that output follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The text of a JSON schema.
    JsonSchema(String),
    /// A regex in the syntax of the Rust crate `regex`; the whole output matches it.
    Regex(String),
    /// A grammar in the Lark dialect of llguidance.
    Lark(String),
    /// A grammar in the GBNF of llama.cpp.
    Gbnf(String),
    /// One of these strings.
    Choices(Vec<String>),
}

impl Source {
    /// A grammar in GBNF or Lark, told apart by `::=`, which defines every rule of the one and is in no rule of the other (it may be in
    /// a string, a regex or a comment).
    ///
    /// # Errors
    /// None of the definitions of either can be found.
    pub fn grammar(text: String) -> Result<Self, GrammarError> {
        let what = "neither a GBNF grammar (rules are name ::= ...) nor a Lark grammar (rules are name: ...)";
        let unclear = || GrammarError::Syntax { language: "given", line: 1, column: 1, what: what.to_owned() };
        match first_definition(&text).ok_or_else(unclear)? {
            "::=" => Ok(Self::Gbnf(text)),
            _ => Ok(Self::Lark(text)),
        }
    }

    /// Bytes of text.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) | Self::Gbnf(text) => text.len(),
            Self::Choices(choices) => choices.iter().map(|choice| choice.len() + size_of::<String>()).sum(),
        }
    }

    pub(crate) fn check_size(&self) -> Result<(), GrammarError> {
        limit("bytes", self.len(), limits::SOURCE_BYTES)
    }
}

/// `::=` or `:`, whichever the first definition uses. What stands before it is comments, directives and a name in both languages.
fn first_definition(text: &str) -> Option<&'static str> {
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '%']) || line.starts_with("//") {
            continue;
        }
        if let Some(colon) = line.find(':') {
            return Some(if line[colon..].starts_with("::=") { "::=" } else { ":" });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gbnf_and_lark_are_told_apart() {
        let gbnf = ["root ::= \"a:b\"", "# start: x\nroot ::= [a-z]", "# c\n\n  root\n  ::= \"x\" y\ny ::= \"z\"", "root   ::= \":\""];
        for text in gbnf {
            assert!(matches!(Source::grammar(text.to_owned()), Ok(Source::Gbnf(_))), "{text}");
        }
        let lark = [
            "start: \"a::=b\"",
            "// root ::= x\nstart: /::=/",
            "%ignore / /\nstart: X\nX: \"::=\"",
            "start[max_tokens=3]: /a/",
            "?start: a\na: \"b\"",
        ];
        for text in lark {
            assert!(matches!(Source::grammar(text.to_owned()), Ok(Source::Lark(_))), "{text}");
        }
        for text in ["", "hello", "# only\n// comments", "%import common.INT"] {
            assert!(matches!(Source::grammar(text.to_owned()), Err(GrammarError::Syntax { .. })), "{text}");
        }
    }
}
