//! Attention of a layer: projections, rotation, the cache, the operator.
use crate::ModelError;
use crate::config::AttentionConfig;
use crate::kv_cache::{KvCache, LayerPages};
use crate::transformer::{Pass, Segment, add_bias, for_rows};
use crate::weights::{Layer, Loaded};
use fastllm_kernels::attention::{Attend, Attention, PAGE, Strided, attend};
use fastllm_kernels::buffer::tiles_mut;
use fastllm_kernels::linear::Product;
use std::sync::PoisonError;

/// Query tokens of a task: enough rows to share the reading of keys and values, few enough to share the work.
const TOKENS: usize = 16;

/// From `scratch.normed` to `scratch.attended`.
pub fn forward(pass: &mut Pass<'_>, index: usize, layer: &Layer<Loaded>) -> Result<(), ModelError> {
    let config = &pass.model.config.layers[index].attention;
    project(pass, layer, config)?;
    rotate(pass, layer, config);
    let pages = pass.kv.shape().layer(index);
    write(pass, pages, layer);
    let attention = Attention { layout: pages.layout, scale: config.scale, softcap: None, window: config.window };
    operate(pass, &attention, pages, config, layer)
}

fn project(pass: &mut Pass<'_>, layer: &Layer<Loaded>, config: &AttentionConfig) -> Result<(), ModelError> {
    let tokens = pass.tokens;
    let s = &mut *pass.scratch;
    let (q, k, v) = (&layer.q.weight, &layer.k.weight, &layer.v.weight);
    pass.worker.fill(&mut s.activations, &[q, k, v], &s.normed, pass.hidden_stride, tokens);
    s.q.resize(tokens * q.padded_rows());
    s.k.resize(tokens * k.padded_rows());
    s.v.resize(tokens * v.padded_rows());
    let x = &s.activations;
    pass.worker.multiply(&[Product::new(q, x, &mut s.q), Product::new(k, x, &mut s.k), Product::new(v, x, &mut s.v)])?;
    debug_assert_eq!(q.rows(), config.heads * config.dim_k);
    Ok(())
}

fn rotate(pass: &mut Pass<'_>, layer: &Layer<Loaded>, config: &AttentionConfig) {
    let (cpu, pool, ropes) = (pass.worker.cpu, pass.worker.pool, pass.ropes);
    let s = &mut *pass.scratch;
    let parts = [(&mut s.q, &layer.q, config.heads), (&mut s.k, &layer.k, config.kv_heads)];
    for (data, projection, heads) in parts {
        for_rows(pool, data, projection.weight.padded_rows(), |t, row| {
            add_bias(cpu, projection.bias.as_deref(), row);
            ropes.rotate(cpu, config.rope, t, &mut row[..heads * config.dim_k], config.dim_k);
        });
    }
    if layer.v.bias.is_some() {
        for_rows(pool, &mut s.v, layer.v.weight.padded_rows(), |_, row| add_bias(cpu, layer.v.bias.as_deref(), row));
    }
}

/// Writes the new keys and values to the pages.
fn write(pass: &mut Pass<'_>, layer_pages: LayerPages, layer: &Layer<Loaded>) {
    let (cpu, layout) = (pass.worker.cpu, layer_pages.layout);
    let (k_stride, v_stride) = (layer.k.weight.padded_rows(), layer.v.weight.padded_rows());
    let s = &*pass.scratch;
    for segment in pass.segments {
        let end = segment.position + segment.tokens;
        let mut taken = pass.kv.take(segment.sequence, layer_pages, segment.position, end);
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
            let k = Strided { data: &s.k[*token * k_stride + *head * layout.dim_k()..], stride: k_stride };
            let v = Strided { data: &s.v[*token * v_stride + *head * layout.dim_v()..], stride: v_stride };
            layout.write(cpu, page, *slot, *count, k, v);
        };
        if segment.tokens < 8 {
            jobs.iter_mut().for_each(run);
        } else {
            pass.worker.pool.for_each_mut(&mut jobs, |_, job| run(job));
        }
    }
}

/// Queries of some tokens of a sequence against one KV head.
#[derive(Clone, Copy)]
struct Task {
    segment: Segment,
    /// First token, counted from the start of the batch.
    first: usize,
    head: usize,
}

fn operate(
    pass: &mut Pass<'_>,
    attention: &Attention,
    pages: LayerPages,
    config: &AttentionConfig,
    layer: &Layer<Loaded>,
) -> Result<(), ModelError> {
    let (cpu, kv): (_, &KvCache) = (pass.worker.cpu, pass.kv);
    let group = config.heads / config.kv_heads;
    let (q_stride, out_stride) = (layer.q.weight.padded_rows(), (config.heads * config.dim_v).next_multiple_of(16));
    let s = &mut *pass.scratch;
    s.attended.resize(pass.tokens * out_stride);
    let mut cuts = vec![0];
    let mut tasks = Vec::new();
    for &segment in pass.segments {
        for first in (segment.first..segment.first + segment.tokens).step_by(TOKENS) {
            cuts.push((first + TOKENS).min(segment.first + segment.tokens));
            tasks.extend((0..config.kv_heads).map(|head| Task { segment, first, head }));
        }
    }
    let mut tiles = tiles_mut(&mut s.attended, out_stride, &cuts, group * config.dim_v, config.kv_heads);
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
            for row in q[t * q_stride + head * group * config.dim_k..].chunks_exact(config.dim_k).take(group) {
                worker.queries.push(cpu, attention, row, position);
            }
        }
        let last = segment.position + first + tokens - 1 - segment.first;
        let table = kv.pages(segment.sequence, pages, head, last + 1);
        let rows = tokens * group;
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
            for (g, out) in out.row_mut(t).chunks_exact_mut(config.dim_v).enumerate() {
                worker.state.finish(cpu, t * group + g, None, out);
            }
        }
    });
    pass.worker.check()
}
