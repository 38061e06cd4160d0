//! What the engine asks of a model.

use std::borrow::Cow;
use std::error::Error;
use std::sync::atomic::AtomicBool;

use fastllm_model::batch::{Row, SequenceId};

/// A model with its KV cache: runs rows of many sequences and returns logits.
///
/// The engine calls it from one thread. It relies on two properties:
///
/// - **Nothing is committed unless `forward` returns `Ok`.** After an error, a cancellation or a panic every sequence is as it was
///   before the call, so that the engine can repeat the rows without those of one request.
/// - **Logits of a row depend on the tokens of its sequence alone**, not on the other rows nor on how the prompt was cut into calls.
pub trait Decoder: Send + 'static {
    /// Number of token ids; the length of one row of logits.
    fn vocab_size(&self) -> usize;

    /// Most positions that a sequence can have.
    fn context_length(&self) -> usize;

    /// Most rows that one `forward` takes; at least one.
    fn max_rows(&self) -> usize;

    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`DecodeError::OutOfMemory`] when there is no room for another sequence now; the engine tries again when one was closed.
    fn open(&mut self) -> Result<SequenceId, DecodeError>;

    /// Releases a sequence and its memory.
    fn close(&mut self, sequence: SequenceId);

    /// Whether sequences can be forked and shortened anywhere: there are no windows and no recurrent states, which keep their end only.
    fn keeps_all(&self) -> bool;

    /// The most positions, up to `most`, with which a fork of `sequence` can begin; 0 where so much was not kept.
    fn forkable(&self, sequence: SequenceId, most: usize) -> usize;

    /// A new sequence that begins with the first `len` positions of another, [`forkable`](Self::forkable) ones.
    ///
    /// # Errors
    /// [`DecodeError::OutOfMemory`] as for [`open`](Self::open).
    fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, DecodeError>;

    /// Positions by which a sequence can be shortened after a `forward`.
    fn spare(&self) -> usize;

    /// Drops the positions of a sequence from `len` on, at most [`spare`](Self::spare) of them.
    ///
    /// # Errors
    /// When so many were not kept.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), DecodeError>;

    /// Piece `index` of the state of a sequence, if there are so many: bytes for [`restore`](Self::restore).
    fn piece(&self, sequence: SequenceId, index: usize) -> Option<Cow<'_, [u8]>>;

    /// Gives an empty sequence the next piece of a state; whether it is complete.
    ///
    /// # Errors
    /// When the piece is none of a state of this model, or [`DecodeError::OutOfMemory`]. The sequence is to be closed.
    fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, DecodeError>;

    /// Bytes that the KV cache holds.
    fn cache_bytes(&self) -> usize;

    /// Bytes that it would grow by in a `forward` over `rows`.
    fn growth(&self, rows: &[Row]) -> usize;

    /// Frees memory that no sequence uses until the KV cache holds at most `bytes`, as far as it goes.
    fn shrink(&mut self, bytes: usize);

    /// Runs `rows` (at most [`max_rows`](Self::max_rows), several sequences mixed, the rows of a sequence adjacent and in ascending
    /// order of position) and commits them. Returns the logits of the rows that ask for them, in row order.
    ///
    /// # Errors
    /// [`DecodeError::Cancelled`] soon (well under 100 ms) after `cancel` became true; otherwise what went wrong. Nothing is committed.
    fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, DecodeError>;

    /// Bytes of memory that one `forward` over `rows` reads: weights once, and the KV cache of every sequence. For reports only.
    fn bytes_read(&self, rows: &[Row]) -> u64;
}

/// Logits of the rows that asked for them. `[rows, vocab_size]`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    data: &'a [f32],
    vocab_size: usize,
}

impl<'a> Logits<'a> {
    /// Wraps `data`, whose length is a multiple of `vocab_size`.
    ///
    /// # Panics
    /// When it is not: a bug of the decoder.
    pub fn new(data: &'a [f32], vocab_size: usize) -> Self {
        assert!(vocab_size > 0 && data.len().is_multiple_of(vocab_size), "{} logits are no rows of {vocab_size}", data.len());
        Self { data, vocab_size }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.vocab_size
    }

    /// Whether no row asked for logits.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The rows, each `vocab_size` long.
    pub fn rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.data.chunks_exact(self.vocab_size)
    }
}

/// Why a decoder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The cancel flag was set.
    #[error("the forward pass was cancelled")]
    Cancelled,
    /// The KV cache cannot grow.
    #[error("no memory left for the KV cache: {needed} bytes needed, {available} available")]
    OutOfMemory {
        /// Bytes that the call needed.
        needed: u64,
        /// Bytes that were left.
        available: u64,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Box<dyn Error + Send + Sync>),
}
