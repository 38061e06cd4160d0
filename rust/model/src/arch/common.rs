//! What many families share: readers of the usual keys.
use super::Header;
use crate::ModelError;
use crate::config::{
    Activation, AttentionConfig, Config, ExpertsConfig, FeedForwardConfig, Gating, LayerConfig, Mixer, NormConfig, NormKind, NormNames,
    Pairing, QkNorm, RopeConfig, RopeScaling, Wiring,
};
use crate::error::{invalid, quoted};
use fastllm_kernels::attention::MAX_HEAD;

/// More layers, heads or experts than any model has: keeps sizes that come from a file small.
pub const MOST: usize = 4096;
/// The widest vector: 2^24 channels.
pub const WIDEST: usize = 1 << 24;
/// More positions than any model has.
pub const LONGEST: usize = 1 << 30;

impl Header<'_> {
    /// A decoder whose layers are all alike, with norms before their parts: what families start from.
    pub fn decoder(
        &self,
        norm: NormConfig,
        attention: AttentionConfig,
        rope: RopeConfig,
        feed_forward: FeedForwardConfig,
    ) -> Result<Config, ModelError> {
        let keys = &self.keys;
        let layer = LayerConfig { wiring: Wiring::Sequential, norms: NormNames::PRE, mixer: Mixer::Attention(attention), feed_forward };
        Ok(Config {
            architecture: keys.arch.to_owned(),
            vocab_size: self.tensors.rows("token_embd.weight")?,
            hidden: self.hidden()?,
            context_length: keys.required("context_length", LONGEST)?,
            norm,
            activation: Activation::SwiGlu,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            ropes: vec![rope],
            layers: vec![layer; self.layers()?],
        })
    }

    /// The number of layers. A layer has several tensors, so a count beyond theirs is refused before anything is made of it.
    fn layers(&self) -> Result<usize, ModelError> {
        let (layers, tensors) = (self.keys.required("block_count", MOST)?, self.tensors.count());
        if layers > tensors {
            return invalid!("{}.block_count is {layers}, but the file has {tensors} tensors", self.keys.arch);
        }
        Ok(layers)
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> Result<usize, ModelError> {
        self.keys.required("embedding_length", WIDEST)
    }

    /// Root mean square.
    pub fn rms_norm(&self) -> Result<NormConfig, ModelError> {
        Ok(NormConfig { kind: NormKind::Rms, eps: self.keys.required_positive("attention.layer_norm_rms_epsilon")? })
    }

    /// Mean and variance.
    pub fn layer_norm(&self) -> Result<NormConfig, ModelError> {
        Ok(NormConfig { kind: NormKind::Layer, eps: self.keys.required_positive("attention.layer_norm_epsilon")? })
    }

    /// Attention to all positions, scaled by `1 / sqrt(dim_k)`.
    pub fn attention(&self) -> Result<AttentionConfig, ModelError> {
        let (keys, hidden) = (&self.keys, self.hidden()?);
        let heads = keys.required("attention.head_count", MOST)?;
        let kv_heads = keys.count("attention.head_count_kv", MOST)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return invalid!("{heads} query heads cannot be shared among {kv_heads} key/value heads");
        }
        let dim_k = match keys.count("attention.key_length", MAX_HEAD)? {
            Some(n) => n,
            None if hidden.is_multiple_of(heads) && hidden / heads <= MAX_HEAD => hidden / heads,
            None => return invalid!("a width of {hidden} gives no head size for {heads} heads"),
        };
        let dim_v = keys.count("attention.value_length", MAX_HEAD)?.unwrap_or(dim_k);
        Ok(AttentionConfig {
            heads,
            kv_heads,
            dim_k,
            dim_v,
            scale: 1.0 / (dim_k as f32).sqrt(),
            softcap: None,
            window: None,
            rope: Some(0),
            sinks: false,
            qk_norm: QkNorm::None,
            gated: false,
            latent: None,
        })
    }

    /// `attention.sliding_window`, if there is one; converters write 0 for none.
    pub fn window(&self) -> Result<Option<usize>, ModelError> {
        self.keys.optional_count("attention.sliding_window", LONGEST)
    }

    /// Rotation of `rope.dimension_count` channels, or all `dim_k`.
    pub fn rope(&self, pairing: Pairing, dim_k: usize) -> Result<RopeConfig, ModelError> {
        let keys = &self.keys;
        let dim = keys.count("rope.dimension_count", dim_k)?.unwrap_or(dim_k);
        if dim % 2 != 0 {
            return invalid!("{dim} channels of a head are to rotate, but channels rotate in pairs");
        }
        let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
        let mut magnitude = 1.0;
        let scaling = match keys.text("rope.scaling.type")? {
            None | Some("none") if self.tensors.has("rope_freqs.weight") => RopeScaling::Divisors("rope_freqs.weight"),
            // Files older than the key `rope.scaling.type`.
            None => keys.positive("rope.scale_linear")?.map_or(RopeScaling::None, RopeScaling::Linear),
            Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear(keys.positive("rope.scaling.factor")?.unwrap_or(1.0)),
            Some("yarn") => {
                let factor = keys.positive("rope.scaling.factor")?.unwrap_or(1.0);
                let attention_factor = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
                magnitude = fastllm_kernels::rope::yarn_mscale(f64::from(factor), 1.0) * f64::from(attention_factor);
                let original_context = keys.required("rope.scaling.original_context_length", LONGEST)?;
                // The file's beta keys are not read: converters wrote other numbers than those that models were trained with.
                RopeScaling::Yarn { factor, original_context, beta_fast: 32.0, beta_slow: 1.0, truncate: true }
            }
            Some(other) => {
                return Err(ModelError::Unsupported(format!("{}.rope.scaling.type {} is not supported", keys.arch, quoted(other))));
            }
        };
        Ok(RopeConfig { pairing, dim, base, magnitude, scaling })
    }

    /// A dense network of `feed_forward_length`.
    pub fn dense(&self) -> Result<FeedForwardConfig, ModelError> {
        Ok(FeedForwardConfig::Dense { width: self.keys.required("feed_forward_length", WIDEST)? })
    }

    /// `expert_count` experts, of which `expert_used_count` are used: softmax, no normalisation, nothing shared.
    pub fn experts(&self, width: usize) -> Result<ExpertsConfig, ModelError> {
        let count = self.keys.required("expert_count", MOST)?;
        Ok(ExpertsConfig {
            count,
            used: self.keys.required("expert_used_count", count)?,
            width,
            gating: Gating::Softmax,
            normalise: false,
            scale: 1.0,
            choice_bias: false,
            groups: None,
            shared: None,
        })
    }

    /// `expert_feed_forward_length`.
    pub fn expert_width(&self) -> Result<usize, ModelError> {
        self.keys.required("expert_feed_forward_length", WIDEST)
    }

    /// Whether a tensor of layer 0 is there, without `blk.0.` and `.weight`.
    pub fn first_layer_has(&self, part: &str) -> bool {
        self.tensors.has(&format!("blk.0.{part}.weight"))
    }
}
