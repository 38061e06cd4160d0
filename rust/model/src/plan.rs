//! Memory that a model needs, from the header alone.
use crate::ModelError;
use crate::arch;
use crate::kv_cache::CacheShape;
use crate::scratch::{Scratch, Widths};
use crate::transformer::MAX_ROWS;
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_kernels::pool::default_threads;

/// Bytes by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Packed weights.
    pub weights: usize,
    /// KV cache of all sequences, filled to the context length.
    pub kv_cache: usize,
    /// Activations of the largest batch.
    pub scratch: usize,
    /// Tokenizer, header and small tables.
    pub other: usize,
    /// The context length that was asked for, or the model's.
    pub context_length: usize,
}

impl MemoryPlan {
    /// Plans `batch` sequences of `context_length` positions (by default what the model was trained for).
    ///
    /// # Errors
    /// As for loading.
    pub fn new(file: &GgufFile, context_length: Option<usize>, cache_type: CacheType, batch: usize) -> Result<MemoryPlan, ModelError> {
        let (config, weights) = arch::declare(file, context_length)?;
        let context_length = context_length.unwrap_or(config.context_length);
        let shape = CacheShape::new(&config, cache_type)?;
        // The sequences of a batch share its rows: with windows, one long chunk is the most.
        let (prompt, others) = (shape.bytes(context_length, MAX_ROWS), shape.bytes(context_length, 1));
        Ok(MemoryPlan {
            weights: weights.bytes(),
            kv_cache: if batch == 0 { 0 } else { prompt.saturating_add(others.saturating_mul(batch - 1)) },
            scratch: Scratch::bytes(&Widths::new(&config, &weights), MAX_ROWS.min(context_length), batch, default_threads()),
            // The header twice over (raw and indexed) and the vocabulary's tables: measured at about three times its size.
            other: 3 * header_bytes(file),
            context_length,
        })
    }

    /// All of it.
    pub fn total(&self) -> usize {
        [self.weights, self.kv_cache, self.scratch, self.other].into_iter().fold(0, usize::saturating_add)
    }
}

fn header_bytes(file: &GgufFile) -> usize {
    let first = file.tensors().iter().filter(|t| t.file == 0).map(|t| t.offset).min();
    first.unwrap_or(file.total_bytes()) as usize
}
