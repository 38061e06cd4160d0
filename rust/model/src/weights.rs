//! The weights of a model, in two stages: declared from the header, then loaded.
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, LayerConfig, RopeScaling};
use crate::error::invalid;
use fastllm_gguf::{GgufFile, TensorInfo};
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
    /// Where the rows of each matrix are.
    pub sources: Vec<RowsOf>,
    /// How the weights are stored.
    pub kind: WeightType,
    /// Features out.
    pub rows: usize,
    /// Features in.
    pub cols: usize,
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

/// A vector in a file: f32, f16 or bf16.
#[derive(Clone, Debug)]
pub struct VectorInfo {
    /// The tensor.
    pub tensor: TensorInfo,
}

/// All weights.
#[derive(Debug)]
pub struct Weights<S: Stage> {
    /// `[vocab, hidden]`.
    pub embedding: S::Matrix,
    /// `[vocab, hidden]`; the embedding where absent.
    pub output: Option<S::Matrix>,
    /// `[hidden]`.
    pub output_norm: S::Vector,
    /// Divisors of the rotary frequencies, `[rope dim / 2]`.
    pub rope_divisors: Option<S::Vector>,
    /// The layers, in order.
    pub layers: Vec<Layer<S>>,
}

/// One layer.
#[derive(Debug)]
pub struct Layer<S: Stage> {
    /// `[hidden]`.
    pub attention_norm: S::Vector,
    /// `[heads * dim_k, hidden]`.
    pub q: Projection<S>,
    /// `[kv_heads * dim_k, hidden]`.
    pub k: Projection<S>,
    /// `[kv_heads * dim_v, hidden]`.
    pub v: Projection<S>,
    /// `[hidden, heads * dim_v]`.
    pub o: Projection<S>,
    /// `[hidden]`.
    pub feed_forward_norm: S::Vector,
    /// What follows attention.
    pub feed_forward: FeedForward<S>,
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

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug)]
pub struct Mlp<S: Stage> {
    /// `[width, hidden]`.
    pub gate: Projection<S>,
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
    pub router: S::Matrix,
    /// Experts times `[width, hidden]`.
    pub gate: S::Matrix,
    /// Experts times `[width, hidden]`.
    pub up: S::Matrix,
    /// Experts times `[hidden, width]`.
    pub down: S::Matrix,
}

/// How declared weights become loaded ones.
pub trait Load {
    /// Packs a matrix.
    ///
    /// # Errors
    /// If it cannot be read, or memory is short.
    fn matrix(&mut self, m: &MatrixInfo) -> Result<Linear, ModelError>;
    /// Reads a vector.
    ///
    /// # Errors
    /// If it cannot be read.
    fn vector(&mut self, v: &VectorInfo) -> Result<Vec<f32>, ModelError>;
}

impl Weights<Declared> {
    /// Loads everything, in the order of use.
    ///
    /// # Errors
    /// The first of `load`.
    pub fn load(&self, load: &mut impl Load) -> Result<Weights<Loaded>, ModelError> {
        Ok(Weights {
            embedding: load.matrix(&self.embedding)?,
            rope_divisors: self.rope_divisors.as_ref().map(|v| load.vector(v)).transpose()?,
            layers: self.layers.iter().map(|l| l.load(load)).collect::<Result<_, _>>()?,
            output_norm: load.vector(&self.output_norm)?,
            output: self.output.as_ref().map(|m| load.matrix(m)).transpose()?,
        })
    }

    /// All matrices.
    pub fn matrices(&self) -> Vec<&MatrixInfo> {
        let mut all = vec![&self.embedding];
        for layer in &self.layers {
            all.extend([&layer.q.weight, &layer.k.weight, &layer.v.weight, &layer.o.weight]);
            match &layer.feed_forward {
                FeedForward::Dense(m) => all.extend([&m.gate.weight, &m.up.weight, &m.down.weight]),
                FeedForward::Experts(e) => all.extend([&e.router, &e.gate, &e.up, &e.down]),
            }
        }
        all.extend(&self.output);
        all
    }
}

impl Layer<Declared> {
    fn load(&self, load: &mut impl Load) -> Result<Layer<Loaded>, ModelError> {
        Ok(Layer {
            attention_norm: load.vector(&self.attention_norm)?,
            q: self.q.load(load)?,
            k: self.k.load(load)?,
            v: self.v.load(load)?,
            o: self.o.load(load)?,
            feed_forward_norm: load.vector(&self.feed_forward_norm)?,
            feed_forward: match &self.feed_forward {
                FeedForward::Dense(m) => {
                    FeedForward::Dense(Mlp { gate: m.gate.load(load)?, up: m.up.load(load)?, down: m.down.load(load)? })
                }
                FeedForward::Experts(e) => FeedForward::Experts(Experts {
                    config: e.config,
                    router: load.matrix(&e.router)?,
                    gate: load.matrix(&e.gate)?,
                    up: load.matrix(&e.up)?,
                    down: load.matrix(&e.down)?,
                }),
            },
        })
    }
}

impl Projection<Declared> {
    fn load(&self, load: &mut impl Load) -> Result<Projection<Loaded>, ModelError> {
        Ok(Projection { weight: load.matrix(&self.weight)?, bias: self.bias.as_ref().map(|v| load.vector(v)).transpose()? })
    }
}

/// Looks tensors up by name and checks their shapes.
pub struct Tensors<'a> {
    file: &'a GgufFile,
}

impl<'a> Tensors<'a> {
    /// The tensors of a file.
    pub fn new(file: &'a GgufFile) -> Self {
        Tensors { file }
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    fn get(&self, name: &str) -> Result<&'a TensorInfo, ModelError> {
        match self.file.tensor(name) {
            Some(t) => Ok(t),
            None => invalid!("the file lacks the tensor {name}"),
        }
    }

    /// The number of rows of a matrix.
    ///
    /// # Errors
    /// If a tensor is absent, has another shape, or a type that is not supported.
    pub fn rows(&self, name: &str) -> Result<usize, ModelError> {
        match *self.get(name)?.dims {
            [_, rows] if rows > 0 && u32::try_from(rows).is_ok() => Ok(rows as usize),
            ref dims => invalid!("the tensor {name} has the shape {dims:?}, but must be a matrix"),
        }
    }

    fn check(&self, name: &str, dims: &[usize]) -> Result<&'a TensorInfo, ModelError> {
        let tensor = self.get(name)?;
        // Trailing dimensions of 1 are often left out or added.
        let mut found = tensor.dims.as_slice();
        while found.len() > dims.len() && found.last() == Some(&1) {
            found = &found[..found.len() - 1];
        }
        if found.len() != dims.len() || !found.iter().zip(dims).all(|(a, b)| *a == *b as u64) {
            return invalid!("the tensor {name} has the shape {:?}, but the metadata ask for {dims:?}", tensor.dims);
        }
        Ok(tensor)
    }

    fn kind(tensor: &TensorInfo, cols: usize, rows: usize, matrices: usize) -> Result<WeightType, ModelError> {
        let (name, dtype) = (&tensor.name, tensor.dtype.name());
        let Some(kind) = WeightType::from_name(dtype) else {
            return Err(ModelError::Unsupported(format!("the tensor {name} has the type {dtype}, which is not supported")));
        };
        if kind.file_row_bytes(cols).is_none() {
            return invalid!("the tensor {name} has rows of {cols}, which are not whole blocks of {dtype}");
        }
        match Linear::bytes_for(kind, rows, cols, matrices) {
            Some(_) => Ok(kind),
            None => invalid!("the tensor {name} is too large"),
        }
    }

    /// A matrix with `cols` features in and `rows` out.
    ///
    /// # Errors
    /// If a tensor is absent, has another shape, or a type that is not supported.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixInfo, ModelError> {
        let tensor = self.check(name, &[cols, rows])?;
        let kind = Self::kind(tensor, cols, rows, 1)?;
        Ok(MatrixInfo { sources: vec![RowsOf { tensor: tensor.clone(), first: 0 }], kind, rows, cols })
    }

    /// `count` matrices in one tensor `{prefix}_exps.weight`, or in one each, `{prefix}.{i}.weight`.
    fn experts(&self, prefix: &str, count: usize, rows: usize, cols: usize) -> Result<MatrixInfo, ModelError> {
        let merged = format!("{prefix}_exps.weight");
        if !self.has(&merged) && self.has(&format!("{prefix}.0.weight")) {
            let each: Vec<_> = (0..count).map(|i| self.matrix(&format!("{prefix}.{i}.weight"), rows, cols)).collect::<Result<_, _>>()?;
            let kind = each[0].kind;
            if let Some(other) = each.iter().find(|m| m.kind != kind) {
                let name = &other.sources[0].tensor.name;
                return Err(ModelError::Unsupported(format!("the tensor {name} differs in type from that of the first expert")));
            }
            let sources = each.into_iter().flat_map(|m| m.sources).collect();
            return Ok(MatrixInfo { sources, kind, rows, cols });
        }
        let tensor = self.check(&merged, &[cols, rows, count])?;
        let kind = Self::kind(tensor, cols, rows, count)?;
        let sources = (0..count).map(|i| RowsOf { tensor: tensor.clone(), first: i * rows }).collect();
        Ok(MatrixInfo { sources, kind, rows, cols })
    }

    /// A vector of `len` floats.
    ///
    /// # Errors
    /// If a tensor is absent, has another shape, or a type that is not supported.
    pub fn vector(&self, name: &str, len: usize) -> Result<VectorInfo, ModelError> {
        let tensor = self.check(name, &[len])?;
        match tensor.dtype.name() {
            "f32" | "f16" | "bf16" => Ok(VectorInfo { tensor: tensor.clone() }),
            dtype => Err(ModelError::Unsupported(format!("the tensor {name} has the type {dtype}, but vectors must be floats"))),
        }
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<VectorInfo>, ModelError> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// `{prefix}.weight` and perhaps `{prefix}.bias`.
    fn projection(&self, prefix: &str, rows: usize, cols: usize) -> Result<Projection<Declared>, ModelError> {
        let weight = self.matrix(&format!("{prefix}.weight"), rows, cols)?;
        Ok(Projection { weight, bias: self.optional_vector(&format!("{prefix}.bias"), rows)? })
    }

    /// The weights of a decoder with the usual names.
    ///
    /// # Errors
    /// If a tensor is absent, has another shape, or a type that is not supported.
    pub fn decoder(&self, config: &Config) -> Result<Weights<Declared>, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden);
        let divisors = config.ropes.iter().find(|r| r.scaling == RopeScaling::Divisors);
        Ok(Weights {
            embedding: self.matrix("token_embd.weight", vocab, hidden)?,
            output: self.has("output.weight").then(|| self.matrix("output.weight", vocab, hidden)).transpose()?,
            output_norm: self.vector("output_norm.weight", hidden)?,
            rope_divisors: divisors.map(|r| self.vector("rope_freqs.weight", r.dim / 2)).transpose()?,
            layers: config.layers.iter().enumerate().map(|(i, l)| self.layer(i, l, hidden)).collect::<Result<_, _>>()?,
        })
    }

    fn layer(&self, i: usize, config: &LayerConfig, hidden: usize) -> Result<Layer<Declared>, ModelError> {
        let a = &config.attention;
        let name = |part: &str| format!("blk.{i}.{part}");
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            q: self.projection(&name("attn_q"), a.heads * a.dim_k, hidden)?,
            k: self.projection(&name("attn_k"), a.kv_heads * a.dim_k, hidden)?,
            v: self.projection(&name("attn_v"), a.kv_heads * a.dim_v, hidden)?,
            o: self.projection(&name("attn_output"), hidden, a.heads * a.dim_v)?,
            feed_forward_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            feed_forward: match config.feed_forward {
                FeedForwardConfig::Dense { width } => FeedForward::Dense(Mlp {
                    gate: self.projection(&name("ffn_gate"), width, hidden)?,
                    up: self.projection(&name("ffn_up"), width, hidden)?,
                    down: self.projection(&name("ffn_down"), hidden, width)?,
                }),
                FeedForwardConfig::Experts(config) => FeedForward::Experts(Experts {
                    config,
                    router: self.matrix(&name("ffn_gate_inp.weight"), config.count, hidden)?,
                    gate: self.experts(&name("ffn_gate"), config.count, config.width, hidden)?,
                    up: self.experts(&name("ffn_up"), config.count, config.width, hidden)?,
                    down: self.experts(&name("ffn_down"), config.count, hidden, config.width)?,
                }),
            },
        })
    }
}
