//! The weights of a model, in two stages: declared from the header, then loaded.
mod declare;
mod load;
mod tensors;

pub use load::Load;
pub(crate) use tensors::{Tensors, Used};

use crate::config::ExpertsConfig;
use fastllm_gguf::TensorInfo;
use fastllm_kernels::linear::{Linear, WeightType};

/// What weights are made of.
pub trait Stage {
    /// One or several matrices of one shape.
    type Matrix: std::fmt::Debug;
    /// A row of floats.
    type Vector: std::fmt::Debug;
}

/// Names, shapes and types, checked against the header.
#[derive(Debug)]
pub struct Declared;

/// Packed in memory.
#[derive(Debug)]
pub struct Loaded;

impl Stage for Declared {
    type Matrix = MatrixInfo;
    type Vector = VectorInfo;
}

impl Stage for Loaded {
    type Matrix = Linear;
    type Vector = Vec<f32>;
}

/// Matrices of `rows` x `cols` in a file. Experts are several: in one tensor, or in one each.
#[derive(Clone, Debug)]
pub struct MatrixInfo {
    /// Where each matrix is: `rows` rows of a tensor, or, where it is transposed, `cols` rows.
    pub sources: Vec<RowsOf>,
    /// How the weights are stored in memory.
    pub kind: WeightType,
    /// Features out.
    pub rows: usize,
    /// Features in.
    pub cols: usize,
    /// If the file holds the transposed matrices: how.
    pub transposed: Option<WeightType>,
}

impl MatrixInfo {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        // Checked when the matrix was declared.
        Linear::bytes_for(self.kind, self.rows, self.cols, self.sources.len()).unwrap_or(usize::MAX)
    }
}

/// Rows of a tensor from a certain one on.
#[derive(Clone, Debug)]
pub struct RowsOf {
    /// The tensor.
    pub tensor: TensorInfo,
    /// The first row.
    pub first: usize,
}

/// Consecutive floats of a tensor: f32, f16 or bf16.
#[derive(Clone, Debug)]
pub struct VectorInfo {
    /// The tensor.
    pub tensor: TensorInfo,
    /// The first element.
    pub first: usize,
    /// Elements.
    pub len: usize,
}

/// All weights.
#[derive(Debug)]
pub struct Weights<S: Stage> {
    /// `[vocab, hidden]`.
    pub embedding: S::Matrix,
    /// `[vocab, hidden]`; the embedding where absent.
    pub output: Option<S::Matrix>,
    /// `[hidden]`.
    pub output_norm: Norm<S>,
    /// Divisors of the rotary frequencies, `[rope dim / 2]`.
    pub rope_divisors: Option<S::Vector>,
    /// The layers, in order.
    pub layers: Vec<Layer<S>>,
}

/// One layer. The norms are `[hidden]`; see [`crate::config::NormNames`].
#[derive(Debug)]
pub struct Layer<S: Stage> {
    /// Before attention.
    pub attention_norm: Option<Norm<S>>,
    /// What makes queries, keys and values.
    pub attention: Attention<S>,
    /// A logit per head, `[heads]`.
    pub sinks: Option<S::Vector>,
    /// `[hidden, channels that come out]`.
    pub o: Projection<S>,
    /// On the output of attention.
    pub post_attention_norm: Option<Norm<S>>,
    /// Before the feed-forward network.
    pub feed_forward_norm: Option<Norm<S>>,
    /// What follows attention.
    pub feed_forward: FeedForward<S>,
    /// On the output of the feed-forward network.
    pub post_feed_forward_norm: Option<Norm<S>>,
}

/// Weights and perhaps a bias of a norm.
#[derive(Debug)]
pub struct Norm<S: Stage> {
    /// One per channel.
    pub weight: S::Vector,
    /// One per channel.
    pub bias: Option<S::Vector>,
}

/// What makes queries, keys and values.
#[derive(Debug)]
pub enum Attention<S: Stage> {
    /// A projection each.
    Heads(Heads<S>),
    /// Multi-head latent attention.
    Latent(Latent<S>),
    /// No attention at all, but a recurrence.
    DeltaNet(DeltaNet<S>),
}

/// Projections to the heads.
#[derive(Debug)]
pub struct Heads<S: Stage> {
    /// `[heads * dim_k, hidden]`; twice that with gates.
    pub q: Projection<S>,
    /// `[kv_heads * dim_k, hidden]`.
    pub k: Projection<S>,
    /// `[kv_heads * dim_v, hidden]`.
    pub v: Projection<S>,
    /// See [`crate::config::QkNorm`].
    pub q_norm: Option<Norm<S>>,
    /// The same for keys.
    pub k_norm: Option<Norm<S>>,
}

/// Multi-head latent attention; see [`crate::config::LatentConfig`].
#[derive(Debug)]
pub struct Latent<S: Stage> {
    /// `[q_rank, hidden]` and the norm of what comes out.
    pub q_a: Option<(S::Matrix, Norm<S>)>,
    /// `[heads * (nope + rope), q_rank]`, or from `hidden` where queries are not compressed.
    pub q_b: S::Matrix,
    /// `[rank + rope, hidden]`.
    pub kv_a: S::Matrix,
    /// `[rank]`.
    pub kv_a_norm: Norm<S>,
    /// Heads times `[rank, nope]`.
    pub k_b: S::Matrix,
    /// Heads times `[value, rank]`.
    pub v_b: S::Matrix,
}

/// A gated delta net; see [`crate::config::DeltaNetConfig`].
#[derive(Debug)]
pub struct DeltaNet<S: Stage> {
    /// Queries, keys and values: `[channels, hidden]`.
    pub qkv: S::Matrix,
    /// `[heads * dim_v, hidden]`: multiplies the output, after SiLU.
    pub gate: S::Matrix,
    /// What `beta` and `decay` are made of, by [`crate::config::HeadOrder`]. Grouped: `[2 * heads, hidden]`, for each key head `beta` of
    /// its value heads, then `decay`. Tiled: `[heads, hidden]`, `beta` alone.
    pub beta_decay: S::Matrix,
    /// `[heads, hidden]`: what `decay` is made of, where it is not in `beta_decay`.
    pub decay_input: Option<S::Matrix>,
    /// `[channels, kernel]`.
    pub convolution: S::Vector,
    /// `[heads]`: multiplies the time step, below 0.
    pub decay: S::Vector,
    /// `[heads]`: added to the time step.
    pub time_step: S::Vector,
    /// `[dim_v]`.
    pub norm: Norm<S>,
}

/// A matrix and perhaps a bias.
#[derive(Debug)]
pub struct Projection<S: Stage> {
    /// `[out, in]`.
    pub weight: S::Matrix,
    /// `[out]`.
    pub bias: Option<S::Vector>,
}

/// The feed-forward part of a layer.
#[derive(Debug)]
pub enum FeedForward<S: Stage> {
    /// One network for all tokens.
    Dense(Mlp<S>),
    /// A few of many for each token.
    Experts(Experts<S>),
}

/// `down(activation(gate(x), up(x)))`.
#[derive(Debug)]
pub struct Mlp<S: Stage> {
    /// `[width, hidden]`.
    pub gate: Option<Projection<S>>,
    /// `[width, hidden]`.
    pub up: Projection<S>,
    /// `[hidden, width]`.
    pub down: Projection<S>,
}

/// A mixture of experts.
#[derive(Debug)]
pub struct Experts<S: Stage> {
    /// How tokens choose.
    pub config: ExpertsConfig,
    /// `[experts, hidden]`.
    pub router: Projection<S>,
    /// Added to the scores for the choice, `[experts]`.
    pub choice_bias: Option<S::Vector>,
    /// Experts times `[width, hidden]`, biases `[experts, width]`.
    pub gate: Projection<S>,
    /// Experts times `[width, hidden]`, biases `[experts, width]`.
    pub up: Projection<S>,
    /// Experts times `[hidden, width]`, biases `[experts, hidden]`.
    pub down: Projection<S>,
    /// What every token goes through.
    pub shared: Option<Shared<S>>,
}

/// A network that every token goes through.
#[derive(Debug)]
pub struct Shared<S: Stage> {
    /// The network.
    pub mlp: Mlp<S>,
    /// `[1, hidden]`: the sigmoid of the product multiplies the network's output.
    pub gate: Option<S::Matrix>,
}

/// How much of a matrix a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All of it.
    All,
    /// This many of its matrices for each row.
    PerRow(usize),
}

impl Weights<Declared> {
    /// Bytes of all matrices in memory.
    pub fn bytes(&self) -> usize {
        self.matrices().fold(0, |n, m| n.saturating_add(m.bytes()))
    }
}

impl<S: Stage> Weights<S> {
    /// All matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &S::Matrix> {
        let layers = self.layers.iter().flat_map(|l| l.matrices().into_iter().map(|(m, _)| m));
        std::iter::once(&self.embedding).chain(layers).chain(&self.output)
    }
}

impl<S: Stage> Layer<S> {
    /// The matrices of the layer.
    pub fn matrices(&self) -> Vec<(&S::Matrix, Reads)> {
        let mut all = vec![&self.o.weight];
        match &self.attention {
            Attention::Heads(h) => all.extend([&h.q.weight, &h.k.weight, &h.v.weight]),
            Attention::Latent(l) => {
                all.extend([&l.q_b, &l.kv_a, &l.k_b, &l.v_b]);
                all.extend(l.q_a.as_ref().map(|q| &q.0));
            }
            Attention::DeltaNet(d) => {
                all.extend([&d.qkv, &d.gate, &d.beta_decay]);
                all.extend(&d.decay_input);
            }
        }
        let mut experts = Vec::new();
        match &self.feed_forward {
            FeedForward::Dense(mlp) => all.extend(mlp.matrices()),
            FeedForward::Experts(e) => {
                all.push(&e.router.weight);
                if let Some(shared) = &e.shared {
                    all.extend(shared.mlp.matrices());
                    all.extend(&shared.gate);
                }
                experts.extend([&e.gate, &e.up, &e.down].map(|p| (&p.weight, Reads::PerRow(e.config.used))));
            }
        }
        all.into_iter().map(|m| (m, Reads::All)).chain(experts).collect()
    }
}

impl<S: Stage> Mlp<S> {
    fn matrices(&self) -> impl Iterator<Item = &S::Matrix> {
        self.gate.iter().chain([&self.up, &self.down]).map(|p| &p.weight)
    }
}
