//! Memory of one forward pass, used again by the next.
use crate::config::{Config, FeedForwardConfig, Mixer};
use fastllm_kernels::activation::Activations;
use fastllm_kernels::attention::{Queries, State, Workspace};
use fastllm_kernels::buffer::AlignedVec;
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
    /// `[tokens, experts]`.
    pub router: AlignedVec<f32>,
    /// `[assignments, hidden]`.
    pub expert_out: AlignedVec<f32>,
    /// `[rows that want them, vocab]`.
    pub logits: AlignedVec<f32>,
    /// Inputs of the matrices.
    pub activations: Activations,
    /// Inputs of the experts.
    pub expert_activations: Vec<Activations>,
    /// One per thread.
    pub workers: Vec<Mutex<Worker>>,
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

    /// Bytes for batches of `tokens` tokens with the logits of one.
    pub fn bytes(config: &Config, tokens: usize) -> usize {
        let mut most = 0;
        for layer in &config.layers {
            let attention = match &layer.mixer {
                Mixer::Attention(a) => {
                    let latent = a.latent.map_or(0, |l| a.heads * (l.nope + l.rope + 2 * l.value));
                    let gates = if a.gated { a.heads * a.dim_k } else { 0 };
                    a.heads * (a.dim_k + a.dim_v) + a.kv_heads * (a.dim_k + a.dim_v) + latent + gates
                }
                Mixer::DeltaNet(d) => 2 * d.channels() + 3 * d.heads * d.dim_v + 2 * d.heads,
            };
            // Quantized inputs take two bytes a channel.
            let dense = |width: usize| 2 * width + width / 2;
            let feed_forward = match &layer.feed_forward {
                FeedForwardConfig::Dense { width } => dense(*width),
                FeedForwardConfig::Experts(e) => {
                    let shared = e.shared.map_or(0, |s| dense(s.width));
                    shared + e.used * (dense(e.width) + config.hidden + config.hidden / 2) + e.count
                }
            };
            most = most.max(attention + feed_forward);
        }
        4 * (tokens * (4 * config.hidden + config.hidden / 2 + most) + config.vocab_size)
    }
}
