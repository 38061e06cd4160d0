//! Attention of a layer: projections, rotation, the cache, the operator.
mod heads;
mod latent;

use crate::ModelError;
use crate::config::{AttentionConfig, Mixer};
use crate::delta_net;
use crate::kv_cache::{KvCache, LayerPages};
use crate::transformer::{Pass, Segment, Worker};
use crate::weights::{self, Layer, Loaded};
use fastllm_kernels::attention::{Attend, Attention, PAGE, Strided, attend};
use fastllm_kernels::buffer::tiles_mut;
use std::sync::PoisonError;

/// Query tokens of a task: enough rows to share the reading of keys and values, few enough to share the work.
const TOKENS: usize = 16;
/// Query heads of a task at most.
const HEADS: usize = 16;

/// Where queries lie in `scratch.q`: floats from one token to the next, and from one head to the next.
#[derive(Clone, Copy)]
struct QueryLayout {
    token: usize,
    head: usize,
}

/// From `scratch.normed` to `scratch.attended`.
pub fn forward(pass: &mut Pass<'_>, index: usize, layer: &Layer<Loaded>) -> Result<(), ModelError> {
    let pages = pass.kv.shape().layer(index);
    match (&layer.attention, &pass.model.config.layers[index].mixer, pages) {
        (weights::Attention::DeltaNet(net), Mixer::DeltaNet(config), _) => delta_net::forward(pass, index, net, config),
        (weights, Mixer::Attention(config), Some(pages)) => {
            let attention = Attention { layout: pages.layout, scale: config.scale, softcap: config.softcap, window: config.window };
            attend_to_cache(pass, weights, &Job { attention: &attention, pages, config, sinks: layer.sinks.as_deref() })
        }
        _ => unreachable!("weights and caches follow the configuration"),
    }
}

fn attend_to_cache(pass: &mut Pass<'_>, weights: &weights::Attention<Loaded>, job: &Job<'_>) -> Result<(), ModelError> {
    let &Job { config, pages, .. } = job;
    match (weights, &config.latent) {
        (weights::Attention::Heads(heads), _) => {
            let queries = heads::project(pass, heads, config)?;
            let s = &*pass.scratch;
            let (k_stride, v_stride) = (heads.k.weight.padded_rows(), heads.v.weight.padded_rows());
            write(pass.kv, &pass.worker, pass.segments, pages, (&s.k, k_stride), (&s.v, v_stride));
            operate(pass, job, queries)?;
            if config.gated {
                heads::gate(pass, config, queries);
            }
            Ok(())
        }
        (weights::Attention::Latent(latent), Some(dims)) => {
            let queries = latent::project(pass, latent, config, dims)?;
            let (k, stride) = (&pass.scratch.k, latent.kv_a.padded_rows());
            // The first channels of a key are the value.
            write(pass.kv, &pass.worker, pass.segments, pages, (k, stride), (k, stride));
            operate(pass, job, queries)?;
            latent::values(pass, latent, config, dims)
        }
        _ => unreachable!("weights follow the configuration"),
    }
}

/// Writes the new keys and values to the pages.
fn write(
    kv: &mut KvCache,
    worker: &Worker<'_>,
    segments: &[Segment],
    layer_pages: LayerPages,
    (k, k_stride): (&[f32], usize),
    (v, v_stride): (&[f32], usize),
) {
    let (cpu, layout) = (worker.cpu, layer_pages.layout);
    for segment in segments {
        let end = segment.position + segment.tokens;
        let mut taken = kv.take(segment.sequence, layer_pages, segment.position, end);
        let mut jobs = Vec::new();
        for block in &mut taken.blocks {
            let first = segment.position.max(block.page * PAGE);
            let count = end.min((block.page + 1) * PAGE) - first;
            let slot = first % PAGE;
            let token = segment.first + first - segment.position;
            for (head, page) in block.pages_mut(layer_pages).enumerate() {
                jobs.push((head, page, slot, count, token));
            }
        }
        let run = |(head, page, slot, count, token): &mut (usize, &mut [u8], usize, usize, usize)| {
            let k = Strided { data: &k[*token * k_stride + *head * layout.dim_k()..], stride: k_stride };
            let v = Strided { data: &v[*token * v_stride + *head * layout.dim_v()..], stride: v_stride };
            layout.write(cpu, page, *slot, *count, k, v);
        };
        if segment.tokens < 8 {
            jobs.iter_mut().for_each(run);
        } else {
            worker.pool.for_each_mut(&mut jobs, |_, job| run(job));
        }
    }
}

/// What to compute.
struct Job<'a> {
    attention: &'a Attention,
    pages: LayerPages,
    config: &'a AttentionConfig,
    /// One logit per head.
    sinks: Option<&'a [f32]>,
}

/// Queries of some tokens of a sequence against one KV head.
#[derive(Clone, Copy)]
struct Task {
    segment: Segment,
    /// First token, counted from the start of the batch.
    first: usize,
    /// First query head.
    head: usize,
}

/// Query heads of a task: those that share a KV head, or a part of them where they are many.
fn heads_of_task(group: usize) -> usize {
    if group <= HEADS {
        return group;
    }
    (4..=HEADS).rev().find(|&part| group.is_multiple_of(part)).unwrap_or(group)
}

/// From `scratch.q` and the cache to `scratch.attended`, `[tokens, heads * dim_v]`.
fn operate(pass: &mut Pass<'_>, job: &Job<'_>, layout: QueryLayout) -> Result<(), ModelError> {
    let &Job { attention, config, .. } = job;
    let (cpu, kv): (_, &KvCache) = (pass.worker.cpu, pass.kv);
    let group = config.heads / config.kv_heads;
    let heads = heads_of_task(group);
    let out_stride = (config.heads * config.dim_v).next_multiple_of(16);
    let s = &mut *pass.scratch;
    s.attended.resize(pass.tokens * out_stride);
    let mut cuts = vec![0];
    let mut tasks = Vec::new();
    for &segment in pass.segments {
        for first in (segment.first..segment.first + segment.tokens).step_by(TOKENS) {
            cuts.push((first + TOKENS).min(segment.first + segment.tokens));
            tasks.extend((0..config.heads).step_by(heads).map(|head| Task { segment, first, head }));
        }
    }
    let mut tiles = tiles_mut(&mut s.attended, out_stride, &cuts, heads * config.dim_v, config.heads / heads);
    let (q, workers, cancel) = (&s.q, &s.workers, pass.worker.cancel);
    pass.worker.pool.for_each_worker(&mut tiles, |i, thread, out| {
        if cancel.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let Task { segment, first, head } = tasks[i];
        let tokens = out.rows();
        let worker = &mut *workers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        worker.queries.clear();
        for t in first..first + tokens {
            let position = segment.position + t - segment.first;
            for head in head..head + heads {
                worker.queries.push(cpu, attention, &q[t * layout.token + head * layout.head..][..config.dim_k], position);
            }
        }
        let last = segment.position + first + tokens - 1 - segment.first;
        let table = kv.pages(segment.sequence, job.pages, head / group, last + 1);
        let rows = tokens * heads;
        worker.state.reset(attention, rows);
        attend(
            cpu,
            Attend {
                attention,
                pages: &table.pages,
                first_page: table.first,
                after: &[],
                queries: &worker.queries,
                rows: 0..rows,
                chunks: attention.chunks(last + 1 - tokens, last),
                state: &mut worker.state,
                work: &mut worker.work,
            },
        );
        for t in 0..tokens {
            for (h, out) in out.row_mut(t).chunks_exact_mut(config.dim_v).enumerate() {
                worker.state.finish(cpu, t * heads + h, job.sinks.map(|sinks| sinks[head + h]), out);
            }
        }
    });
    pass.worker.check()
}
