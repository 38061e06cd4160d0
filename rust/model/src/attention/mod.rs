//! Attention of a layer: projections, rotation, the cache, the operator.
mod heads;
mod latent;
mod operate;

use crate::ModelError;
use crate::config::{AttentionConfig, Mixer};
use crate::delta_net;
use crate::kv_cache::{KvCache, LayerPages};
use crate::transformer::{Pass, Segment, Worker};
use crate::weights::{self, Layer, Loaded};
use fastllm_kernels::attention::{Attention, PAGE, Strided};
use operate::operate;

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
