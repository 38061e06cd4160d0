//! A mixture of experts. Tokens are grouped by expert, so that every expert's weights are read once for a batch; the outputs of a
//! token's experts are added in the order of their rank, whatever else is in the batch.
use crate::ModelError;
use crate::feed_forward::{self, activate_gate};
use crate::router::Router;
use crate::transformer::{Pass, for_rows};
use crate::weights::{Experts, Loaded};
use fastllm_kernels::activation::Activations;
use fastllm_kernels::buffer::{AlignedVec, Columns};
use fastllm_kernels::elementwise::{add_assign, add_scaled, scale, sigmoid};
use fastllm_kernels::linear::{Linear, Product};
use std::ops::Range;

/// One expert of one token.
#[derive(Clone, Copy, Debug)]
struct Assignment {
    expert: usize,
    token: usize,
    rank: usize,
    weight: f32,
}

/// From `scratch.normed` to `scratch.block`, `tokens` rows.
pub fn forward(pass: &mut Pass<'_>, experts: &Experts<Loaded>, tokens: usize) -> Result<(), ModelError> {
    let shared = shared(pass, experts, tokens)?;
    let assignments = route(pass, experts, tokens)?;
    let mut groups: Vec<Range<usize>> = Vec::new();
    for i in 0..assignments.len() {
        match groups.last_mut() {
            Some(g) if assignments[g.start].expert == assignments[i].expert => g.end = i + 1,
            _ => groups.push(i..i + 1),
        }
    }
    let (gate, up, down) = (&experts.gate.weight, &experts.up.weight, &experts.down.weight);
    let (hidden, width) = (pass.hidden_stride, gate.padded_rows());
    let (cpu, activation) = (pass.worker.cpu, pass.model.config.activation);
    let s = &mut *pass.scratch;
    let sizes: Vec<usize> = groups.iter().map(Range::len).collect();
    let row = |i: usize| &s.normed[assignments[i].token * hidden..][..gate.cols()];
    pass.worker.fill_parts(&mut s.expert_activations, &[gate, up], &sizes, gate.cols(), row)?;
    s.gate.resize(assignments.len() * width);
    s.up.resize(assignments.len() * width);
    let mut products = Vec::with_capacity(2 * groups.len());
    products.extend(per_group(gate, &s.expert_activations, &mut s.gate, &groups, &assignments));
    products.extend(per_group(up, &s.expert_activations, &mut s.up, &groups, &assignments));
    pass.worker.multiply(&products)?;
    drop(products);
    let real = gate.rows();
    if let Some(bias) = &experts.up.bias {
        for_rows(pass.worker.pool, &mut s.up, width, |i, up| add_assign(cpu, &mut up[..real], of_expert(bias, &assignments[i], real)));
    }
    let (up, bias) = (&s.up, &experts.gate.bias);
    let activate = |i: usize, gate: &mut [f32]| {
        let gate = &mut gate[..real];
        if let Some(bias) = bias {
            add_assign(cpu, gate, of_expert(bias, &assignments[i], real));
        }
        activate_gate(cpu, activation, gate, &up[i * width..][..real]);
    };
    pass.worker.fill_in_place(&mut s.expert_activations, down, &sizes, (&mut s.gate, width), activate)?;
    s.expert_out.resize(assignments.len() * hidden);
    let products: Vec<_> = per_group(down, &s.expert_activations, &mut s.expert_out, &groups, &assignments).collect();
    pass.worker.multiply(&products)?;
    drop(products);
    if let Some(bias) = &experts.down.bias {
        let rows = down.rows();
        for_rows(pass.worker.pool, &mut s.expert_out, hidden, |i, y| {
            add_assign(cpu, &mut y[..rows], of_expert(bias, &assignments[i], rows));
        });
    }
    combine(pass, &assignments, shared, experts.config.used, tokens);
    Ok(())
}

/// The part of a bias `[experts, len]` for the expert of an assignment.
fn of_expert<'a>(bias: &'a [f32], assignment: &Assignment, len: usize) -> &'a [f32] {
    &bias[assignment.expert * len..][..len]
}

/// Runs the shared expert, if there is one; its output is in `scratch.other`, weighted.
fn shared(pass: &mut Pass<'_>, experts: &Experts<Loaded>, tokens: usize) -> Result<bool, ModelError> {
    let Some(shared) = &experts.shared else { return Ok(false) };
    feed_forward::forward(pass, &shared.mlp, tokens)?;
    let (cpu, hidden) = (pass.worker.cpu, pass.hidden_stride);
    let s = &mut *pass.scratch;
    std::mem::swap(&mut s.block, &mut s.other);
    if let Some(gate) = &shared.gate {
        let stride = gate.padded_rows();
        pass.worker.fill(&mut s.activations, &[gate], &s.normed, hidden, tokens)?;
        s.router.resize(tokens * stride);
        pass.worker.multiply(&[Product::new(gate, &s.activations, &mut s.router)])?;
        for_rows(pass.worker.pool, &mut s.router, stride, |_, row| sigmoid(cpu, &mut row[..1]));
        let factors = &s.router;
        for_rows(pass.worker.pool, &mut s.other, hidden, |t, row| scale(cpu, row, factors[t * stride]));
    }
    Ok(true)
}

/// Products of one matrix each with the rows of a group; `y` holds the rows of all groups.
fn per_group<'a>(
    weights: &'a Linear,
    x: &'a Activations,
    y: &'a mut AlignedVec<f32>,
    groups: &'a [Range<usize>],
    assignments: &'a [Assignment],
) -> impl Iterator<Item = Product<'a>> {
    let stride = weights.padded_rows();
    let mut rest = &mut **y;
    groups.iter().enumerate().map(move |(part, group)| {
        let (y, tail) = std::mem::take(&mut rest).split_at_mut(group.len() * stride);
        rest = tail;
        Product { weights, matrix: assignments[group.start].expert, x: x.part(part), y: Columns::new(y, stride) }
    })
}

/// Chooses the experts of every token; sorted by expert, then token.
fn route(pass: &mut Pass<'_>, experts: &Experts<Loaded>, tokens: usize) -> Result<Vec<Assignment>, ModelError> {
    let (count, stride) = (experts.config.count, experts.router.weight.padded_rows());
    pass.project(&experts.router, |s| (&s.normed, &mut s.activations, &mut s.router), pass.hidden_stride, tokens)?;
    let mut assignments = Vec::with_capacity(tokens * experts.config.used);
    let mut router = Router::default();
    for token in 0..tokens {
        let scores = &mut pass.scratch.router[token * stride..][..count];
        let chosen = router.choose(pass.worker.cpu, &experts.config, experts.choice_bias.as_deref(), scores);
        assignments.extend(chosen.enumerate().map(|(rank, (expert, weight))| Assignment { expert, token, rank, weight }));
    }
    assignments.sort_by_key(|a| (a.expert, a.token));
    Ok(assignments)
}

/// Weighted sums of the outputs, by rank, after that of the shared expert.
fn combine(pass: &mut Pass<'_>, assignments: &[Assignment], shared: bool, used: usize, tokens: usize) {
    let (cpu, hidden) = (pass.worker.cpu, pass.hidden_stride);
    let mut by_rank = vec![(0, 0.0); tokens * used];
    for (i, a) in assignments.iter().enumerate() {
        by_rank[a.token * used + a.rank] = (i, a.weight);
    }
    let s = &mut *pass.scratch;
    s.block.resize(tokens * hidden);
    let (out, start) = (&s.expert_out, &s.other);
    for_rows(pass.worker.pool, &mut s.block, hidden, |t, block| {
        if shared {
            block.copy_from_slice(&start[t * hidden..][..hidden]);
        } else {
            block.fill(0.0);
        }
        for &(i, weight) in &by_rank[t * used..][..used] {
            add_scaled(cpu, block, weight, &out[i * hidden..][..hidden]);
        }
    });
}
