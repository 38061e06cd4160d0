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
    /// How vectors are normalised.
    pub norm: NormConfig,
    /// What is between the matrices of feed-forward networks, experts included.
    pub activation: Activation,
    /// Multiplies embeddings.
    pub embedding_scale: f32,
    /// Multiplies what a block adds to the residual stream.
    pub residual_scale: f32,
    /// Multiplies logits.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// The layers, in order.
    pub layers: Vec<LayerConfig>,
    /// Kinds of rotary embedding; layers refer to them by index.
    pub ropes: Vec<RopeConfig>,
}

/// How vectors are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// The formula.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub eps: f32,
}

/// A formula of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square (Zhang and Sennrich, 2019).
    Rms,
    /// Mean and variance (Ba, Kiros and Hinton, 2016), with a bias where the file has one.
    Layer,
}

/// The function of a feed-forward network: of the products with `gate` and `up`, or with `up` alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `gate * sigmoid(gate) * up`.
    SwiGlu,
    /// `gelu(gate) * up` with the tanh form of GELU.
    GegluTanh,
    /// Exact `gelu(up)`: there is no gate.
    Gelu,
    /// gpt-oss: `gate * sigmoid(alpha * gate) * (up + 1)`, with `gate` at most `limit` and `up` within `-limit..=limit`.
    ClampedSwiGlu {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Bound of gate and up.
        limit: f32,
    },
}

impl Activation {
    /// Whether there is a gate.
    pub fn gated(self) -> bool {
        self != Activation::Gelu
    }
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerConfig {
    /// How the parts of the layer are connected.
    pub wiring: Wiring,
    /// Which norms there are.
    pub norms: NormNames,
    /// What mixes positions.
    pub mixer: Mixer,
    /// What follows it.
    pub feed_forward: FeedForwardConfig,
}

impl LayerConfig {
    /// Attention, if that is what mixes positions.
    pub fn attention(&self) -> Option<&AttentionConfig> {
        match &self.mixer {
            Mixer::Attention(a) => Some(a),
            Mixer::DeltaNet(_) => None,
        }
    }
}

/// What mixes positions.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Attention.
    Attention(AttentionConfig),
    /// A recurrence.
    DeltaNet(DeltaNetConfig),
}

impl Mixer {
    /// Channels that come out and go into the output matrix.
    pub fn out(&self) -> usize {
        match self {
            Mixer::Attention(a) => a.heads * a.latent.map_or(a.dim_v, |l| l.value),
            Mixer::DeltaNet(d) => d.heads * d.dim_v,
        }
    }
}

/// A gated delta net (Yang et al., 2024): every head has a matrix `[dim_k, dim_v]`, which each token changes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNetConfig {
    /// Heads of values.
    pub heads: usize,
    /// Heads of queries and keys: a divisor of `heads`.
    pub key_heads: usize,
    /// Channels of a query and key head.
    pub dim_k: usize,
    /// Channels of a value head: a multiple of 16.
    pub dim_v: usize,
    /// Positions that the convolution before it sees, the token's own included.
    pub kernel: usize,
    /// How heads of values and of keys belong together, and how the tensors for `beta` and `decay` are stored.
    pub order: HeadOrder,
}

/// The order of the value heads of a delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// Qwen3-Next: the value heads of a key head are neighbours; `beta` and what `decay` is made of are in one tensor, key head by key head.
    Grouped,
    /// Qwen 3.5: value head `i` belongs to key head `i % key_heads`; a tensor each.
    Tiled,
}

impl DeltaNetConfig {
    /// Channels of all queries, keys and values.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.dim_k + self.heads * self.dim_v
    }

    /// The key head of a value head.
    pub fn key_head(&self, head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => head / (self.heads / self.key_heads),
            HeadOrder::Tiled => head % self.key_heads,
        }
    }

    /// Floats that a sequence keeps for the convolution.
    pub fn history(&self) -> usize {
        (self.kernel - 1) * self.channels()
    }

    /// Floats that a sequence keeps.
    pub fn state(&self) -> usize {
        self.history() + self.heads * self.dim_k * self.dim_v
    }
}

/// How attention and feed-forward network are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// The feed-forward network reads what attention has added to.
    Sequential,
    /// Both read the same input.
    Parallel,
}

/// Tensors of the norms of a layer, without `blk.{i}.` and `.weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NormNames {
    /// Before attention; without one it reads the residual stream as it is.
    pub attention: Option<&'static str>,
    /// On the output of attention.
    pub post_attention: Option<&'static str>,
    /// Before the feed-forward network. Without one the network reads the residual stream as it is, or, where the parts are parallel, what
    /// attention read.
    pub feed_forward: Option<&'static str>,
    /// On the output of the feed-forward network.
    pub post_feed_forward: Option<&'static str>,
}

impl NormNames {
    /// One norm before each part.
    pub const PRE: NormNames =
        NormNames { attention: Some("attn_norm"), post_attention: None, feed_forward: Some("ffn_norm"), post_feed_forward: None };

    /// One norm after each part.
    pub const POST: NormNames = NormNames {
        attention: None,
        post_attention: Some("post_attention_norm"),
        feed_forward: None,
        post_feed_forward: Some("post_ffw_norm"),
    };

    /// One norm before and one after each part.
    pub const SANDWICH: NormNames =
        NormNames { post_attention: Some("post_attention_norm"), post_feed_forward: Some("post_ffw_norm"), ..NormNames::PRE };
}

/// Attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads of the cache: a divisor of `heads`.
    pub kv_heads: usize,
    /// Channels of a key of the cache.
    pub dim_k: usize,
    /// Channels of a value of the cache.
    pub dim_v: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A query sees this many positions, itself included; `None` is all.
    pub window: Option<usize>,
    /// Index of the rotary embedding; `None` is no rotation.
    pub rope: Option<usize>,
    /// Whether the softmax of each head has one more logit, without a value.
    pub sinks: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether these norms act after rotation instead of before.
    pub norm_after_rope: bool,
    /// What queries are multiplied by, by their positions.
    pub temperature: Option<Temperature>,
    /// Whether every query head has a gate, whose sigmoid multiplies the head's output; it follows the head's query in `attn_q`.
    pub gated: bool,
    /// Multi-head latent attention, where queries, keys and values come from projections to fewer channels.
    pub latent: Option<LatentConfig>,
}

/// A temperature of attention that grows with the position (Llama 4, Ministral 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// Multiplies the logarithm.
    pub scale: f32,
    /// Positions for which the factor stays the same.
    pub length: usize,
}

impl Temperature {
    /// What the query at `position` is multiplied by: `1 + scale * ln(1 + floor(position / length))`.
    pub fn factor(&self, position: usize) -> f32 {
        (1.0 + f64::from(self.scale) * ((position / self.length) as f64).ln_1p()) as f32
    }
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of every head, with the same weights for all, `[dim_k]`.
    Head,
    /// Of every head, with weights of its own, `[heads, dim_k]`.
    EachHead,
    /// Of all heads together, `[heads * dim_k]`.
    Projection,
}

/// Multi-head latent attention (DeepSeek-V2, 2024), in absorbed form: the cache holds one key per position, `rank` compressed channels
/// and the rotated ones, and its first `rank` channels are the value; `k_b` and `v_b` of each head act on queries and on outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentConfig {
    /// Channels that queries are compressed to, if they are.
    pub q_rank: Option<usize>,
    /// Channels that keys and values are compressed to.
    pub rank: usize,
    /// Channels of a query head that are not rotated; they come first.
    pub nope: usize,
    /// Channels of a query head that are rotated.
    pub rope: usize,
    /// Channels of a head's output.
    pub value: usize,
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub enum FeedForwardConfig {
    /// `down(activation(gate(x), up(x)))`.
    Dense {
        /// Width between the matrices.
        width: usize,
    },
    /// A mixture of experts.
    Experts(ExpertsConfig),
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsConfig {
    /// Experts in all.
    pub count: usize,
    /// Experts per token.
    pub used: usize,
    /// Width of an expert between its matrices.
    pub width: usize,
    /// How the router's logits become scores.
    pub gating: Gating,
    /// Whether the scores of the chosen experts are divided by their sum.
    pub normalise: bool,
    /// Multiplies the weights of the chosen experts.
    pub scale: f32,
    /// Whether a bias is added to the scores for the choice (and for that alone).
    pub choice_bias: bool,
    /// Experts are chosen from the best groups only.
    pub groups: Option<ExpertGroups>,
    /// A network that every token goes through besides.
    pub shared: Option<SharedExpert>,
}

/// How the router's logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Each on its own.
    Sigmoid,
    /// Softmax over those that are chosen.
    SoftmaxOfChosen,
}

/// Consecutive experts form groups of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups in all.
    pub count: usize,
    /// Groups that a token may choose from.
    pub used: usize,
    /// A group is worth the sum of this many of its best experts.
    pub best: usize,
}

/// A network that every token goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// Width between the matrices.
    pub width: usize,
    /// Whether its output is multiplied by a sigmoid of the input.
    pub gated: bool,
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
    /// Multiplies cosines and sines.
    pub magnitude: f64,
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
    /// Every frequency has its own divisor, in the tensor of this name (Llama 3, LongRoPE).
    Divisors(&'static str),
    /// YaRN (Peng et al. 2023): low frequencies are divided, high ones kept, those between blended.
    Yarn {
        /// Stretch of the context.
        factor: f32,
        /// Positions of the original training.
        original_context: usize,
        /// Rotations from which on a frequency is kept.
        beta_fast: f32,
        /// Rotations up to which a frequency is divided.
        beta_slow: f32,
        /// Whether the ends of the blend are rounded to whole indices.
        truncate: bool,
    },
}
