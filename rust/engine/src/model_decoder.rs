//! The model as the engine sees it.
use crate::decoder::{DecodeError, Decoder, Logits};
use fastllm_model::batch::{Row, SequenceId};
use fastllm_model::{Context, MAX_ROWS, Model, ModelError};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model with its KV cache.
#[derive(Debug)]
pub struct ModelDecoder(Context);

impl ModelDecoder {
    /// A decoder without sequences; starts the model's threads.
    ///
    /// # Errors
    /// If the model's heads do not fit a cache.
    pub fn new(model: Arc<Model>) -> Result<ModelDecoder, ModelError> {
        Ok(ModelDecoder(Context::new(model)?))
    }
}

impl Decoder for ModelDecoder {
    fn vocab_size(&self) -> usize {
        self.0.model().config().vocab_size
    }

    fn context_length(&self) -> usize {
        self.0.model().context_length()
    }

    fn max_rows(&self) -> usize {
        MAX_ROWS
    }

    fn open(&mut self) -> Result<SequenceId, DecodeError> {
        Ok(self.0.open())
    }

    fn close(&mut self, sequence: SequenceId) {
        self.0.close(sequence);
    }

    fn keeps_all(&self) -> bool {
        self.0.kv().shape().keeps_all()
    }

    fn forkable(&self, sequence: SequenceId, most: usize) -> usize {
        self.0.kv().forkable(sequence, most)
    }

    fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, DecodeError> {
        Ok(self.0.fork(sequence, len)?)
    }

    fn spare(&self) -> usize {
        self.0.kv().shape().spare()
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), DecodeError> {
        Ok(self.0.truncate(sequence, len)?)
    }

    fn piece(&self, sequence: SequenceId, index: usize) -> Option<Cow<'_, [u8]>> {
        self.0.kv().piece(sequence, index)
    }

    fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, DecodeError> {
        Ok(self.0.restore(sequence, index, piece)?)
    }

    fn cache_bytes(&self) -> usize {
        self.0.kv().bytes()
    }

    fn growth(&self, rows: &[Row]) -> usize {
        self.0.growth(rows)
    }

    fn shrink(&mut self, bytes: usize) {
        self.0.shrink(bytes);
    }

    fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, DecodeError> {
        let vocab = self.vocab_size();
        Ok(Logits::new(self.0.forward(rows, cancel)?, vocab))
    }

    fn bytes_read(&self, rows: &[Row]) -> u64 {
        self.0.bytes_read(rows) as u64
    }
}

impl From<ModelError> for DecodeError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => DecodeError::Cancelled,
            ModelError::OutOfMemory(e) => DecodeError::OutOfMemory { needed: e.bytes as u64, available: 0 },
            e => DecodeError::Failed(Box::new(e)),
        }
    }
}
