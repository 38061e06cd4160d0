//! The weights that a configuration asks for, by their usual names.
use super::{Attention, Declared, DeltaNet, Experts, FeedForward, Heads, Latent, Layer, Mlp, Norm, Projection, Shared, Tensors, Weights};
use crate::ModelError;
use crate::config::{
    AttentionConfig, Config, DeltaNetConfig, ExpertsConfig, FeedForwardConfig, HeadOrder, LatentConfig, LayerConfig, Mixer, NormKind,
    QkNorm, RopeScaling,
};

impl Tensors<'_> {
    /// The weights of a decoder.
    pub fn decoder(self, config: &Config) -> Result<Weights<Declared>, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden);
        let divisors = config.ropes.iter().find_map(|r| match r.scaling {
            RopeScaling::Divisors(name) => Some(self.vector(name, r.dim / 2)),
            _ => None,
        });
        Ok(Weights {
            embedding: self.matrix("token_embd.weight", vocab, hidden)?,
            output: self.optional("output.weight", |name| self.matrix(name, vocab, hidden))?,
            output_norm: self.norm("output_norm", hidden, config.norm.kind)?,
            rope_divisors: divisors.transpose()?,
            layers: config.layers.iter().enumerate().map(|(i, l)| self.layer(i, l, config)).collect::<Result<_, _>>()?,
        })
    }

    fn layer(self, i: usize, config: &LayerConfig, model: &Config) -> Result<Layer<Declared>, ModelError> {
        let hidden = model.hidden;
        let norms = &config.norms;
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = |of: Option<&str>| of.map(|part| self.norm(&name(part), hidden, model.norm.kind)).transpose();
        Ok(Layer {
            attention_norm: norm(norms.attention)?,
            attention: match &config.mixer {
                Mixer::DeltaNet(d) => Attention::DeltaNet(self.delta_net(&name, d, hidden)?),
                Mixer::Attention(a @ AttentionConfig { latent: Some(latent), .. }) => {
                    Attention::Latent(self.latent(&name, a, latent, hidden)?)
                }
                Mixer::Attention(a) => Attention::Heads(self.heads(&name, a, hidden)?),
            },
            sinks: config.attention().filter(|a| a.sinks).map(|a| self.vector(&name("attn_sinks.weight"), a.heads)).transpose()?,
            o: match &config.mixer {
                Mixer::Attention(_) => self.projection(&name("attn_output"), hidden, config.mixer.out())?,
                Mixer::DeltaNet(_) => self.projection(&name("ssm_out"), hidden, config.mixer.out())?,
            },
            post_attention_norm: norm(norms.post_attention)?,
            feed_forward_norm: norm(norms.feed_forward)?,
            feed_forward: match config.feed_forward {
                FeedForwardConfig::Dense { width } => FeedForward::Dense(self.mlp(&name, "", width, model.activation.gated(), hidden)?),
                FeedForwardConfig::Experts(config) => FeedForward::Experts(self.mixture(&name, config, hidden)?),
            },
            post_feed_forward_norm: norm(norms.post_feed_forward)?,
        })
    }

    /// Queries, keys and values in a tensor each or one after the other in `attn_qkv`.
    fn heads(self, name: &dyn Fn(&str) -> String, a: &AttentionConfig, hidden: usize) -> Result<Heads<Declared>, ModelError> {
        let (q, k, v) = (a.heads * a.dim_k * if a.gated { 2 } else { 1 }, a.kv_heads * a.dim_k, a.kv_heads * a.dim_v);
        let fused = name("attn_qkv");
        let [q, k, v] = if self.has(&format!("{fused}.weight")) {
            let part = |first, rows| self.projection_of(&fused, q + k + v, first..first + rows, hidden);
            [part(0, q)?, part(q, k)?, part(q + k, v)?]
        } else {
            let one = |part, rows| self.projection(&name(part), rows, hidden);
            [one("attn_q", q)?, one("attn_k", k)?, one("attn_v", v)?]
        };
        let norm = |part, heads| {
            let weight = format!("{}.weight", name(part));
            let weight = match a.qk_norm {
                QkNorm::None => return Ok(None),
                QkNorm::Head => self.vector(&weight, a.dim_k),
                QkNorm::EachHead => self.vectors(&weight, a.dim_k, heads),
                QkNorm::Projection => self.vector(&weight, heads * a.dim_k),
            };
            weight.map(|weight| Some(Norm { weight, bias: None }))
        };
        Ok(Heads { q, k, v, q_norm: norm("attn_q_norm", a.heads)?, k_norm: norm("attn_k_norm", a.kv_heads)? })
    }

    fn latent(
        self,
        name: &dyn Fn(&str) -> String,
        a: &AttentionConfig,
        config: &LatentConfig,
        hidden: usize,
    ) -> Result<Latent<Declared>, ModelError> {
        let LatentConfig { q_rank, rank, nope, rope, value } = *config;
        let q_rows = a.heads * (nope + rope);
        let (q_a, q_b) = match q_rank {
            Some(q_rank) => {
                let q_a =
                    (self.matrix(&name("attn_q_a.weight"), q_rank, hidden)?, self.norm(&name("attn_q_a_norm"), q_rank, NormKind::Rms)?);
                (Some(q_a), self.matrix(&name("attn_q_b.weight"), q_rows, q_rank)?)
            }
            None => (None, self.matrix(&name("attn_q.weight"), q_rows, hidden)?),
        };
        // Older files hold both in one matrix: of each head the rows for keys, which act the other way round here, then those for values.
        let both = name("attn_kv_b.weight");
        let (k_b, v_b) = if self.has(&both) && !self.has(&name("attn_k_b.weight")) {
            let keys = self.head_rows(&both, a.heads, nope + value, 0..nope, rank)?;
            (Tensors::transpose(keys)?, self.head_rows(&both, a.heads, nope + value, nope..nope + value, rank)?)
        } else {
            (self.stack(&name("attn_k_b.weight"), a.heads, rank, nope)?, self.stack(&name("attn_v_b.weight"), a.heads, value, rank)?)
        };
        let (kv_a, kv_a_norm) =
            (self.matrix(&name("attn_kv_a_mqa.weight"), rank + rope, hidden)?, self.norm(&name("attn_kv_a_norm"), rank, NormKind::Rms)?);
        Ok(Latent { q_a, q_b, kv_a, kv_a_norm, k_b, v_b })
    }

    fn delta_net(self, name: &dyn Fn(&str) -> String, d: &DeltaNetConfig, hidden: usize) -> Result<DeltaNet<Declared>, ModelError> {
        let (beta_decay, decay_input) = match d.order {
            HeadOrder::Grouped => (self.matrix(&name("ssm_ba.weight"), 2 * d.heads, hidden)?, None),
            HeadOrder::Tiled => {
                let alpha = self.matrix(&name("ssm_alpha.weight"), d.heads, hidden)?;
                (self.matrix(&name("ssm_beta.weight"), d.heads, hidden)?, Some(alpha))
            }
        };
        Ok(DeltaNet {
            qkv: self.matrix(&name("attn_qkv.weight"), d.channels(), hidden)?,
            gate: self.matrix(&name("attn_gate.weight"), d.heads * d.dim_v, hidden)?,
            beta_decay,
            decay_input,
            convolution: self.vectors(&name("ssm_conv1d.weight"), d.kernel, d.channels())?,
            decay: self.vector(&name("ssm_a"), d.heads)?,
            time_step: self.vector(&name("ssm_dt.bias"), d.heads)?,
            norm: self.norm(&name("ssm_norm"), d.dim_v, NormKind::Rms)?,
        })
    }

    /// `ffn_{gate,up,down}{suffix}`; gate and up may be one after the other in `ffn_up`.
    fn mlp(
        self,
        name: &dyn Fn(&str) -> String,
        suffix: &str,
        width: usize,
        gated: bool,
        hidden: usize,
    ) -> Result<Mlp<Declared>, ModelError> {
        let (gate, up) = (name(&format!("ffn_gate{suffix}")), name(&format!("ffn_up{suffix}")));
        let down = self.projection(&name(&format!("ffn_down{suffix}")), hidden, width)?;
        if !gated {
            return Ok(Mlp { gate: None, up: self.projection(&up, width, hidden)?, down });
        }
        if !self.has(&format!("{gate}.weight")) && self.has(&format!("{up}.weight")) {
            let part = |first| self.projection_of(&up, 2 * width, first..first + width, hidden);
            return Ok(Mlp { gate: Some(part(0)?), up: part(width)?, down });
        }
        Ok(Mlp { gate: Some(self.projection(&gate, width, hidden)?), up: self.projection(&up, width, hidden)?, down })
    }

    fn mixture(self, name: &dyn Fn(&str) -> String, config: ExpertsConfig, hidden: usize) -> Result<Experts<Declared>, ModelError> {
        let ExpertsConfig { count, width, .. } = config;
        let fused = name("ffn_gate_up_exps.weight");
        if self.has(&name("ffn_gate_up_exps.bias")) {
            return Err(ModelError::Unsupported(format!("the tensor {} is not supported", name("ffn_gate_up_exps.bias"))));
        }
        let (gate, up) = if self.has(&fused) {
            let part = |first| {
                Ok::<_, ModelError>(Projection {
                    weight: self.stack_of(&fused, count, 2 * width, first..first + width, hidden)?,
                    bias: None,
                })
            };
            (part(0)?, part(width)?)
        } else {
            (self.experts(&name("ffn_gate"), count, width, hidden)?, self.experts(&name("ffn_up"), count, width, hidden)?)
        };
        let shared = |shared: crate::config::SharedExpert| {
            Ok::<_, ModelError>(Shared {
                mlp: self.mlp(name, "_shexp", shared.width, true, hidden)?,
                gate: shared.gated.then(|| self.matrix(&name("ffn_gate_inp_shexp.weight"), 1, hidden)).transpose()?,
            })
        };
        Ok(Experts {
            config,
            router: self.projection(&name("ffn_gate_inp"), count, hidden)?,
            choice_bias: config.choice_bias.then(|| self.vector(&name("exp_probs_b.bias"), count)).transpose()?,
            gate,
            up,
            down: self.experts(&name("ffn_down"), count, hidden, width)?,
            shared: config.shared.map(shared).transpose()?,
        })
    }

    /// `count` matrices in one tensor `{prefix}_exps.weight`, or in one each, `{prefix}.{i}.weight`; perhaps with biases.
    fn experts(self, prefix: &str, count: usize, rows: usize, cols: usize) -> Result<Projection<Declared>, ModelError> {
        if rows.min(cols) < 16 {
            // No model has them, and a file full of them would need many times its size in memory.
            return Err(ModelError::Unsupported(format!("the experts {prefix} are {rows} x {cols}, narrower than 16")));
        }
        let merged = format!("{prefix}_exps.weight");
        let weight = if !self.has(&merged) && self.has(&format!("{prefix}.0.weight")) {
            self.each(|i| format!("{prefix}.{i}.weight"), count, rows, cols)?
        } else {
            self.stack(&merged, count, rows, cols)?
        };
        Ok(Projection { weight, bias: self.optional(&format!("{prefix}_exps.bias"), |name| self.vectors(name, rows, count))? })
    }
}
