//! Scheduling, sampling and stopping.
//!
//! The engine knows token ids, never text: a tokenizer reaches it as [`Pieces`], the text that each id completes, and a model as
//! [`Decoder`], logits of (sequence, position, token) rows. One thread owns the decoder and runs every request on it by continuous
//! batching; what a request returns depends on its prompt, its options and its seed, not on what runs beside it.
//!
//! ```text
//! Engine::submit -> queue -> scheduler: batch of rows -> Decoder::forward -> sampling -> stop -> Handle::next
//! ```
#![deny(unsafe_code)]

mod constraint;
mod decoder;
mod engine;
mod error;
mod event;
mod model_decoder;
mod prefix_cache;
mod request;
pub mod sampling;
mod saved;
mod scheduler;
mod speculate;
pub mod stop;
mod timings;

pub use constraint::{Constraint, ConstraintError};
pub use decoder::{DecodeError, Decoder, Logits};
pub use engine::{Engine, EngineOptions, EngineStats};
pub use error::{Failure, ParamError, RunError, StartError, SubmitError};
pub use event::{Event, FinishReason, Finished, StopCause, Token, Usage};
pub use model_decoder::ModelDecoder;
pub use request::{LogitsVisitor, Notify, Request};
pub use saved::{StateError, StateReader, StateWriter};
pub use scheduler::handle::{Handle, Next};
pub use stop::{Pieces, StopParams};
pub use timings::Timings;
