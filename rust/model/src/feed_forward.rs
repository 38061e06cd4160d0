//! The dense feed-forward network: `down(activation(gate(x)) * up(x))`, or without a gate `down(gelu(up(x)))`.
use crate::ModelError;
use crate::config::Activation;
use crate::transformer::{Pass, add_bias, for_rows};
use crate::weights::{Loaded, Mlp};
use fastllm_kernels::elementwise::{ClampedSwiGlu, GegluErf, GegluTanh, SwiGlu, gate_in_place, gelu_erf_in_place};
use fastllm_kernels::linear::Product;
use fastllm_simd::Cpu;

/// From `scratch.normed` to `scratch.block`, `tokens` rows.
pub fn forward(pass: &mut Pass<'_>, mlp: &Mlp<Loaded>, tokens: usize) -> Result<(), ModelError> {
    let (width, stride) = (mlp.up.weight.rows(), mlp.up.weight.padded_rows());
    let (cpu, activation) = (pass.worker.cpu, pass.model.config.activation);
    let s = &mut *pass.scratch;
    let Some(gate) = &mlp.gate else {
        pass.project(&mlp.up, |s| (&s.normed, &mut s.activations, &mut s.up), pass.hidden_stride, tokens)?;
        let s = &mut *pass.scratch;
        let activate = |_, up: &mut [f32]| gelu_erf_in_place(cpu, &mut up[..width]);
        pass.worker.fill_in_place(&mut s.activations, &mlp.down.weight, &[tokens], (&mut s.up, stride), activate)?;
        return pass.project_prepared(&mlp.down, |s| (&s.up, &mut s.activations, &mut s.block), tokens);
    };
    pass.worker.fill(&mut s.activations, &[&gate.weight, &mlp.up.weight], &s.normed, pass.hidden_stride, tokens)?;
    s.gate.resize(tokens * stride);
    s.up.resize(tokens * stride);
    let x = &s.activations;
    pass.worker.multiply(&[Product::new(&gate.weight, x, &mut s.gate), Product::new(&mlp.up.weight, x, &mut s.up)])?;
    if mlp.up.bias.is_some() {
        for_rows(pass.worker.pool, &mut s.up, stride, |_, up| add_bias(cpu, mlp.up.bias.as_deref(), up));
    }
    let (up, bias) = (&s.up, gate.bias.as_deref());
    let activate = |t: usize, gate: &mut [f32]| {
        add_bias(cpu, bias, gate);
        activate_gate(cpu, activation, &mut gate[..width], &up[t * stride..][..width]);
    };
    pass.worker.fill_in_place(&mut s.activations, &mlp.down.weight, &[tokens], (&mut s.gate, stride), activate)?;
    pass.project_prepared(&mlp.down, |s| (&s.gate, &mut s.activations, &mut s.block), tokens)
}

/// `gate = activation(gate) * up`.
pub fn activate_gate(cpu: Cpu, activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::SwiGlu => gate_in_place(cpu, SwiGlu, gate, up),
        Activation::GegluTanh => gate_in_place(cpu, GegluTanh, gate, up),
        Activation::Gelu => gate_in_place(cpu, GegluErf, gate, up),
        Activation::ClampedSwiGlu { alpha, limit } => gate_in_place(cpu, ClampedSwiGlu { alpha, limit }, gate, up),
    }
}
