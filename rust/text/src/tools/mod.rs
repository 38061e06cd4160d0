//! What a model writes becomes content, reasoning and tool calls, while it is written.
//!
//! A [`Parser`] takes the text in pieces, cut anywhere, and gives [`Event`]s; it holds back only what may be the beginning of a marker,
//! and white space that may lie before a call. A [`Format`] says how the model writes calls: one file for each. Arguments come out as the
//! text of a JSON object, also where the model writes Python literals or XML. What looks like a call and is none is reported, and stays in
//! the content: nothing is lost. Joined events do not depend on where the text was cut.
//!
//! Knows text only: no vocabulary, no template. The text is untrusted: time is linear in it, nesting is bounded, memory is that of the
//! part which is being read.

mod answer;
mod call;
mod command_r;
mod constraint;
mod cursor;
mod deepseek;
mod format;
mod generic;
mod glm4;
mod granite;
mod harmony;
mod hermes;
mod json;
mod kimi_k2;
mod llama3;
mod minimax_m2;
mod mistral;
mod named;
mod nemotron;
mod parser;
mod python;
mod pythonic;
mod qwen3_coder;
mod seed_oss;
mod sink;
mod tagged;
#[cfg(test)]
mod tests;
mod typed;
mod xml;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;

pub use answer::{Alternative, Answer, AnswerError, Thought};
pub use constraint::{Choice, Constraint};
pub use format::{Format, Reasoning};
pub use parser::{Options, Parser};

use cursor::Cursor;
use sink::Sink;

/// Why a text is no call.
pub type Reason = Cow<'static, str>;

/// What the model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Text of the answer.
    Content(String),
    /// Text of the reasoning before it.
    Reasoning(String),
    /// A call begins. Calls are numbered from 0.
    CallBegin {
        /// Its number.
        index: usize,
        /// The tool.
        name: String,
    },
    /// A part of the arguments of the call that was begun.
    Arguments {
        /// The number of the call.
        index: usize,
        /// A part of the text of a JSON object.
        json: String,
    },
    /// The call is complete: the parts of its arguments together are a JSON object.
    CallEnd {
        /// The number of the call.
        index: usize,
    },
    /// Something that begins like a call, and is none. Its text follows as content, or as reasoning where that is open.
    Malformed {
        /// The call that was begun and is taken back, if one was.
        index: Option<usize>,
        /// The text.
        raw: String,
        /// What is wrong with it.
        reason: Reason,
    },
}

/// A tool that was declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments, an object; null where nothing is said about them.
    pub parameters: Value,
    /// Whether calls must follow the schema where it can be made so.
    pub strict: bool,
}

/// A declaration that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tool {index}: {what}")]
pub struct ToolError {
    /// The place in the list.
    pub index: usize,
    what: String,
}

/// The declared tools, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tools(Arc<[Tool]>);

impl Tools {
    /// Reads declarations as the OpenAI interface has them: `{"type": "function", "function": {"name": …, "parameters": …}}`, or
    /// the inner object alone.
    ///
    /// # Errors
    /// An entry that is none, or a name that comes twice.
    pub fn from_json(tools: &[Value]) -> Result<Tools, ToolError> {
        let mut all: Vec<Tool> = Vec::with_capacity(tools.len());
        for (index, tool) in tools.iter().enumerate() {
            let wrong = |what: &str| ToolError { index, what: what.to_owned() };
            let function = tool.get("function").unwrap_or(tool);
            let name = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| wrong("has no name"))?;
            let parameters = function.get("parameters").unwrap_or(&Value::Null);
            if !(parameters.is_null() || parameters.is_object()) {
                return Err(wrong("has parameters that are no JSON schema of an object"));
            }
            if all.iter().any(|other| other.name == name) {
                return Err(wrong(&format!("has the name {name:?}, as one before it")));
            }
            let strict = match function.get("strict") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(strict)) => *strict,
                Some(_) => return Err(wrong("has a \"strict\" that is no boolean")),
            };
            all.push(Tool { name: name.to_owned(), parameters: parameters.clone(), strict });
        }
        Ok(Tools(all.into()))
    }

    /// The tool of this name.
    pub fn find(&self, name: &str) -> Option<&Tool> {
        self.0.iter().find(|tool| tool.name == name)
    }

    /// All of them, in order.
    pub fn all(&self) -> &[Tool] {
        &self.0
    }
}

/// What reading on has come to.
#[derive(Debug)]
enum Flow {
    /// More text decides.
    More,
    /// The calls are complete.
    Done,
    /// It is no call: the text since the mark.
    Bad(Reason),
    /// It did not have to be a call, and is text.
    Text,
}

/// Reads what follows an opening marker.
trait Dialect: Debug + Send + Sync {
    /// Reads on, as far as the text goes. At the end of the text it must not ask for more.
    fn advance(&mut self, input: &mut Cursor, out: &mut Sink) -> Flow;
}

/// A [`Dialect`] that reads step by step.
trait Steps: Debug + Send + Sync {
    /// One step; `None` to go on.
    fn step(&mut self, input: &mut Cursor, out: &mut Sink) -> Result<Option<Flow>, Reason>;

    /// Whether what is wrong did not have to be a call.
    fn may_be_text(&self, _out: &Sink) -> bool {
        false
    }
}

impl<T: Steps> Dialect for T {
    fn advance(&mut self, input: &mut Cursor, out: &mut Sink) -> Flow {
        loop {
            match self.step(input, out) {
                Ok(None) => {}
                Ok(Some(flow)) => return flow,
                Err(_) if self.may_be_text(out) => return Flow::Text,
                Err(reason) => return Flow::Bad(reason),
            }
        }
    }
}
