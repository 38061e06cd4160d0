//! Memory of one forward pass, used again by the next.
use crate::config::{AttentionConfig, Config, FeedForwardConfig, LayerConfig, Mixer};
use crate::weights::{Declared, Weights};
use fastllm_kernels::activation::{Activations, FormCols};
use fastllm_kernels::attention::{Queries, State, Workspace};
use fastllm_kernels::buffer::{AlignedVec, OutOfMemory};
use fastllm_kernels::linear::UNPACKED_TILED;
use fastllm_simd::ROWS;
use std::sync::Mutex;

/// Activations of a batch; rows of tokens, each padded to whole panels.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The residual stream, `[tokens, hidden]`.
    pub x: AlignedVec<f32>,
    /// A normalised copy, `[tokens, hidden]`.
    pub normed: AlignedVec<f32>,
    /// `[tokens, heads * dim_k]`.
    pub q: AlignedVec<f32>,
    /// `[tokens, kv_heads * dim_k]`.
    pub k: AlignedVec<f32>,
    /// `[tokens, kv_heads * dim_v]`.
    pub v: AlignedVec<f32>,
    /// `[tokens, heads * dim_v]`.
    pub attended: AlignedVec<f32>,
    /// Output of a block, `[tokens, hidden]`.
    pub block: AlignedVec<f32>,
    /// Takes turns with `block`.
    pub other: AlignedVec<f32>,
    /// `[tokens or assignments, width]`.
    pub gate: AlignedVec<f32>,
    /// `[tokens or assignments, width]`.
    pub up: AlignedVec<f32>,
    /// `[tokens, experts]`; in a delta net what `decay` is made of, `[tokens, heads]`.
    pub router: AlignedVec<f32>,
    /// `[assignments, hidden]`.
    pub expert_out: AlignedVec<f32>,
    /// `[rows that want them, vocab]`.
    pub logits: AlignedVec<f32>,
    /// Inputs of the matrices.
    pub activations: Activations,
    /// Inputs of the experts, or of the matrices of heads.
    pub expert_activations: Activations,
    /// One per thread.
    pub workers: Vec<Mutex<Worker>>,
    /// Attention to each chunk of a context that threads share.
    pub chunks: Vec<State>,
}

/// Scratch memory of attention on one thread.
#[derive(Default)]
pub struct Worker {
    /// The operator's.
    pub work: Box<Workspace>,
    /// Query rows of a task.
    pub queries: Queries,
    /// Their running results.
    pub state: State,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Scratch {
    /// For `threads` threads.
    pub fn new(threads: usize) -> Scratch {
        Scratch { workers: (0..threads).map(|_| Mutex::default()).collect(), ..Scratch::default() }
    }

    /// Makes room for a batch of `tokens` tokens, `wanted` of them with logits, so that running out of memory is an error here and not
    /// an abort in its midst. What experts read and what a thread needs is small beside it, and allocated when it is used.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn reserve(&mut self, w: &Widths, tokens: usize, wanted: usize) -> Result<(), OutOfMemory> {
        let floats = [
            (&mut self.x, w.hidden),
            (&mut self.normed, w.hidden),
            (&mut self.block, w.hidden),
            (&mut self.other, w.hidden),
            (&mut self.q, w.q),
            (&mut self.k, w.k),
            (&mut self.v, w.v),
            (&mut self.attended, w.attended),
            (&mut self.gate, w.gate),
            (&mut self.up, w.gate),
            (&mut self.router, w.router),
            (&mut self.expert_out, w.expert_out),
        ];
        for (buffer, width) in floats {
            buffer.reserve(tokens.saturating_mul(width))?;
        }
        self.logits.reserve(wanted.saturating_mul(w.vocab))?;
        self.activations.reserve(tokens, w.forms)
    }

    /// Bytes for batches of `tokens` tokens, `wanted` of them with logits, on `threads` threads.
    pub fn bytes(w: &Widths, tokens: usize, wanted: usize, threads: usize) -> usize {
        let floats = 4 * w.hidden + w.q + w.k + w.v + w.attended + 2 * w.gate + w.router + w.expert_out;
        let floats = tokens.saturating_mul(floats).saturating_add(wanted.saturating_mul(w.vocab));
        // Tiles of few tokens are rounded up to 4.
        let assigned = tokens * w.experts.0 + 3 * w.experts.1.min(tokens * w.experts.0);
        [
            floats.saturating_mul(size_of::<f32>()),
            Activations::bytes(tokens, w.forms),
            Activations::bytes(assigned, w.forms),
            threads.saturating_mul(size_of::<Workspace>() + UNPACKED_TILED),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

/// Floats of a token in each buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Widths {
    hidden: usize,
    q: usize,
    k: usize,
    v: usize,
    attended: usize,
    /// Of all experts of a token together.
    gate: usize,
    router: usize,
    expert_out: usize,
    vocab: usize,
    /// Columns of the widest matrix that wants each form of the activations.
    forms: FormCols,
    /// Experts of a token, and experts in all.
    experts: (usize, usize),
}

impl Widths {
    /// Of a model with these weights.
    pub fn new(config: &Config, weights: &Weights<Declared>) -> Widths {
        let padded = |n: usize| n.next_multiple_of(ROWS);
        let mut w = Widths { hidden: padded(config.hidden), vocab: padded(config.vocab_size), ..Widths::default() };
        for LayerConfig { mixer, feed_forward, .. } in &config.layers {
            w.attended = w.attended.max(padded(mixer.out()));
            match mixer {
                Mixer::Attention(a) => w.attention(a),
                Mixer::DeltaNet(d) => {
                    w.q = w.q.max(padded(d.channels()));
                    w.k = w.k.max(d.channels());
                    w.v = w.v.max(padded(2 * d.heads));
                    w.gate = w.gate.max(padded(d.heads * d.dim_v));
                    w.router = w.router.max(padded(d.heads));
                }
            }
            match feed_forward {
                FeedForwardConfig::Dense { width } => w.gate = w.gate.max(padded(*width)),
                FeedForwardConfig::Experts(e) => {
                    w.gate = w.gate.max(e.used * padded(e.width)).max(padded(e.shared.map_or(0, |s| s.width)));
                    w.router = w.router.max(padded(e.count));
                    w.expert_out = w.expert_out.max(e.used * w.hidden);
                    w.experts = (w.experts.0.max(e.used), w.experts.1.max(e.count));
                }
            }
        }
        for matrix in weights.matrices() {
            w.forms.widen(matrix.kind.form(), matrix.cols);
        }
        w
    }

    fn attention(&mut self, a: &AttentionConfig) {
        let padded = |n: usize| n.next_multiple_of(ROWS);
        self.attended = self.attended.max(padded(a.heads * a.dim_v));
        if let Some(l) = a.latent {
            self.q = self.q.max(a.heads * padded(a.dim_k));
            self.k = self.k.max(padded(a.dim_k));
            let queries = padded(a.heads * (l.nope + l.rope)).max(padded(l.q_rank.unwrap_or(0)));
            self.gate = self.gate.max(queries).max(a.heads * padded(l.value));
            self.experts = (self.experts.0.max(a.heads), self.experts.1.max(a.heads));
        } else {
            self.q = self.q.max(padded(a.heads * a.dim_k * if a.gated { 2 } else { 1 }));
            self.k = self.k.max(padded(a.kv_heads * a.dim_k));
            self.v = self.v.max(padded(a.kv_heads * a.dim_v));
        }
    }
}
