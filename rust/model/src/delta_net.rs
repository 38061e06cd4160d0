//! A gated delta net (Yang et al., 2024) in place of attention: a short convolution over positions, then a recurrence per head.
//!
//! Tokens go through the recurrence one by one, so nothing depends on how a prompt is cut.
use crate::ModelError;
use crate::config::DeltaNetConfig;
use crate::transformer::{Pass, Segment, for_rows};
use crate::weights::{DeltaNet, Loaded};
use fastllm_kernels::delta_net::{DeltaStep, delta_step};
use fastllm_kernels::elementwise::{silu_in_place, swiglu};
use fastllm_kernels::linear::Product;
use fastllm_kernels::rms_norm::rms_norm_in_place;
use fastllm_simd::Cpu;

/// Added to the squares of queries and keys under the root, as in the original.
const L2_EPS: f32 = 1e-6;

/// From `scratch.normed` to `scratch.attended`, `[tokens, heads * dim_v]`.
pub fn forward(pass: &mut Pass<'_>, index: usize, net: &DeltaNet<Loaded>, config: &DeltaNetConfig) -> Result<(), ModelError> {
    let tokens = pass.tokens;
    let s = &mut *pass.scratch;
    let matrices: Vec<_> = [&net.qkv, &net.gate, &net.beta_decay].into_iter().chain(&net.decay_input).collect();
    pass.worker.fill(&mut s.activations, &matrices, &s.normed, pass.hidden_stride, tokens)?;
    s.q.resize(tokens * net.qkv.padded_rows());
    s.gate.resize(tokens * net.gate.padded_rows());
    s.v.resize(tokens * net.beta_decay.padded_rows());
    let x = &s.activations;
    let mut products =
        vec![Product::new(&net.qkv, x, &mut s.q), Product::new(&net.gate, x, &mut s.gate), Product::new(&net.beta_decay, x, &mut s.v)];
    if let Some(matrix) = &net.decay_input {
        s.router.resize(tokens * matrix.padded_rows());
        products.push(Product::new(matrix, x, &mut s.router));
    }
    pass.worker.multiply(&products)?;
    drop(products);
    s.k.resize(tokens * config.channels());
    s.up.resize(config.heads * tokens * config.dim_v);
    for &segment in pass.segments {
        convolve(pass, index, net, config, segment);
        recur(pass, index, net, config, segment)?;
    }
    let (cpu, pool, eps, dim) = (pass.worker.cpu, pass.worker.pool, pass.model.config.norm.eps, config.dim_v);
    let s = &mut *pass.scratch;
    for_rows(pool, &mut s.up, dim, |_, row| rms_norm_in_place(cpu, row, &net.norm.weight, eps));
    let width = config.heads * dim;
    s.attended.resize(tokens * width);
    let (up, gate, stride) = (&s.up, &s.gate, net.gate.padded_rows());
    for_rows(pool, &mut s.attended, width, |t, row| {
        for (head, out) in row.chunks_exact_mut(dim).enumerate() {
            swiglu(cpu, &gate[t * stride + head * dim..][..dim], &up[(head * tokens + t) * dim..][..dim], out);
        }
    });
    Ok(())
}

/// From `scratch.q` to `scratch.k`: a causal convolution of every channel on its own, SiLU, and queries and keys of length 1.
fn convolve(pass: &mut Pass<'_>, index: usize, net: &DeltaNet<Loaded>, config: &DeltaNetConfig, segment: Segment) {
    let (channels, past, stride) = (config.channels(), config.kernel - 1, net.qkv.padded_rows());
    let (cpu, s) = (pass.worker.cpu, &mut *pass.scratch);
    let (state, next) = pass.kv.states(segment.sequence, index);
    let from = &s.q;
    // Row 0 is the oldest that the sequence keeps.
    let input = |row: usize| match row.checked_sub(past) {
        Some(t) => &from[(segment.first + t) * stride..][..channels],
        None => &state[row * channels..][..channels],
    };
    for (i, kept) in next[..config.history()].chunks_exact_mut(channels).enumerate() {
        kept.copy_from_slice(input(segment.tokens + i));
    }
    let keys = config.key_heads * config.dim_k;
    let lengths = Lengths::new(config.dim_k);
    let rows = &mut s.k[segment.first * channels..][..segment.tokens * channels];
    for_rows(pass.worker.pool, rows, channels, |t, out| {
        out.fill(0.0);
        for tap in 0..config.kernel {
            let weights = net.convolution[tap..].iter().step_by(config.kernel);
            for ((y, x), w) in out.iter_mut().zip(input(t + tap)).zip(weights) {
                *y += w * x;
            }
        }
        silu_in_place(cpu, out);
        let (queries, rest) = out.split_at_mut(keys);
        queries.chunks_exact_mut(config.dim_k).for_each(|q| lengths.normalise(cpu, q, &lengths.query));
        rest[..keys].chunks_exact_mut(config.dim_k).for_each(|k| lengths.normalise(cpu, k, &lengths.key));
    });
}

/// Weights with which the root mean square norm gives vectors of a certain length.
struct Lengths {
    /// `1 / sqrt(dim)`: the score's scale.
    query: Vec<f32>,
    /// 1.
    key: Vec<f32>,
    eps: f32,
}

impl Lengths {
    fn new(dim: usize) -> Lengths {
        let n = dim as f32;
        Lengths { query: vec![1.0 / n; dim], key: vec![1.0 / n.sqrt(); dim], eps: L2_EPS / n }
    }

    fn normalise(&self, cpu: Cpu, x: &mut [f32], weight: &[f32]) {
        rms_norm_in_place(cpu, x, weight, self.eps);
    }
}

/// From `scratch.k` and the gates in `scratch.v` to `scratch.up`, `[heads, tokens, dim_v]`.
fn recur(pass: &mut Pass<'_>, index: usize, net: &DeltaNet<Loaded>, config: &DeltaNetConfig, segment: Segment) -> Result<(), ModelError> {
    let &DeltaNetConfig { key_heads, dim_k, dim_v, .. } = config;
    let (cpu, channels) = (pass.worker.cpu, config.channels());
    let s = &mut *pass.scratch;
    let (state, next) = pass.kv.states(segment.sequence, index);
    let (state, next) = (&state[config.history()..], &mut next[config.history()..]);
    let mixed = &s.k;
    let gates = Gates { net, config, beta_decay: &s.v, decay: &s.router };
    let outputs = s.up.chunks_exact_mut(pass.tokens * dim_v);
    let mut jobs: Vec<_> = next.chunks_exact_mut(dim_k * dim_v).zip(outputs).collect();
    pass.worker.pool.for_each_mut(&mut jobs, |head, (next, out)| {
        next.copy_from_slice(&state[head * dim_k * dim_v..][..dim_k * dim_v]);
        let key_head = config.key_head(head);
        let out = out[segment.first * dim_v..].chunks_exact_mut(dim_v).take(segment.tokens);
        for (t, out) in (segment.first..).zip(out) {
            let row = &mixed[t * channels..][..channels];
            let (q, k) = (&row[key_head * dim_k..][..dim_k], &row[(key_heads + key_head) * dim_k..][..dim_k]);
            let v = &row[2 * key_heads * dim_k + head * dim_v..][..dim_v];
            let (beta, time) = gates.of(t, head);
            let step = softplus(f64::from(time) + f64::from(net.time_step[head]));
            let decay = (f64::from(net.decay[head]) * step).exp() as f32;
            let beta = (1.0 / (1.0 + (-f64::from(beta)).exp())) as f32;
            delta_step(cpu, DeltaStep { state: next, q, k, v, decay, beta, out });
        }
    });
    pass.worker.check()
}

/// What `beta` and `decay` of tokens and heads are made of.
struct Gates<'a> {
    net: &'a DeltaNet<Loaded>,
    config: &'a DeltaNetConfig,
    /// Products with `beta_decay`.
    beta_decay: &'a [f32],
    /// Products with `decay_input`, if there is one.
    decay: &'a [f32],
}

impl Gates<'_> {
    fn of(&self, token: usize, head: usize) -> (f32, f32) {
        let row = &self.beta_decay[token * self.net.beta_decay.padded_rows()..];
        if let Some(matrix) = &self.net.decay_input {
            return (row[head], self.decay[token * matrix.padded_rows() + head]);
        }
        let shared = self.config.heads / self.config.key_heads;
        let of_key_head = &row[head / shared * 2 * shared..][..2 * shared];
        (of_key_head[head % shared], of_key_head[shared + head % shared])
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_is_smooth_and_finite() {
        assert!((softplus(0.0) - std::f64::consts::LN_2).abs() < 1e-15);
        assert!((softplus(3.0) - (1.0 + 3f64.exp()).ln()).abs() < 1e-12);
        assert_eq!([softplus(1000.0), softplus(-1000.0)], [1000.0, 0.0]);
    }
}
