//! Code that is not the engine's (models, tokenizers, visitors) may panic: here that becomes an error.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use fastllm_model::batch::{Row, SequenceId};

use crate::decoder::{DecodeError, Decoder, Logits};
use crate::error::Failure;

/// Runs `f`; a panic becomes [`Failure::Panicked`]. What `f` was changing must not be used afterwards, or be consistent at each point.
pub(crate) fn catch<T>(stage: &'static str, f: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| Failure::Panicked { stage, message: message(panic.as_ref()) })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_owned())
}

/// A decoder whose panics are errors. [`Decoder`] promises that a panic commits nothing.
pub(crate) struct Guarded<D>(D);

impl<D: Decoder> Guarded<D> {
    pub(crate) fn new(decoder: D) -> Self {
        Self(decoder)
    }

    pub(crate) fn open(&mut self) -> Result<SequenceId, Failure> {
        Ok(catch("opening a sequence", || self.0.open())??)
    }

    /// A decoder that panics here may lose the memory of the sequence, but the requests are done with it.
    pub(crate) fn close(&mut self, sequence: SequenceId) {
        drop(catch("closing a sequence", || self.0.close(sequence)));
    }

    pub(crate) fn context_length(&self) -> usize {
        self.0.context_length()
    }

    pub(crate) fn keeps_all(&self) -> bool {
        catch("asking for the cache", || self.0.keeps_all()).unwrap_or(false)
    }

    /// A decoder that panics here forks nothing.
    pub(crate) fn forkable(&self, sequence: SequenceId, most: usize) -> usize {
        catch("asking for the cache", || self.0.forkable(sequence, most)).unwrap_or(0)
    }

    pub(crate) fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, Failure> {
        Ok(catch("forking a sequence", || self.0.fork(sequence, len))??)
    }

    pub(crate) fn spare(&self) -> usize {
        catch("asking for the cache", || self.0.spare()).unwrap_or(0)
    }

    pub(crate) fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), Failure> {
        Ok(catch("shortening a sequence", || self.0.truncate(sequence, len))??)
    }

    pub(crate) fn piece(&self, sequence: SequenceId, index: usize) -> Result<Option<Cow<'_, [u8]>>, Failure> {
        catch("saving a state", || self.0.piece(sequence, index))
    }

    pub(crate) fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, Failure> {
        Ok(catch("restoring a state", || self.0.restore(sequence, index, piece))??)
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        catch("counting bytes", || self.0.cache_bytes()).unwrap_or(0)
    }

    pub(crate) fn growth(&self, rows: &[Row]) -> usize {
        catch("counting bytes", || self.0.growth(rows)).unwrap_or(0)
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        drop(catch("freeing memory", || self.0.shrink(bytes)));
    }

    pub(crate) fn bytes_read(&self, rows: &[Row]) -> Result<u64, Failure> {
        catch("counting bytes", || self.0.bytes_read(rows))
    }

    pub(crate) fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, Failure> {
        let vocab_size = self.0.vocab_size();
        let logits = catch("the forward pass", || self.0.forward(rows, cancel))??;
        let wanted = rows.iter().filter(|row| row.logits).count();
        if logits.len() == wanted && logits.rows().all(|row| row.len() == vocab_size) {
            return Ok(logits);
        }
        let message = format!("the model returned {} rows of logits instead of {wanted} of {vocab_size}", logits.len());
        Err(DecodeError::Failed(message.into()).into())
    }
}
