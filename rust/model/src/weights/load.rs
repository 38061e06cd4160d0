//! From declared weights to loaded ones.
use super::{
    Attention, Declared, DeltaNet, Experts, FeedForward, Heads, Latent, Layer, Loaded, MatrixInfo, Mlp, Norm, Projection, Shared,
    VectorInfo, Weights,
};
use crate::ModelError;
use fastllm_kernels::linear::Linear;

/// How declared weights become loaded ones.
pub trait Load {
    /// Packs a matrix.
    ///
    /// # Errors
    /// If memory is short or reading fails.
    fn matrix(&mut self, m: &MatrixInfo) -> Result<Linear, ModelError>;
    /// Reads a vector.
    ///
    /// # Errors
    /// If reading fails.
    fn vector(&mut self, v: &VectorInfo) -> Result<Vec<f32>, ModelError>;
}

/// What has a loaded form.
trait Loads {
    type Loaded;
    fn load(&self, load: &mut impl Load) -> Result<Self::Loaded, ModelError>;
}

impl<T: Loads> Loads for Option<T> {
    type Loaded = Option<T::Loaded>;
    fn load(&self, load: &mut impl Load) -> Result<Self::Loaded, ModelError> {
        self.as_ref().map(|x| x.load(load)).transpose()
    }
}

impl Loads for MatrixInfo {
    type Loaded = Linear;
    fn load(&self, load: &mut impl Load) -> Result<Linear, ModelError> {
        load.matrix(self)
    }
}

impl Loads for VectorInfo {
    type Loaded = Vec<f32>;
    fn load(&self, load: &mut impl Load) -> Result<Vec<f32>, ModelError> {
        load.vector(self)
    }
}

impl<A: Loads, B: Loads> Loads for (A, B) {
    type Loaded = (A::Loaded, B::Loaded);
    fn load(&self, load: &mut impl Load) -> Result<Self::Loaded, ModelError> {
        Ok((self.0.load(load)?, self.1.load(load)?))
    }
}

impl Weights<Declared> {
    /// Loads everything, in the order of use.
    ///
    /// # Errors
    /// The first one of `load`.
    pub fn load(&self, load: &mut impl Load) -> Result<Weights<Loaded>, ModelError> {
        Ok(Weights {
            embedding: self.embedding.load(load)?,
            rope_divisors: self.rope_divisors.load(load)?,
            layers: self.layers.iter().map(|l| l.load(load)).collect::<Result<_, _>>()?,
            output_norm: self.output_norm.load(load)?,
            output: self.output.load(load)?,
        })
    }
}

/// `Loads` for structs: every field is loaded.
macro_rules! loads {
    ($($name:ident { $($field:ident),* })*) => { $(
        impl Loads for $name<Declared> {
            type Loaded = $name<Loaded>;
            fn load(&self, load: &mut impl Load) -> Result<$name<Loaded>, ModelError> {
                Ok($name { $($field: self.$field.load(load)?),* })
            }
        }
    )* };
}

loads! {
    Norm { weight, bias }
    Projection { weight, bias }
    Heads { q, k, v, q_norm, k_norm }
    Latent { q_a, q_b, kv_a, kv_a_norm, k_b, v_b }
    DeltaNet { qkv, gate, beta_decay, decay_input, convolution, decay, time_step, norm }
    Mlp { gate, up, down }
    Shared { mlp, gate }
    Layer { attention_norm, attention, sinks, o, post_attention_norm, feed_forward_norm, feed_forward, post_feed_forward_norm }
}

impl Loads for Attention<Declared> {
    type Loaded = Attention<Loaded>;
    fn load(&self, load: &mut impl Load) -> Result<Attention<Loaded>, ModelError> {
        Ok(match self {
            Attention::Heads(x) => Attention::Heads(x.load(load)?),
            Attention::Latent(x) => Attention::Latent(x.load(load)?),
            Attention::DeltaNet(x) => Attention::DeltaNet(x.load(load)?),
        })
    }
}

impl Loads for FeedForward<Declared> {
    type Loaded = FeedForward<Loaded>;
    fn load(&self, load: &mut impl Load) -> Result<FeedForward<Loaded>, ModelError> {
        Ok(match self {
            FeedForward::Dense(x) => FeedForward::Dense(x.load(load)?),
            FeedForward::Experts(e) => FeedForward::Experts(Experts {
                config: e.config,
                router: e.router.load(load)?,
                choice_bias: e.choice_bias.load(load)?,
                gate: e.gate.load(load)?,
                up: e.up.load(load)?,
                down: e.down.load(load)?,
                shared: e.shared.load(load)?,
            }),
        })
    }
}
