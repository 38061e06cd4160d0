//! Text in, text out: tokenizers, chat templates and tool calls. Knows text and ids, no model.
#![forbid(unsafe_code)]

pub mod chat;
pub mod tokenizer;
pub mod tools;
