//! Grammars, JSON schemas, regexes and choices as [constraints](fastllm_engine::Constraint) of the engine.
//!
//! A [`Compiler`] is made once for a tokenizer. It turns a [`Source`] into a [`Grammar`], of which every request gets a constraint of its
//! own:
//!
//! ```text
//! Source -> schema | lark | gbnf (checks, rewriting) -> llguidance -> Grammar -> constraint() -> masks
//! ```
//!
//! **Sources come from strangers.** Their size, nesting, number of rules and references are limited before anything recurses over them;
//! what is compiled has limits of fuel and states; it runs on a thread with a known stack, and a panic there is an error. Nothing is
//! ignored: a keyword of a schema or an attribute of a rule that is not honoured is refused by name.
//!
//! **What a constraint allows depends on the grammar and the tokens so far**, never on other requests: each starts from the state that
//! compilation left, also where a limit counts states.
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod compiler;
mod constraint;
mod error;
mod gbnf;
mod keys;
mod lark;
pub mod limits;
mod memory;
mod schema;
mod source;
mod vocabulary;

pub use answer::Answer;
pub use compiler::{Compiler, Grammar};
pub use error::GrammarError;
pub use gbnf::to_lark as gbnf_to_lark;
pub use source::Source;
