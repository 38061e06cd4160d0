//! Text in, text out: tokenizers and chat templates. Knows text and ids, no model.
#![forbid(unsafe_code)]

pub mod chat;
pub mod tokenizer;
