//! What many families share: readers of the usual keys.
use super::{Header, Keys};
use crate::ModelError;
use crate::config::{
    Activation, AttentionConfig, Config, ExpertsConfig, FeedForwardConfig, Gating, LayerConfig, Mixer, NormConfig, NormKind, NormNames,
    Pairing, QkNorm, RopeConfig, RopeScaling, Wiring,
};
use crate::error::{invalid, quoted};
use crate::weights::Tensors;
use fastllm_kernels::attention::MAX_HEAD;
use std::ops::Range;

/// More layers, heads or experts than any model has: keeps sizes that come from a file small.
pub const MOST: usize = 4096;
/// The widest vector: 2^24 channels.
pub const WIDEST: usize = 1 << 24;
/// More positions than any model has.
pub const LONGEST: usize = 1 << 30;

/// Blocks of a file: the layers of the decoder, and behind them those of a multi-token-prediction tail, which a plain decoder skips.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Layers of the decoder.
    pub layers: usize,
    /// All blocks: what `block_count` says, and the length of arrays with an entry for each.
    pub count: usize,
}

impl Blocks {
    /// The blocks of the tail.
    pub fn tail(&self) -> Range<usize> {
        self.layers..self.count
    }
}

/// Which layers have a window.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Positions that a query sees there, itself included; `None` is all.
    pub window: Option<usize>,
    /// Of each layer, whether it has the window.
    pub layers: Vec<bool>,
}

impl Header<'_> {
    /// A decoder whose layers are all alike but for the counts that a file may give for each layer, with norms before their parts: what
    /// families start from.
    pub fn decoder(
        &self,
        norm: NormConfig,
        attention: AttentionConfig,
        rope: RopeConfig,
        feed_forward: FeedForwardConfig,
    ) -> Result<Config, ModelError> {
        let keys = &self.keys;
        let layer = LayerConfig { wiring: Wiring::Sequential, norms: NormNames::PRE, mixer: Mixer::Attention(attention), feed_forward };
        let mut config = Config {
            architecture: keys.arch().to_owned(),
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
            layers: vec![layer; self.blocks.layers],
        };
        self.counts_of_layers(&mut config)?;
        Ok(config)
    }

    /// Gives each layer its heads and the width of its dense network.
    fn counts_of_layers(&self, config: &mut Config) -> Result<(), ModelError> {
        let heads = self.per_layer("attention.head_count", MOST)?;
        let kv_heads = self.per_layer("attention.head_count_kv", MOST)?;
        let dense = config.layers.iter().any(|l| matches!(l.feed_forward, FeedForwardConfig::Dense { .. }));
        let widths = if dense { self.per_layer("feed_forward_length", WIDEST)? } else { None };
        for (i, layer) in config.layers.iter_mut().enumerate() {
            let of = |counts: &Option<Vec<usize>>| counts.as_ref().map(|counts| counts[i]);
            if let Mixer::Attention(a) = &mut layer.mixer {
                a.heads = of(&heads).unwrap_or(a.heads);
                // The keys of compressed attention are of all heads.
                if a.latent.is_none() {
                    a.kv_heads = of(&kv_heads).unwrap_or(a.heads);
                }
                if !a.heads.is_multiple_of(a.kv_heads) {
                    return invalid!("{} query heads cannot be shared among {} key/value heads", a.heads, a.kv_heads);
                }
            }
            if let FeedForwardConfig::Dense { width } = &mut layer.feed_forward {
                *width = of(&widths).unwrap_or(*width);
            }
        }
        Ok(())
    }

    /// A count for each layer of the decoder.
    pub fn per_layer(&self, name: &str, most: usize) -> Result<Option<Vec<usize>>, ModelError> {
        self.keys.per_layer(name, most, self.blocks.layers, self.blocks.count)
    }

    /// A count that a file may give for each layer: that of the first.
    fn first_count(&self, name: &str, most: usize) -> Result<Option<usize>, ModelError> {
        Ok(self.per_layer(name, most)?.and_then(|counts| counts.first().copied()))
    }

    /// The same where it must be there, and the same for all layers.
    pub fn uniform(&self, name: &str, most: usize) -> Result<usize, ModelError> {
        let Some(counts) = self.per_layer(name, most)? else { return self.keys.required(name, most) };
        if counts.iter().any(|n| *n != counts[0]) {
            let (key, arch) = (self.keys.name(name), self.keys.arch());
            return Err(ModelError::Unsupported(format!(
                "{key} differs from layer to layer, which is not supported for the architecture {arch}"
            )));
        }
        Ok(counts[0])
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

    /// Query heads of the first layer.
    pub fn heads(&self) -> Result<usize, ModelError> {
        match self.first_count("attention.head_count", MOST)? {
            Some(heads) => Ok(heads),
            None => self.keys.required("attention.head_count", MOST),
        }
    }

    /// Attention of the first layer to all positions, scaled by `attention.scale` or `1 / sqrt(dim_k)`.
    pub fn attention(&self) -> Result<AttentionConfig, ModelError> {
        let (keys, hidden, heads) = (&self.keys, self.hidden()?, self.heads()?);
        let kv_heads = self.first_count("attention.head_count_kv", MOST)?.unwrap_or(heads);
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
            scale: keys.factor("attention.scale")?.unwrap_or(1.0 / (dim_k as f32).sqrt()),
            softcap: None,
            window: None,
            rope: Some(0),
            sinks: false,
            qk_norm: QkNorm::None,
            norm_after_rope: false,
            temperature: None,
            gated: false,
            latent: None,
        })
    }

    /// The window of `attention.sliding_window` (converters write 0 for none), and the layers that have it: those of
    /// `attention.sliding_window_pattern`, which is an array of flags or a period; by default those of `period`. The last layer of a
    /// period sees everything; a period of 0 has none that does.
    pub fn windows(&self, period: usize) -> Result<Windows, ModelError> {
        let (keys, Blocks { layers, count }) = (&self.keys, self.blocks);
        let window = keys.optional_count("attention.sliding_window", LONGEST)?;
        let pattern = "attention.sliding_window_pattern";
        if let Some(layers) = keys.flags(pattern, layers, count)? {
            return Ok(Windows { window, layers });
        }
        let stated = keys.peek(pattern).is_some();
        let period = if stated { keys.optional_count(pattern, MOST)?.unwrap_or(0) } else { period };
        let windowed = |i| period == 0 || i % period != period - 1;
        Ok(Windows { window, layers: (0..layers).map(windowed).collect() })
    }

    /// Rotation of `rope.dimension_count` channels, or all `dim_k`.
    pub fn rope(&self, pairing: Pairing, dim_k: usize) -> Result<RopeConfig, ModelError> {
        let keys = &self.keys;
        let dim = keys.count("rope.dimension_count", dim_k)?.unwrap_or(dim_k);
        if dim % 2 != 0 {
            return invalid!("{dim} channels of a head are to rotate, but channels rotate in pairs");
        }
        let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
        // Whether rotation was trained for a stretched context; one family takes it for a switch, and reads it itself.
        keys.flag("rope.scaling.finetuned")?;
        let (scaling, yarn_magnitude) = self.rope_scaling()?;
        let magnitude = yarn_magnitude * f64::from(keys.factor("rope.scaling.attn_factor")?.unwrap_or(1.0));
        Ok(RopeConfig { pairing, dim, base, magnitude, scaling })
    }

    /// The scaling of frequencies, and what cosines and sines are multiplied by for its sake.
    fn rope_scaling(&self) -> Result<(RopeScaling, f64), ModelError> {
        let keys = &self.keys;
        let factor = keys.factor("rope.scaling.factor")?;
        // In files older than the key `rope.scaling.type`.
        let linear = keys.factor("rope.scale_linear")?;
        let original = keys.optional_count("rope.scaling.original_context_length", LONGEST)?;
        let beta_fast = keys.factor("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0);
        let beta_slow = keys.factor("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0);
        let stretch = factor.or(linear).unwrap_or(1.0);
        let scaling = match keys.text("rope.scaling.type")? {
            None | Some("none") if self.tensors.has("rope_freqs.weight") => {
                if keys.text("rope.scaling.type")?.is_none() && stretch != 1.0 {
                    return Err(ModelError::Unsupported(format!(
                        "the tensor rope_freqs.weight beside a factor of rotation of {stretch} is not supported"
                    )));
                }
                RopeScaling::Divisors("rope_freqs.weight")
            }
            Some("none") => RopeScaling::None,
            None if stretch == 1.0 => RopeScaling::None,
            None | Some("linear") => RopeScaling::Linear(stretch),
            Some("yarn") => {
                let Some(original_context) = original else {
                    return invalid!("the file lacks the key {}", keys.name("rope.scaling.original_context_length"));
                };
                let scaling = RopeScaling::Yarn { factor: stretch, original_context, beta_fast, beta_slow, truncate: true };
                return Ok((scaling, fastllm_kernels::rope::yarn_mscale(f64::from(stretch), 1.0)));
            }
            // The families that have it look for its tensors.
            Some("longrope") if self.tensors.has("rope_factors_long.weight") => RopeScaling::None,
            Some(other) => {
                return Err(ModelError::Unsupported(format!("{} {} is not supported", keys.name("rope.scaling.type"), quoted(other))));
            }
        };
        Ok((scaling, 1.0))
    }

    /// A dense network of `feed_forward_length`.
    pub fn dense(&self) -> Result<FeedForwardConfig, ModelError> {
        match self.first_count("feed_forward_length", WIDEST)? {
            Some(width) => Ok(FeedForwardConfig::Dense { width }),
            None => Ok(FeedForwardConfig::Dense { width: self.keys.required("feed_forward_length", WIDEST)? }),
        }
    }

    /// `expert_count` experts, of which `expert_used_count` are used: softmax, nothing shared. `normalise` is what a file means that
    /// does not say whether weights are renormalised.
    pub fn experts(&self, width: usize, normalise: bool) -> Result<ExpertsConfig, ModelError> {
        let keys = &self.keys;
        let count = keys.required("expert_count", MOST)?;
        // Under either name.
        let stated = keys.flag("expert_weights_norm")?;
        let stated = keys.flag("norm_top_k_prob")?.or(stated);
        Ok(ExpertsConfig {
            count,
            used: keys.required("expert_used_count", count)?,
            width,
            gating: Gating::Softmax,
            normalise: stated.unwrap_or(normalise),
            scale: keys.factor("expert_weights_scale")?.unwrap_or(1.0),
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

/// The layers of a file. A layer has several tensors, so a count beyond theirs is refused before anything is made of it.
pub fn blocks(keys: &Keys, tensors: Tensors<'_>) -> Result<Blocks, ModelError> {
    let (count, tensors) = (keys.required("block_count", MOST)?, tensors.count());
    let tail = keys.optional_count("nextn_predict_layers", MOST)?.unwrap_or(0);
    if count > tensors {
        return invalid!("{} is {count}, but the file has {tensors} tensors", keys.name("block_count"));
    }
    if tail >= count {
        return invalid!("{} is {tail}, but the file has {count} blocks in all", keys.name("nextn_predict_layers"));
    }
    Ok(Blocks { layers: count - tail, count })
}

/// Gives layers with a window that window.
pub fn set_windows(config: &mut Config, windows: &Windows) {
    for (layer, windowed) in config.layers.iter_mut().zip(&windows.layers) {
        if let (Mixer::Attention(a), true) = (&mut layer.mixer, windowed) {
            a.window = windows.window;
        }
    }
}

/// Layers that see everything do not rotate.
pub fn rotate_windows_only(config: &mut Config, windows: &Windows) {
    for (layer, windowed) in config.layers.iter_mut().zip(&windows.layers) {
        if let (Mixer::Attention(a), false) = (&mut layer.mixer, windowed) {
            a.rope = None;
        }
    }
}
