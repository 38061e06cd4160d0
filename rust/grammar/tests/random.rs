//! Random and damaged grammars: errors or output, never a panic.

mod common;

use common::*;
use fastllm_grammar::{GrammarError, Source, gbnf_to_lark};
use proptest::prelude::*;

const GBNF: &str = "root ::= object\nvalue ::= object | array | string | [0-9]{1,3}\nobject ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" value)*)? \"}\"\narray ::= \"[\" value* \"]\"\nstring ::= \"\\\"\" [^\"\\x7F]* \"\\\"\" ws\nws ::= | \" \" # end\n";
const LARK: &str = "start: item (\",\" item)* \"é\"\n?item[max_tokens=5]: /[a-z]+/i | \"(\" start \")\" | %json {\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}}\n%ignore / +/\nWORD: \"x\"~2..3 & /./\n";
const SCHEMA: &str = r##"{"type":"object","properties":{"a":{"type":["string","null"],"maxLength":5,"pattern":"^a+"},"b":{"oneOf":[{"const":1.5},{"$ref":"#/$defs/x"}]},"c":{"items":[{"enum":[1,null]}],"additionalItems":false}},"required":["a"],"$defs":{"x":{"type":"object","additionalProperties":{"minimum":-3}}}}"##;

/// The outcome of compiling and walking: panics are errors that say so.
fn try_out(source: &Source) -> Result<(), TestCaseError> {
    let message = match compiler().compile(source) {
        Err(error @ GrammarError::Time(_)) => return Err(TestCaseError::fail(format!("{source:?}: {error}"))),
        Err(error) => error.to_string(),
        Ok(grammar) => walk(grammar.constraint().as_mut(), 1, 10).map_or_else(|error| error.to_string(), |_| String::new()),
    };
    prop_assert!(!message.contains("panic"), "{source:?}: {message}");
    Ok(())
}

/// A text with a few characters replaced, removed or repeated.
fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    let edits = prop::collection::vec(
        (any::<prop::sample::Index>(), 0..4usize, any::<char>(), "[\\[\\](){}<>|\"/\\\\~:=.,*+?#%@$0-9a-z -]{1,3}"),
        1..5,
    );
    edits.prop_map(move |edits| {
        let mut chars: Vec<char> = text.chars().collect();
        for (index, kind, any, part) in edits {
            let at = index.index(chars.len().max(1));
            match kind {
                0 if !chars.is_empty() => drop(chars.remove(at)),
                1 if !chars.is_empty() => chars[at] = any,
                2 if !chars.is_empty() => drop(chars.splice(at..at, part.chars())),
                _ => chars.truncate(at),
            }
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gbnf(text in damaged(GBNF)) {
        if let Ok(lark) = gbnf_to_lark(&text) {
            prop_assert!(lark.starts_with("start: "));
        }
        try_out(&Source::Gbnf(text))?;
    }

    #[test]
    fn lark_grammars(text in damaged(LARK)) {
        try_out(&Source::Lark(text))?;
    }

    #[test]
    fn schemas(text in damaged(SCHEMA)) {
        try_out(&Source::JsonSchema(text))?;
    }

    #[test]
    fn regexes(text in "[a-c.*+?(){}0-9,|\\[\\]^$\\\\é-]{0,12}") {
        try_out(&Source::Regex(text))?;
    }

    #[test]
    fn any_text(text in "\\PC{0,40}") {
        let _ = gbnf_to_lark(&text);
        try_out(&Source::Lark(text.clone()))?;
        if let Ok(source) = Source::grammar(text) {
            try_out(&source)?;
        }
    }
}
