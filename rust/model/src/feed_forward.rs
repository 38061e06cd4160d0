//! The dense feed-forward network: `down(silu(gate(x)) * up(x))`.
use crate::ModelError;
use crate::transformer::{Run, add_bias, for_rows};
use crate::weights::{Loaded, Mlp};
use fastllm_kernels::elementwise::swiglu;
use fastllm_kernels::linear::Product;

/// From `scratch.normed` to `scratch.block`, `tokens` rows.
pub fn forward(run: &mut Run<'_>, mlp: &Mlp<Loaded>, tokens: usize) -> Result<(), ModelError> {
    let (cpu, pool, hidden) = (run.cpu, run.pool, run.hidden);
    let stride = mlp.gate.weight.padded_rows();
    let width = mlp.gate.weight.rows();
    let forms = [&mlp.gate.weight, &mlp.up.weight];
    run.prepare(&forms, tokens, hidden);
    let s = &mut *run.scratch;
    s.gate.resize(tokens * stride);
    s.up.resize(tokens * stride);
    let x = &s.activations;
    let products = [Product::new(&mlp.gate.weight, x, &mut s.gate, stride), Product::new(&mlp.up.weight, x, &mut s.up, stride)];
    run.matmul.multiply(pool, &products)?;
    let up = &s.up;
    for_rows(pool, &mut s.gate, stride, tokens, |t, gate| {
        let up = &up[t * stride..][..width];
        let (mut biased_gate, mut biased_up);
        let (gate_in, up_in): (&[f32], &[f32]) = if mlp.gate.bias.is_some() || mlp.up.bias.is_some() {
            (biased_gate, biased_up) = (gate[..width].to_vec(), up.to_vec());
            add_bias(cpu, mlp.gate.bias.as_deref(), &mut biased_gate);
            add_bias(cpu, mlp.up.bias.as_deref(), &mut biased_up);
            (&biased_gate, &biased_up)
        } else {
            biased_gate = gate[..width].to_vec();
            (&biased_gate, up)
        };
        swiglu(cpu, gate_in, up_in, &mut gate[..width]);
    });
    Ok(())
}
