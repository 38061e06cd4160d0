//! The forward pass: tokens to logits, layer by layer.
use crate::batch::{Row, SequenceId};
use crate::config::{Config, Pairing, RopeScaling};
use crate::kv_cache::{CacheShape, KvCache};
use crate::scratch::Scratch;
use crate::weights::{FeedForward, Projection};
use crate::{Model, ModelError, attention, feed_forward, moe};
use fastllm_kernels::activation::{Activations, Forms};
use fastllm_kernels::buffer::AlignedVec;
use fastllm_kernels::elementwise::add_assign;
use fastllm_kernels::linear::{self, Linear, Product};
use fastllm_kernels::pool::Pool;
use fastllm_kernels::rms_norm::rms_norm;
use fastllm_kernels::rope;
use fastllm_simd::Cpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most rows of a forward pass.
pub const MAX_ROWS: usize = 512;
/// Rows from which on the threads for prompts are used.
const PREFILL: usize = 16;

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub sequence: SequenceId,
    /// First row of the batch.
    pub first: usize,
    pub tokens: usize,
    /// Position of the first row.
    pub position: usize,
}

/// Threads and what they need for matrix products.
pub(crate) struct Worker<'a> {
    pub cpu: Cpu,
    pub pool: &'a Pool,
    pub cancel: &'a AtomicBool,
    unpacked: &'a linear::Scratch,
}

impl Worker<'_> {
    /// Computes products.
    pub fn multiply(&self, products: &[Product<'_>]) -> Result<(), ModelError> {
        linear::multiply(self.cpu, self.pool, self.unpacked, products, self.cancel);
        self.check()
    }

    /// An error once the pass is to stop.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.cancel.load(Ordering::Relaxed) { Err(ModelError::Cancelled) } else { Ok(()) }
    }

    /// Prepares rows of `x` (`stride` floats each) for some matrices of the same columns.
    pub fn fill(&self, out: &mut Activations, matrices: &[&Linear], x: &[f32], stride: usize, tokens: usize) {
        let cols = matrices[0].cols();
        self.fill_rows(out, matrices, tokens, cols, |t| &x[t * stride..][..cols]);
    }

    /// Prepares `row(0..tokens)` for some matrices.
    pub fn fill_rows<'x>(
        &self,
        out: &mut Activations,
        matrices: &[&Linear],
        tokens: usize,
        cols: usize,
        row: impl Fn(usize) -> &'x [f32] + Sync,
    ) {
        let forms = matrices
            .iter()
            .map(|m| m.kind().form())
            .fold(Forms::default(), |a, b| Forms { quantized: a.quantized || b.quantized, dense: a.dense || b.dense });
        out.fill(self.cpu, self.pool, tokens, cols, forms, row);
    }
}

/// What the parts of a forward pass share.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub worker: Worker<'a>,
    pub scratch: &'a mut Scratch,
    pub kv: &'a mut KvCache,
    pub segments: &'a [Segment],
    pub ropes: &'a RopeAngles,
    /// Rows of the batch.
    pub tokens: usize,
    /// Floats from one row of the residual stream to the next.
    pub hidden_stride: usize,
}

/// What a projection reads, prepares and writes.
type Flow = fn(&mut Scratch) -> (&AlignedVec<f32>, &mut Activations, &mut AlignedVec<f32>);

impl Pass<'_> {
    /// `y = weight * x + bias` for `tokens` rows.
    pub fn project(&mut self, p: &Projection<crate::weights::Loaded>, flow: Flow, stride: usize, tokens: usize) -> Result<(), ModelError> {
        let (x, activations, y) = flow(self.scratch);
        self.worker.fill(activations, &[&p.weight], x, stride, tokens);
        y.resize(tokens * p.weight.padded_rows());
        self.worker.multiply(&[Product::new(&p.weight, activations, y)])?;
        if p.bias.is_some() {
            let cpu = self.worker.cpu;
            for_rows(self.worker.pool, y, p.weight.padded_rows(), |_, y| add_bias(cpu, p.bias.as_deref(), y));
        }
        Ok(())
    }

    /// `normed = rms_norm(x) * weight`.
    fn norm(&mut self, weight: &[f32], tokens: usize) {
        let (cpu, eps, stride) = (self.worker.cpu, self.model.config.norm_eps, self.hidden_stride);
        let s = &mut *self.scratch;
        s.normed.resize(tokens * stride);
        let x = &s.x;
        for_rows(self.worker.pool, &mut s.normed, stride, |t, out| {
            rms_norm(cpu, &x[t * stride..][..weight.len()], weight, eps, &mut out[..weight.len()]);
        });
    }

    /// `x += block`.
    fn add_block(&mut self, tokens: usize) {
        let (cpu, stride) = (self.worker.cpu, self.hidden_stride);
        let s = &mut *self.scratch;
        let block = &s.block;
        for_rows(self.worker.pool, &mut s.x[..tokens * stride], stride, |t, x| add_assign(cpu, x, &block[t * stride..][..stride]));
    }

    /// Keeps the rows `wanted` of `data`, in order.
    fn keep_rows(data: &mut AlignedVec<f32>, stride: usize, wanted: &[usize]) {
        for (to, &from) in wanted.iter().enumerate() {
            data.copy_within(from * stride..(from + 1) * stride, to * stride);
        }
        data.resize(wanted.len() * stride);
    }

    fn layers(&mut self, wanted: &[usize]) -> Result<usize, ModelError> {
        let model = self.model;
        let mut tokens = self.tokens;
        for (i, layer) in model.weights.layers.iter().enumerate() {
            self.norm(&layer.attention_norm, tokens);
            attention::forward(self, i, layer)?;
            // After the last cache is written, only the rows with wanted logits go on.
            let attended = layer.o.weight.cols().next_multiple_of(16);
            if i + 1 == model.weights.layers.len() && wanted.len() < tokens {
                tokens = wanted.len();
                if tokens == 0 {
                    return Ok(0);
                }
                Self::keep_rows(&mut self.scratch.attended, attended, wanted);
                Self::keep_rows(&mut self.scratch.x, self.hidden_stride, wanted);
            }
            self.project(&layer.o, |s| (&s.attended, &mut s.activations, &mut s.block), attended, tokens)?;
            self.add_block(tokens);
            self.norm(&layer.feed_forward_norm, tokens);
            match &layer.feed_forward {
                FeedForward::Dense(mlp) => feed_forward::forward(self, mlp, tokens)?,
                FeedForward::Experts(experts) => moe::forward(self, experts, tokens)?,
            }
            self.add_block(tokens);
        }
        Ok(tokens)
    }
}

/// Calls `f(index, row)` for every row of `stride` floats.
pub(crate) fn for_rows(pool: &Pool, data: &mut [f32], stride: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() <= stride {
        return data.chunks_exact_mut(stride).enumerate().for_each(|(t, row)| f(t, row));
    }
    let mut rows: Vec<&mut [f32]> = data.chunks_exact_mut(stride).collect();
    pool.for_each_mut(&mut rows, |t, row| f(t, row));
}

/// Adds a bias, if there is one.
pub(crate) fn add_bias(cpu: Cpu, bias: Option<&[f32]>, row: &mut [f32]) {
    if let Some(bias) = bias {
        add_assign(cpu, &mut row[..bias.len()], bias);
    }
}

/// Rotary frequencies of the kinds that a model has.
#[derive(Debug)]
pub(crate) struct RopeTables(Vec<(Pairing, rope::RopeTable)>);

impl RopeTables {
    pub fn new(config: &Config, divisors: Option<&[f32]>) -> Result<RopeTables, ModelError> {
        let one = |r: &crate::config::RopeConfig| {
            let mut frequencies = rope::frequencies(f64::from(r.base), r.dim);
            let mut magnitude = 1.0;
            match &r.scaling {
                RopeScaling::None => {}
                RopeScaling::Linear(factor) => rope::scale_linear(&mut frequencies, f64::from(*factor)),
                RopeScaling::Divisors => {
                    let divisors = divisors.unwrap_or_default();
                    if divisors.len() != frequencies.len() || divisors.iter().any(|d| !d.is_finite() || *d <= 0.0) {
                        return Err(ModelError::Invalid("rope_freqs.weight holds numbers that are not above 0".to_owned()));
                    }
                    rope::divide(&mut frequencies, divisors);
                }
                RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
                    let yarn = rope::Yarn {
                        factor: f64::from(*factor),
                        original_context: *original_context as f64,
                        beta_fast: f64::from(*beta_fast),
                        beta_slow: f64::from(*beta_slow),
                        truncate: true,
                    };
                    yarn.apply(&mut frequencies, f64::from(r.base));
                    magnitude = yarn.mscale() * f64::from(*attention_factor);
                }
            }
            Ok((r.pairing, rope::RopeTable::new(frequencies, magnitude)))
        };
        Ok(RopeTables(config.ropes.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// The angles of some positions.
    fn angles(&self, positions: &[usize]) -> RopeAngles {
        let of = |table: &rope::RopeTable| positions.iter().map(|&p| table.angles(p)).collect();
        RopeAngles(self.0.iter().map(|(pairing, table)| (*pairing, of(table))).collect())
    }
}

/// Cosines and sines of the rows of a batch, for every kind of rotary embedding.
pub(crate) struct RopeAngles(Vec<(Pairing, Vec<rope::Angles>)>);

impl RopeAngles {
    /// Rotates heads of `dim` channels of the batch's row `token`.
    pub fn rotate(&self, cpu: Cpu, kind: usize, token: usize, heads: &mut [f32], dim: usize) {
        let (pairing, angles) = &self.0[kind];
        rope::rope(cpu, heads, dim, &angles[token], *pairing);
    }
}

/// KV caches and scratch memory: what a user of a model owns.
pub struct Context {
    model: Arc<Model>,
    kv: KvCache,
    scratch: Scratch,
    decode: (Pool, linear::Scratch),
    /// If prompts have another number of threads.
    prefill: Option<(Pool, linear::Scratch)>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("kv", &self.kv).finish_non_exhaustive()
    }
}

impl Context {
    /// A context without sequences; starts its threads.
    ///
    /// # Errors
    /// If the model's heads do not fit a cache.
    pub fn new(model: Arc<Model>) -> Result<Context, ModelError> {
        let pool = |threads| {
            let pool = Pool::new(threads);
            let unpacked = linear::Scratch::new(&pool);
            (pool, unpacked)
        };
        let (decode, prefill) = (model.threads(), model.prefill_threads());
        Ok(Context {
            kv: KvCache::new(CacheShape::new(&model.config, model.cache_type())?),
            scratch: Scratch::new(decode.max(prefill)),
            decode: pool(decode),
            prefill: (prefill != decode).then(|| pool(prefill)),
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The caches.
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// A new, empty sequence.
    pub fn open(&mut self) -> SequenceId {
        self.kv.open()
    }

    /// Ends a sequence.
    pub fn close(&mut self, sequence: SequenceId) {
        self.kv.close(sequence);
    }

    /// Runs `rows` (at most [`MAX_ROWS`]; those of a sequence side by side, from its end on) and returns the logits of the rows that ask
    /// for them, `[rows, vocab]`. `cancel`, once set, stays set until this returns.
    ///
    /// # Errors
    /// If the batch cannot be run, memory is short, or `cancel` is set; then no sequence has changed.
    pub fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<&[f32], ModelError> {
        let segments = self.check(rows)?;
        let wanted: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].logits).collect();
        self.scratch.reserve(&self.model.widths, rows.len(), wanted.len())?;
        for s in &segments {
            self.kv.reserve(s.sequence, s.tokens)?;
        }
        let model = Arc::clone(&self.model);
        let positions: Vec<usize> = rows.iter().map(|r| r.position as usize).collect();
        let ropes = model.ropes.angles(&positions);
        let (pool, unpacked) = match &self.prefill {
            Some(prefill) if rows.len() >= PREFILL => prefill,
            _ => &self.decode,
        };
        let mut pass = Pass {
            model: &model,
            worker: Worker { cpu: model.cpu, pool, cancel, unpacked },
            scratch: &mut self.scratch,
            kv: &mut self.kv,
            segments: &segments,
            ropes: &ropes,
            tokens: rows.len(),
            hidden_stride: model.config.hidden.next_multiple_of(16),
        };
        embed(&mut pass, rows);
        let tokens = pass.layers(&wanted)?;
        if tokens > 0 {
            pass.norm(&model.weights.output_norm, tokens);
            output(&mut pass, tokens)?;
        }
        for s in &segments {
            self.kv.commit(s.sequence, s.tokens);
        }
        Ok(&self.scratch.logits[..tokens * model.config.vocab_size])
    }

    /// Bytes that a pass over `rows` reads: weights once (of experts those that so many tokens choose at most), and the KV cache of
    /// every sequence.
    pub fn bytes_read(&self, rows: &[Row]) -> usize {
        let mut last: Vec<&Row> = Vec::new();
        for row in rows {
            match last.last_mut() {
                Some(l) if l.sequence == row.sequence => *l = row,
                _ => last.push(row),
            }
        }
        let kv: usize = last.iter().map(|r| self.kv.shape().bytes_read(r.position as usize)).sum();
        self.model.bytes_read(rows.len()) + kv
    }

    /// Cuts a batch into segments.
    fn check(&self, rows: &[Row]) -> Result<Vec<Segment>, ModelError> {
        let batch = |text: String| Err(ModelError::Batch(text));
        if rows.is_empty() || rows.len() > MAX_ROWS {
            return batch(format!("a batch has 1 to {MAX_ROWS} rows, not {}", rows.len()));
        }
        let mut segments: Vec<Segment> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            if row.token as usize >= self.model.config.vocab_size {
                return batch(format!("token {} is not below the vocabulary size {}", row.token, self.model.config.vocab_size));
            }
            if row.position as usize >= self.model.context_length() {
                return batch(format!("position {} is not below the context length {}", row.position, self.model.context_length()));
            }
            let expected = match segments.last_mut() {
                Some(s) if s.sequence == row.sequence => {
                    s.tokens += 1;
                    s.position + s.tokens - 1
                }
                _ => {
                    let Some(position) = self.kv.len(row.sequence) else {
                        return batch(format!("sequence {} is not open", row.sequence.0));
                    };
                    if segments.iter().any(|s| s.sequence == row.sequence) {
                        return batch(format!("the rows of sequence {} are not side by side", row.sequence.0));
                    }
                    segments.push(Segment { sequence: row.sequence, first: i, tokens: 1, position });
                    position
                }
            };
            if row.position as usize != expected {
                return batch(format!("row {i} is at position {}, but its sequence goes on at {expected}", row.position));
            }
        }
        Ok(segments)
    }
}

fn embed(pass: &mut Pass<'_>, rows: &[Row]) {
    let (model, stride) = (pass.model, pass.hidden_stride);
    pass.scratch.x.resize(rows.len() * stride);
    for_rows(pass.worker.pool, &mut pass.scratch.x, stride, |t, x| {
        x.fill(0.0);
        model.weights.embedding.row(rows[t].token as usize, x);
    });
}

/// Logits of the first `tokens` rows of `scratch.normed`.
fn output(pass: &mut Pass<'_>, tokens: usize) -> Result<(), ModelError> {
    let weights = &pass.model.weights;
    let matrix = weights.output.as_ref().unwrap_or(&weights.embedding);
    let (vocab, stride) = (matrix.rows(), matrix.padded_rows());
    let s = &mut *pass.scratch;
    pass.worker.fill(&mut s.activations, &[matrix], &s.normed, pass.hidden_stride, tokens);
    s.logits.resize(tokens * stride);
    pass.worker.multiply(&[Product::new(matrix, &s.activations, &mut s.logits)])?;
    if stride != vocab {
        for t in 1..tokens {
            s.logits.copy_within(t * stride..t * stride + vocab, t * vocab);
        }
    }
    Ok(())
}
