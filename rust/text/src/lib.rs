//! Text in, text out: tokenizers, chat templates, tool calls and untrusted JSON. Knows text and ids, no model.
#![forbid(unsafe_code)]

pub mod chat;
pub mod json;
pub mod memory;
pub mod tokenizer;
pub mod tools;
