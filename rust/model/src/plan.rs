//! Memory that a model needs, from the header alone.
use crate::ModelError;
use crate::arch;
use crate::kv_cache::CacheShape;
use crate::scratch::{Scratch, Widths};
use crate::transformer::MAX_ROWS;
use crate::weights::{Layer, MatrixInfo, Reads};
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_kernels::linear::Linear;
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

/// What one token costs, from the header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCost {
    /// Bytes of packed weights that a pass over one token reads.
    pub weights: usize,
    /// Bytes of keys, values and states that the token at a certain position reads.
    pub kv_cache: usize,
    /// Multiplications and additions in the weights of the layers.
    pub layers: Operations,
    /// Those in the output matrix, which only tokens whose logits are wanted need.
    pub output: Operations,
}

/// Multiplications and additions, by what does them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Dot products of bytes.
    pub integer: usize,
    /// Fused multiply-adds: weights that are stored as floats.
    pub float: usize,
}

impl Operations {
    /// With those of a token in `count` matrices.
    fn with(mut self, m: &MatrixInfo, count: usize) -> Operations {
        let operations = [2, m.rows, m.cols, count].into_iter().fold(1, usize::saturating_mul);
        let sum = if m.kind.form().dense { &mut self.float } else { &mut self.integer };
        *sum = sum.saturating_add(operations);
        self
    }
}

impl TokenCost {
    /// The cost of a token at `position`.
    ///
    /// # Errors
    /// As for loading.
    pub fn new(file: &GgufFile, cache_type: CacheType, position: usize) -> Result<TokenCost, ModelError> {
        let (config, weights) = arch::declare(file, None)?;
        let output = weights.output.as_ref().unwrap_or(&weights.embedding);
        let mut cost = TokenCost {
            weights: output.bytes(),
            kv_cache: CacheShape::new(&config, cache_type)?.bytes_read(position),
            layers: Operations::default(),
            output: Operations::default().with(output, output.sources.len()),
        };
        for (m, reads) in weights.layers.iter().flat_map(Layer::matrices) {
            let count = match reads {
                Reads::All => m.sources.len(),
                Reads::PerRow(chosen) => chosen.min(m.sources.len()),
            };
            // Checked when the matrix was declared.
            cost.weights = cost.weights.saturating_add(Linear::bytes_for(m.kind, m.rows, m.cols, count).unwrap_or(usize::MAX));
            cost.layers = cost.layers.with(m, count);
        }
        Ok(cost)
    }
}

fn header_bytes(file: &GgufFile) -> usize {
    let first = file.tensors().iter().filter(|t| t.file == 0).map(|t| t.offset).min();
    first.unwrap_or(file.total_bytes()) as usize
}
