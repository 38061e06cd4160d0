//! The graph of a decoder-only transformer. Knows token ids and tensors, no text.
//!
//! A file becomes a [`config::Config`] (architecture as data, `arch`), then [`weights::Weights`] in two stages: declared (every shape
//! and size checked against the header) and loaded (packed in memory). [`Model`] is the immutable result, shared by any number of
//! [`Context`]s, which hold KV caches and scratch memory and run [`Context::forward`].
#![deny(unsafe_code)]

mod arch;
mod attention;
pub mod batch;
pub mod config;
mod delta_net;
mod error;
mod feed_forward;
pub mod kv_cache;
mod loader;
mod moe;
pub mod packed_cache;
pub mod plan;
mod ropes;
mod router;
mod scratch;
mod transformer;
pub mod weights;

pub use error::ModelError;
pub use loader::{LoadOptions, Model, WeightsFrom};
pub use packed_cache::identity;
pub use plan::{MemoryPlan, Operations, TokenCost};
pub use transformer::{Context, MAX_ROWS};
