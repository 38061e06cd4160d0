//! The graph of a decoder-only transformer. Knows token ids and tensors, no text.
#![deny(unsafe_code)]

pub mod batch;
