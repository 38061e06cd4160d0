//! Queries, keys and values from a projection each.
use super::QueryLayout;
use crate::ModelError;
use crate::config::{AttentionConfig, NormConfig, NormKind, QkNorm};
use crate::transformer::{Pass, add_bias, for_rows};
use crate::weights::{Heads, Loaded, Norm};
use fastllm_kernels::elementwise::{mul_sigmoid, scale};
use fastllm_kernels::linear::Product;
use fastllm_kernels::rms_norm::{layer_norm, rms_norm_in_place};
use fastllm_simd::Cpu;

/// From `scratch.normed` to `scratch.q`, `scratch.k` and `scratch.v`, normalised and rotated. A gate follows the query of its head.
pub fn project(pass: &mut Pass<'_>, heads: &Heads<Loaded>, config: &AttentionConfig) -> Result<QueryLayout, ModelError> {
    let tokens = pass.tokens;
    let s = &mut *pass.scratch;
    let (q, k, v) = (&heads.q.weight, &heads.k.weight, &heads.v.weight);
    pass.worker.fill(&mut s.activations, &[q, k, v], &s.normed, pass.hidden_stride, tokens)?;
    s.q.resize(tokens * q.padded_rows());
    s.k.resize(tokens * k.padded_rows());
    s.v.resize(tokens * v.padded_rows());
    let x = &s.activations;
    pass.worker.multiply(&[Product::new(q, x, &mut s.q), Product::new(k, x, &mut s.k), Product::new(v, x, &mut s.v)])?;
    let (cpu, pool, ropes, norms) = (pass.worker.cpu, pass.worker.pool, pass.ropes, pass.model.config.norm);
    let dim_q = if config.gated { 2 * config.dim_k } else { config.dim_k };
    let parts = [
        (&mut s.q, &heads.q, &heads.q_norm, config.heads * dim_q, dim_q, config.temperature),
        (&mut s.k, &heads.k, &heads.k_norm, config.kv_heads * config.dim_k, config.dim_k, None),
    ];
    for (data, projection, norm, width, head_dim, temperature) in parts {
        for_rows(pool, data, projection.weight.padded_rows(), |t, row| {
            add_bias(cpu, projection.bias.as_deref(), row);
            let row = &mut row[..width];
            if let (Some(norm), false) = (norm, config.norm_after_rope) {
                normalise_heads(cpu, norms, norm, config, row, head_dim);
            }
            if let Some(kind) = config.rope {
                ropes.rotate(cpu, kind, t, row, head_dim);
            }
            if let (Some(norm), true) = (norm, config.norm_after_rope) {
                normalise_heads(cpu, norms, norm, config, row, head_dim);
            }
            if let Some(temperature) = temperature {
                let factor = temperature.factor(ropes.position(t));
                row.chunks_exact_mut(head_dim).for_each(|head| scale(cpu, &mut head[..config.dim_k], factor));
            }
        });
    }
    if heads.v.bias.is_some() {
        for_rows(pool, &mut s.v, v.padded_rows(), |_, row| add_bias(cpu, heads.v.bias.as_deref(), row));
    }
    Ok(QueryLayout { token: q.padded_rows(), head: dim_q })
}

/// Multiplies `scratch.attended` with the sigmoids of the gates, which follow the queries.
pub fn gate(pass: &mut Pass<'_>, config: &AttentionConfig, queries: QueryLayout) {
    let (cpu, dim) = (pass.worker.cpu, config.dim_v);
    let s = &mut *pass.scratch;
    let q = &s.q;
    for_rows(pass.worker.pool, &mut s.attended, (config.heads * dim).next_multiple_of(16), |t, row| {
        for (head, out) in row.chunks_exact_mut(dim).take(config.heads).enumerate() {
            mul_sigmoid(cpu, out, &q[t * queries.token + head * queries.head + config.dim_k..][..dim]);
        }
    });
}

/// The norm of queries or keys, in place; heads start every `stride` channels.
fn normalise_heads(cpu: Cpu, norms: NormConfig, norm: &Norm<Loaded>, config: &AttentionConfig, row: &mut [f32], stride: usize) {
    let (stride, width) = match config.qk_norm {
        QkNorm::Projection => (row.len(), row.len()),
        QkNorm::None | QkNorm::Head | QkNorm::EachHead => (stride, config.dim_k),
    };
    let weights = norm.weight.chunks_exact(width).cycle();
    for (head, weight) in row.chunks_exact_mut(stride).zip(weights) {
        let head = &mut head[..width];
        match norms.kind {
            NormKind::Rms => rms_norm_in_place(cpu, head, weight, norms.eps),
            NormKind::Layer => {
                let x = head.to_vec();
                layer_norm(cpu, &x, weight, None, norms.eps, head);
            }
        }
    }
}
