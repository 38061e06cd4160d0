//! From a conversation to the text for the tokenizer, in which the control tokens are the template's.
//!
//! A message may hold the text of a control token (`<|im_end|>`). To the template it is text, and to the tokenizer it must stay that,
//! while the same text in the template is the token. So the strings of the conversation are rendered with a guard, a character that
//! occurs nowhere, within such texts, and the tokenizer takes it out again once it knows where the tokens are. Templates look at the
//! strings (`'</think>' in content`), so a guarded render counts only where it is, without the guard, the render of the strings as they
//! are. The strictest of these is taken:
//!
//! 1. a guard after every character with which a control token could begin: also what the template puts together from parts, or cuts
//!    something out of, becomes no token;
//! 2. a guard within every text of a control token;
//! 3. the same outside of the assistant's messages, where templates look for tokens of the model's own.
//!
//! Where none of them is equal, because the template looks at control tokens in what others wrote, it does not find them: 2 is taken.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{ChatTemplate, RenderInput, TemplateError};
use crate::tokenizer::Tokenizer;

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The text with guards, and the guard, for [`Tokenizer::encode_guarded`]. `None`: all control tokens in the text are meant.
    pub guarded: Option<(String, char)>,
}

/// Guards of all strengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarding {
    Beginnings,
    Tokens,
    TokensOfOthers,
}

/// Renders a conversation for a tokenizer.
///
/// # Errors
/// As [`ChatTemplate::render`].
pub fn prompt(template: &ChatTemplate, tokenizer: &Tokenizer, input: &RenderInput<'_>) -> Result<Prompt, TemplateError> {
    let text = template.render(input)?;
    let mut strings = Vec::new();
    collect(input.messages, &mut strings);
    input.tools.iter().for_each(|tools| collect(tools, &mut strings));
    // Those directly among the variables are the caller's own.
    input.variables.values().filter(|value| !value.is_string()).for_each(|value| collect(value, &mut strings));
    if !strings.iter().any(|string| tokenizer.may_begin_control(string)) {
        return Ok(Prompt { text, guarded: None });
    }
    let Some(guard) = unused(&strings, &text) else {
        return Err(TemplateError::Internal("the conversation has all characters for private use".to_owned()));
    };
    let tokens = strings.iter().any(|string| tokenizer.guard_control(string, guard).1);
    let mut second = None;
    for guarding in [Guarding::Beginnings, Guarding::Tokens, Guarding::TokensOfOthers] {
        if guarding == Guarding::Tokens && !tokens {
            return Ok(Prompt { text, guarded: None });
        }
        let rendered = Guarded { tokenizer, guard, guarding }.render(template, input);
        match rendered {
            Ok(rendered) if rendered.replace(guard, "") == text => return Ok(Prompt { text, guarded: Some((rendered, guard)) }),
            Ok(rendered) if guarding == Guarding::Tokens => second = Some(Ok(rendered)),
            Err(error) if guarding == Guarding::Tokens => second = Some(Err(error)),
            _ => {}
        }
    }
    match second {
        Some(Ok(rendered)) => Ok(Prompt { text: rendered.replace(guard, ""), guarded: Some((rendered, guard)) }),
        Some(Err(error)) => Err(error),
        None => Err(TemplateError::Internal("no render was tried".to_owned())),
    }
}

/// All strings of a value, keys too; but not roles, which templates make tokens of.
pub(super) fn collect<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        Value::Object(map) => {
            for (key, value) in map {
                out.push(key);
                if key != "role" || !value.is_string() {
                    collect(value, out);
                }
            }
        }
        _ => {}
    }
}

/// A character for private use that occurs nowhere.
pub(super) fn unused(strings: &[&str], text: &str) -> Option<char> {
    let private = |c: &char| ('\u{f0000}'..='\u{ffffd}').contains(c);
    let used: HashSet<char> = strings.iter().flat_map(|string| string.chars()).chain(text.chars()).filter(private).collect();
    ('\u{f0000}'..='\u{ffffd}').find(|c| !used.contains(c))
}

struct Guarded<'a> {
    tokenizer: &'a Tokenizer,
    guard: char,
    guarding: Guarding,
}

impl Guarded<'_> {
    fn render(&self, template: &ChatTemplate, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let messages = match input.messages {
            Value::Array(messages) => messages.iter().map(|message| self.message(message)).collect(),
            other => self.value(other),
        };
        let tools = input.tools.map(|tools| self.value(tools));
        let variables = input.variables.iter().map(|(name, value)| {
            let value = if value.is_string() { value.clone() } else { self.value(value) };
            (name.clone(), value)
        });
        let variables: Map<String, Value> = variables.collect();
        template.render(&RenderInput { messages: &messages, tools: tools.as_ref(), variables: &variables, ..*input })
    }

    fn message(&self, message: &Value) -> Value {
        let own = self.guarding == Guarding::TokensOfOthers && message.get("role").and_then(Value::as_str) == Some("assistant");
        if own { message.clone() } else { self.value(message) }
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => {
                let items = map.iter().map(|(key, value)| {
                    let kept = key == "role" && value.is_string();
                    (self.text(key), if kept { value.clone() } else { self.value(value) })
                });
                Value::Object(items.collect())
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        match self.guarding {
            Guarding::Beginnings => self.tokenizer.guard_beginnings(text, self.guard),
            Guarding::Tokens | Guarding::TokensOfOthers => self.tokenizer.guard_control(text, self.guard).0,
        }
    }
}
