//! A mixture of experts. Tokens are grouped by expert, so that every expert's weights are read once for a batch; the outputs of a
//! token's experts are added in the order of their rank, whatever else is in the batch.
use crate::ModelError;
use crate::transformer::{Pass, for_rows};
use crate::weights::{Experts, Loaded};
use fastllm_kernels::activation::Activations;
use fastllm_kernels::buffer::{AlignedVec, Columns};
use fastllm_kernels::elementwise::{softmax, swiglu_in_place};
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
    let assignments = route(pass, experts, tokens)?;
    let mut groups: Vec<Range<usize>> = Vec::new();
    for i in 0..assignments.len() {
        match groups.last_mut() {
            Some(g) if assignments[g.start].expert == assignments[i].expert => g.end = i + 1,
            _ => groups.push(i..i + 1),
        }
    }
    let (hidden, width) = (pass.hidden_stride, experts.gate.padded_rows());
    let cpu = pass.worker.cpu;
    let s = &mut *pass.scratch;
    if s.expert_activations.len() < groups.len() {
        s.expert_activations.resize_with(groups.len(), Activations::default);
    }
    for (x, group) in s.expert_activations.iter_mut().zip(&groups) {
        let of = &assignments[group.clone()];
        let row = |i: usize| &s.normed[of[i].token * hidden..][..experts.gate.cols()];
        pass.worker.fill_rows(x, &[&experts.gate, &experts.up], of.len(), experts.gate.cols(), row);
    }
    s.gate.resize(assignments.len() * width);
    s.up.resize(assignments.len() * width);
    let mut products = Vec::with_capacity(2 * groups.len());
    products.extend(per_group(&experts.gate, &s.expert_activations, &mut s.gate, &groups, &assignments));
    products.extend(per_group(&experts.up, &s.expert_activations, &mut s.up, &groups, &assignments));
    pass.worker.multiply(&products)?;
    drop(products);
    let up = &s.up;
    let real = experts.gate.rows();
    for_rows(pass.worker.pool, &mut s.gate, width, |i, gate| swiglu_in_place(cpu, &mut gate[..real], &up[i * width..][..real]));
    for (x, group) in s.expert_activations.iter_mut().zip(&groups) {
        let row = |i: usize| &s.gate[(group.start + i) * width..][..real];
        pass.worker.fill_rows(x, &[&experts.down], group.len(), real, row);
    }
    s.expert_out.resize(assignments.len() * hidden);
    let products: Vec<_> = per_group(&experts.down, &s.expert_activations, &mut s.expert_out, &groups, &assignments).collect();
    pass.worker.multiply(&products)?;
    drop(products);
    combine(pass, &assignments, experts.config.used, tokens);
    Ok(())
}

/// Products of one matrix each with the rows of a group; `y` holds the rows of all groups.
fn per_group<'a>(
    weights: &'a Linear,
    x: &'a [Activations],
    y: &'a mut AlignedVec<f32>,
    groups: &'a [Range<usize>],
    assignments: &'a [Assignment],
) -> impl Iterator<Item = Product<'a>> {
    let stride = weights.padded_rows();
    let mut rest = &mut **y;
    groups.iter().zip(x).map(move |(group, x)| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(group.len() * stride);
        rest = tail;
        Product { weights, matrix: assignments[group.start].expert, x, y: Columns::new(part, stride) }
    })
}

/// Chooses the experts of every token; sorted by expert, then token.
fn route(pass: &mut Pass<'_>, experts: &Experts<Loaded>, tokens: usize) -> Result<Vec<Assignment>, ModelError> {
    let (count, stride) = (experts.config.count, experts.router.padded_rows());
    let s = &mut *pass.scratch;
    pass.worker.fill(&mut s.activations, &[&experts.router], &s.normed, pass.hidden_stride, tokens);
    s.router.resize(tokens * stride);
    pass.worker.multiply(&[Product::new(&experts.router, &s.activations, &mut s.router)])?;
    let mut assignments = Vec::with_capacity(tokens * experts.config.used);
    let mut order: Vec<usize> = Vec::with_capacity(count);
    for token in 0..tokens {
        let scores = &mut s.router[token * stride..][..count];
        softmax(pass.worker.cpu, scores);
        order.clear();
        order.extend(0..count);
        // The best first; of equals the first.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let chosen = &order[..experts.config.used];
        let total: f32 = chosen.iter().map(|&e| scores[e]).sum();
        for (rank, &expert) in chosen.iter().enumerate() {
            assignments.push(Assignment { expert, token, rank, weight: scores[expert] / total });
        }
    }
    assignments.sort_by_key(|a| (a.expert, a.token));
    Ok(assignments)
}

/// Weighted sums of the outputs, by rank.
fn combine(pass: &mut Pass<'_>, assignments: &[Assignment], used: usize, tokens: usize) {
    let hidden = pass.hidden_stride;
    let mut by_rank = vec![(0, 0.0); tokens * used];
    for (i, a) in assignments.iter().enumerate() {
        by_rank[a.token * used + a.rank] = (i, a.weight);
    }
    let s = &mut *pass.scratch;
    s.block.resize(tokens * hidden);
    let out = &s.expert_out;
    for_rows(pass.worker.pool, &mut s.block, hidden, |t, block| {
        block.fill(0.0);
        for &(i, weight) in &by_rank[t * used..][..used] {
            for (y, x) in block.iter_mut().zip(&out[i * hidden..][..hidden]) {
                *y += weight * x;
            }
        }
    });
}
