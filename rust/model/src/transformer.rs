//! The forward pass: tokens to logits, layer by layer.
use crate::batch::{Row, SequenceId};
use crate::config::{NormConfig, NormKind, Wiring};
use crate::kv_cache::{CacheShape, KvCache};
use crate::ropes::RopeAngles;
use crate::scratch::Scratch;
use crate::weights::{FeedForward, Loaded, Norm, Projection};
use crate::{Model, ModelError, attention, feed_forward, moe};
use fastllm_kernels::activation::{Activations, Forms};
use fastllm_kernels::buffer::AlignedVec;
use fastllm_kernels::elementwise::{add_assign, add_scaled, scale, soft_cap};
use fastllm_kernels::linear::{self, Linear, Product};
use fastllm_kernels::pool::Pool;
use fastllm_kernels::rms_norm::{layer_norm, rms_norm};
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
    pub fn fill(&self, out: &mut Activations, matrices: &[&Linear], x: &[f32], stride: usize, tokens: usize) -> Result<(), ModelError> {
        let cols = matrices[0].cols();
        self.fill_parts(out, matrices, &[tokens], cols, |t| &x[t * stride..][..cols])
    }

    /// Prepares rows of parts of so many tokens for some matrices.
    pub fn fill_parts<'x>(
        &self,
        out: &mut Activations,
        matrices: &[&Linear],
        parts: &[usize],
        cols: usize,
        row: impl Fn(usize) -> &'x [f32] + Sync,
    ) -> Result<(), ModelError> {
        Ok(out.fill(self.cpu, self.pool, parts, cols, forms(matrices), row)?)
    }

    /// Prepares the first columns of `rows` of parts of so many tokens for a matrix, after `last(token, row)`.
    pub fn fill_in_place(
        &self,
        out: &mut Activations,
        matrix: &Linear,
        parts: &[usize],
        rows: (&mut [f32], usize),
        last: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<(), ModelError> {
        Ok(out.fill_in_place(self.cpu, self.pool, parts, matrix.cols(), forms(&[matrix]), rows, last)?)
    }
}

/// The forms of activations that some matrices want.
fn forms(matrices: &[&Linear]) -> Forms {
    matrices.iter().map(|m| m.kind().form()).fold(Forms::default(), Forms::and)
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
    pub fn project(&mut self, p: &Projection<Loaded>, flow: Flow, stride: usize, tokens: usize) -> Result<(), ModelError> {
        let (x, activations, _) = flow(self.scratch);
        self.worker.fill(activations, &[&p.weight], x, stride, tokens)?;
        self.project_prepared(p, flow, tokens)
    }

    /// The same once the activations are prepared.
    pub fn project_prepared(&mut self, p: &Projection<Loaded>, flow: Flow, tokens: usize) -> Result<(), ModelError> {
        let (_, activations, y) = flow(self.scratch);
        y.resize(tokens * p.weight.padded_rows());
        self.worker.multiply(&[Product::new(&p.weight, activations, y)])?;
        if p.bias.is_some() {
            let cpu = self.worker.cpu;
            for_rows(self.worker.pool, y, p.weight.padded_rows(), |_, y| add_bias(cpu, p.bias.as_deref(), y));
        }
        Ok(())
    }

    /// `normed = norm(x)`, or just `x`.
    fn norm(&mut self, norm: Option<&Norm<Loaded>>, tokens: usize) {
        let (cpu, config, stride) = (self.worker.cpu, self.model.config.norm, self.hidden_stride);
        let s = &mut *self.scratch;
        s.normed.resize(tokens * stride);
        match norm {
            None => s.normed.copy_from_slice(&s.x[..tokens * stride]),
            Some(norm) => normalise_rows(cpu, self.worker.pool, config, norm, &s.x, &mut s.normed, stride),
        }
    }

    /// `x += residual_scale * norm(block)`.
    fn add_block(&mut self, norm: Option<&Norm<Loaded>>, tokens: usize) {
        let (cpu, pool, stride, config) = (self.worker.cpu, self.worker.pool, self.hidden_stride, &self.model.config);
        let s = &mut *self.scratch;
        if let Some(norm) = norm {
            s.other.resize(tokens * stride);
            normalise_rows(cpu, pool, config.norm, norm, &s.block, &mut s.other, stride);
            std::mem::swap(&mut s.block, &mut s.other);
        }
        let (block, factor) = (&s.block, config.residual_scale);
        for_rows(pool, &mut s.x[..tokens * stride], stride, |t, x| {
            let block = &block[t * stride..][..stride];
            if factor == 1.0 { add_assign(cpu, x, block) } else { add_scaled(cpu, x, factor, block) }
        });
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
        for (i, (layer, config)) in model.weights.layers.iter().zip(&model.config.layers).enumerate() {
            self.norm(layer.attention_norm.as_ref(), tokens);
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
                Self::keep_rows(&mut self.scratch.normed, self.hidden_stride, wanted);
            }
            self.project(&layer.o, |s| (&s.attended, &mut s.activations, &mut s.block), attended, tokens)?;
            match config.wiring {
                Wiring::Sequential => {
                    self.add_block(layer.post_attention_norm.as_ref(), tokens);
                    self.norm(layer.feed_forward_norm.as_ref(), tokens);
                }
                Wiring::Parallel => {
                    // Without a norm of its own the network reads what attention read, which is still there.
                    if layer.feed_forward_norm.is_some() {
                        self.norm(layer.feed_forward_norm.as_ref(), tokens);
                    }
                    self.add_block(layer.post_attention_norm.as_ref(), tokens);
                }
            }
            match &layer.feed_forward {
                FeedForward::Dense(mlp) => feed_forward::forward(self, mlp, tokens)?,
                FeedForward::Experts(experts) => moe::forward(self, experts, tokens)?,
            }
            self.add_block(layer.post_feed_forward_norm.as_ref(), tokens);
        }
        Ok(tokens)
    }
}

/// `out = norm(x)`, row by row of `stride` floats; what is beyond the norm's width stays.
fn normalise_rows(cpu: Cpu, pool: &Pool, config: NormConfig, norm: &Norm<Loaded>, x: &[f32], out: &mut [f32], stride: usize) {
    let width = norm.weight.len();
    for_rows(pool, out, stride, |t, out| normalise(cpu, config, norm, &x[t * stride..][..width], &mut out[..width]));
}

/// `out = norm(x)`.
pub(crate) fn normalise(cpu: Cpu, config: NormConfig, norm: &Norm<Loaded>, x: &[f32], out: &mut [f32]) {
    match config.kind {
        NormKind::Rms => rms_norm(cpu, x, &norm.weight, config.eps, out),
        NormKind::Layer => layer_norm(cpu, x, &norm.weight, norm.bias.as_deref(), config.eps, out),
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

    /// A new sequence that begins with the first `len` positions of another: [`KvCache::fork`].
    ///
    /// # Errors
    /// If so many positions were not kept, or there is no memory.
    pub fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, ModelError> {
        self.kv.fork(sequence, len)
    }

    /// Drops the positions from `len` on: [`KvCache::truncate`].
    ///
    /// # Errors
    /// If so many positions were not kept.
    pub fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), ModelError> {
        self.kv.truncate(sequence, len)
    }

    /// Gives an empty sequence the next piece of a saved state: [`KvCache::restore`].
    ///
    /// # Errors
    /// If the piece is none of a state of this model, or memory is short.
    pub fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, ModelError> {
        self.kv.restore(sequence, index, piece)
    }

    /// Frees memory that no sequence uses until the caches hold at most `bytes`, as far as it goes.
    pub fn shrink(&mut self, bytes: usize) {
        self.kv.shrink(bytes);
    }

    /// Runs `rows` (at most [`MAX_ROWS`]; those of a sequence side by side, from its end on) and returns the logits of the rows that ask
    /// for them, `[rows, vocab]`. `cancel`, once set, stays set until this returns.
    ///
    /// # Errors
    /// If the batch cannot be run, memory is short, cached weights are damaged, or `cancel` is set; then no sequence has changed.
    pub fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<&[f32], ModelError> {
        self.model.check_cache()?;
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
            pass.norm(Some(&model.weights.output_norm), tokens);
            output(&mut pass, tokens)?;
        }
        // Found meanwhile: then these logits are not given out.
        model.check_cache()?;
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

    /// Bytes that the caches would grow by in a pass over `rows`.
    pub fn growth(&self, rows: &[Row]) -> usize {
        self.kv.growth(rows.chunk_by(|a, b| a.sequence == b.sequence).map(|rows| (rows[0].sequence, rows.len())))
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
        if model.config.embedding_scale != 1.0 {
            scale(model.cpu, x, model.config.embedding_scale);
        }
    });
}

/// Logits of the first `tokens` rows of `scratch.normed`.
fn output(pass: &mut Pass<'_>, tokens: usize) -> Result<(), ModelError> {
    let weights = &pass.model.weights;
    let matrix = weights.output.as_ref().unwrap_or(&weights.embedding);
    let (vocab, stride) = (matrix.rows(), matrix.padded_rows());
    let s = &mut *pass.scratch;
    pass.worker.fill(&mut s.activations, &[matrix], &s.normed, pass.hidden_stride, tokens)?;
    s.logits.resize(tokens * stride);
    pass.worker.multiply(&[Product::new(matrix, &s.activations, &mut s.logits)])?;
    let (cpu, config) = (pass.worker.cpu, &pass.model.config);
    if config.logit_scale != 1.0 {
        for_rows(pass.worker.pool, &mut s.logits, stride, |_, row| scale(cpu, row, config.logit_scale));
    }
    if let Some(cap) = config.logit_softcap {
        for_rows(pass.worker.pool, &mut s.logits, stride, |_, row| soft_cap(cpu, row, cap));
    }
    if stride != vocab {
        for t in 1..tokens {
            s.logits.copy_within(t * stride..t * stride + vocab, t * vocab);
        }
    }
    Ok(())
}
