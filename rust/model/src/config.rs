//! Architecture as data: everything that the graph needs to know about a model, beside its weights.

pub use fastllm_kernels::rope::Pairing;

/// A decoder-only transformer.
#[derive(Clone, Debug)]
pub struct Config {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// The layers, in order.
    pub layers: Vec<LayerConfig>,
    /// Kinds of rotary embedding; layers refer to them by index.
    pub ropes: Vec<RopeConfig>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerConfig {
    /// Attention.
    pub attention: AttentionConfig,
    /// What follows it.
    pub feed_forward: FeedForwardConfig,
}

/// Attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads: a divisor of `heads`.
    pub kv_heads: usize,
    /// Channels of a key (and query) head.
    pub dim_k: usize,
    /// Channels of a value head.
    pub dim_v: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// A query sees this many positions, itself included; `None` is all.
    pub window: Option<usize>,
    /// Index of the rotary embedding.
    pub rope: usize,
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub enum FeedForwardConfig {
    /// `down(silu(gate(x)) * up(x))`.
    Dense {
        /// Width between the matrices.
        width: usize,
    },
    /// A mixture of experts.
    Experts(ExpertsConfig),
}

/// A mixture of experts: softmax over all, the best `used` of them, their weights renormalised to sum 1.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsConfig {
    /// Experts in all.
    pub count: usize,
    /// Experts per token.
    pub used: usize,
    /// Width of an expert between its matrices.
    pub width: usize,
}

/// A rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which channels rotate together.
    pub pairing: Pairing,
    /// Channels that rotate: even, at most the head.
    pub dim: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies differ from `base^(-2i / dim)`.
    pub scaling: RopeScaling,
}

/// A stretch of rotary frequencies over a longer context.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All frequencies divided by a factor.
    Linear(f32),
    /// Every frequency has its own divisor, in the tensor `rope_freqs.weight` (Llama 3).
    Divisors,
    /// YaRN (Peng et al. 2023): low frequencies are divided, high ones kept, those between blended.
    Yarn {
        /// Stretch of the context.
        factor: f32,
        /// Positions of the original training.
        original_context: usize,
        /// Multiplies cos and sin beside YaRN's own `1 + 0.1 ln(factor)`.
        attention_factor: f32,
        /// Rotations from which on a frequency is kept.
        beta_fast: f32,
        /// Rotations up to which a frequency is divided.
        beta_slow: f32,
    },
}
