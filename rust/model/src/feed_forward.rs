//! The dense feed-forward network: `down(silu(gate(x)) * up(x))`.
use crate::ModelError;
use crate::transformer::{Pass, add_bias, for_rows};
use crate::weights::{Loaded, Mlp};
use fastllm_kernels::elementwise::swiglu_in_place;
use fastllm_kernels::linear::Product;

/// From `scratch.normed` to `scratch.block`, `tokens` rows.
pub fn forward(pass: &mut Pass<'_>, mlp: &Mlp<Loaded>, tokens: usize) -> Result<(), ModelError> {
    let (width, stride) = (mlp.gate.weight.rows(), mlp.gate.weight.padded_rows());
    let s = &mut *pass.scratch;
    pass.worker.fill(&mut s.activations, &[&mlp.gate.weight, &mlp.up.weight], &s.normed, pass.hidden_stride, tokens);
    s.gate.resize(tokens * stride);
    s.up.resize(tokens * stride);
    let x = &s.activations;
    pass.worker.multiply(&[Product::new(&mlp.gate.weight, x, &mut s.gate), Product::new(&mlp.up.weight, x, &mut s.up)])?;
    let cpu = pass.worker.cpu;
    if mlp.up.bias.is_some() {
        for_rows(pass.worker.pool, &mut s.up, stride, |_, up| add_bias(cpu, mlp.up.bias.as_deref(), up));
    }
    let up = &s.up;
    for_rows(pass.worker.pool, &mut s.gate, stride, |t, gate| {
        add_bias(cpu, mlp.gate.bias.as_deref(), gate);
        swiglu_in_place(cpu, &mut gate[..width], &up[t * stride..][..width]);
    });
    pass.project(&mlp.down, |s| (&s.gate, &mut s.activations, &mut s.block), stride, tokens)
}
