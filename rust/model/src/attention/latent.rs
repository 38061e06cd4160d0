//! Multi-head latent attention (DeepSeek-V2, 2024) in absorbed form.
//!
//! A key of the cache is the compressed vector and the rotated channels; the value is the compressed vector. What would make a head's
//! keys of it (`k_b`) acts on the query instead, and what would make its values (`v_b`) on the weighted sum.
use super::QueryLayout;
use crate::ModelError;
use crate::config::{AttentionConfig, LatentConfig};
use crate::transformer::{Pass, Worker, for_rows, normalise};
use crate::weights::{Latent, Loaded};
use fastllm_kernels::activation::Activations;
use fastllm_kernels::buffer::{AlignedVec, Columns};
use fastllm_kernels::linear::{Linear, Product};
use fastllm_kernels::rms_norm::rms_norm_in_place;

/// From `scratch.normed` to `scratch.q`, head by head, and to `scratch.k`, which holds the values too.
pub fn project(
    pass: &mut Pass<'_>,
    latent: &Latent<Loaded>,
    config: &AttentionConfig,
    dims: &LatentConfig,
) -> Result<QueryLayout, ModelError> {
    let tokens = pass.tokens;
    let (cpu, norms) = (pass.worker.cpu, pass.model.config.norm);
    let s = &mut *pass.scratch;
    let first = latent.q_a.as_ref().map_or(&latent.q_b, |(q_a, _)| q_a);
    let (q_stride, k_stride) = (first.padded_rows(), latent.kv_a.padded_rows());
    pass.worker.fill(&mut s.activations, &[first, &latent.kv_a], &s.normed, pass.hidden_stride, tokens)?;
    s.gate.resize(tokens * q_stride);
    s.k.resize(tokens * k_stride);
    let x = &s.activations;
    pass.worker.multiply(&[Product::new(first, x, &mut s.gate), Product::new(&latent.kv_a, x, &mut s.k)])?;
    for_rows(pass.worker.pool, &mut s.k, k_stride, |t, row| {
        rms_norm_in_place(cpu, &mut row[..dims.rank], &latent.kv_a_norm.weight, norms.eps);
        if let Some(kind) = config.rope {
            pass.ropes.rotate(cpu, kind, t, &mut row[dims.rank..][..dims.rope], dims.rope);
        }
    });
    if let Some((q_a, norm)) = &latent.q_a {
        s.up.resize(tokens * q_stride);
        let from = &s.gate;
        for_rows(pass.worker.pool, &mut s.up, q_stride, |t, out| {
            normalise(cpu, norms, norm, &from[t * q_stride..][..q_a.rows()], &mut out[..q_a.rows()]);
        });
        pass.worker.fill(&mut s.activations, &[&latent.q_b], &s.up, q_stride, tokens)?;
        s.gate.resize(tokens * latent.q_b.padded_rows());
        pass.worker.multiply(&[Product::new(&latent.q_b, &s.activations, &mut s.gate)])?;
    }
    absorb(pass, latent, config, dims)
}

/// From queries in `scratch.gate`, `[tokens, heads * (nope + rope)]`, to those of the cache in `scratch.q`, `[heads, tokens, rank + rope]`.
fn absorb(pass: &mut Pass<'_>, latent: &Latent<Loaded>, config: &AttentionConfig, dims: &LatentConfig) -> Result<QueryLayout, ModelError> {
    let (tokens, head_dim, stride) = (pass.tokens, dims.nope + dims.rope, config.dim_k.next_multiple_of(16));
    let (cpu, ropes) = (pass.worker.cpu, pass.ropes);
    let s = &mut *pass.scratch;
    let from_stride = latent.q_b.padded_rows();
    s.q.resize(config.heads * tokens * stride);
    let from = &s.gate;
    let query = |head: usize, token: usize| &from[token * from_stride + head * head_dim..][..head_dim];
    let nope = |head, token| &query(head, token)[..dims.nope];
    multiply_heads(&pass.worker, &latent.k_b, &mut s.expert_activations, (config.heads, tokens), nope, &mut s.q, stride)?;
    for_rows(pass.worker.pool, &mut s.q, stride, |i, row| {
        let (head, token) = (i / tokens, i % tokens);
        let rotated = &mut row[dims.rank..][..dims.rope];
        rotated.copy_from_slice(&query(head, token)[dims.nope..]);
        if let Some(kind) = config.rope {
            ropes.rotate(cpu, kind, token, rotated, dims.rope);
        }
    });
    Ok(QueryLayout { token: stride, head: tokens * stride })
}

/// Outputs of the cache in `scratch.attended`, `[tokens, heads * rank]`, to those of the heads, `[tokens, heads * value]`.
pub fn values(pass: &mut Pass<'_>, latent: &Latent<Loaded>, config: &AttentionConfig, dims: &LatentConfig) -> Result<(), ModelError> {
    let tokens = pass.tokens;
    let s = &mut *pass.scratch;
    let (from_stride, stride) = ((config.heads * dims.rank).next_multiple_of(16), latent.v_b.padded_rows());
    s.gate.resize(config.heads * tokens * stride);
    let from = &s.attended;
    let row = |head: usize, token: usize| &from[token * from_stride + head * dims.rank..][..dims.rank];
    multiply_heads(&pass.worker, &latent.v_b, &mut s.expert_activations, (config.heads, tokens), row, &mut s.gate, stride)?;
    let out_stride = (config.heads * dims.value).next_multiple_of(16);
    s.attended.resize(tokens * out_stride);
    let values = &s.gate;
    for_rows(pass.worker.pool, &mut s.attended, out_stride, |t, out| {
        for (head, out) in out.chunks_exact_mut(dims.value).take(config.heads).enumerate() {
            out.copy_from_slice(&values[(head * tokens + t) * stride..][..dims.value]);
        }
    });
    Ok(())
}

/// Products of the matrix of every head with `row(head, token)`; `y` is `[heads, tokens, stride]`.
fn multiply_heads<'x>(
    worker: &Worker<'_>,
    weights: &Linear,
    activations: &mut Activations,
    (heads, tokens): (usize, usize),
    row: impl Fn(usize, usize) -> &'x [f32] + Sync,
    y: &mut AlignedVec<f32>,
    stride: usize,
) -> Result<(), ModelError> {
    worker.fill_parts(activations, &[weights], &vec![tokens; heads], weights.cols(), |i| row(i / tokens, i % tokens))?;
    let outputs = y.chunks_exact_mut(tokens * stride).enumerate();
    let products: Vec<_> =
        outputs.map(|(matrix, y)| Product { weights, matrix, x: activations.part(matrix), y: Columns::new(y, stride) }).collect();
    worker.multiply(&products)
}
