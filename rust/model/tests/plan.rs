//! The plan against what is allocated.
mod common;

use common::small_models::{self, Shape};
use common::{TempFile, context, forward, options, rows};
use fastllm_gguf::{DType, GgufFile};
use fastllm_kernels::attention::CacheType;
use fastllm_kernels::linear::WeightType;
use fastllm_model::batch::SequenceId;
use fastllm_model::{LoadOptions, MAX_ROWS, MemoryPlan, TokenCost};

/// Weights and KV cache are planned to the byte, whatever the cache type and the window.
#[test]
fn weights_and_cache_are_planned_exactly() {
    for window in [None, Some(1u32), Some(100)] {
        for cache_type in CacheType::ALL {
            let mut writer = small_models::model(Shape { layers: 2, ..Shape::default() }, &[DType::F16, DType::Q8_0], true);
            writer.set("llama.context_length", 3000u32);
            if let Some(window) = window {
                writer.set("llama.attention.sliding_window", window);
            }
            let file = TempFile::new(&format!("plan-{}-{}", window.unwrap_or(0), cache_type.name()), &small_models::bytes(&writer));
            let plan = MemoryPlan::new(&GgufFile::open(&file.0).unwrap(), None, cache_type, 2).unwrap();
            assert_eq!(plan.context_length, 3000);
            let mut context = context(&file.0, &LoadOptions { cache_type, ..options(1) }).unwrap();
            assert_eq!(plan.weights, context.model().weight_bytes());
            let mut most = 0;
            let sequences = [context.open(), context.open()];
            for position in (0..plan.context_length).step_by(MAX_ROWS) {
                for sequence in sequences {
                    let count = MAX_ROWS.min(plan.context_length - position);
                    forward(&mut context, &rows(sequence, position, &vec![1; count])).unwrap();
                    most = most.max(context.kv().bytes());
                }
            }
            // With a window a sequence may touch a page more, where its chunks do not start with one.
            let slack = if window.is_some() { 2 * context.kv().shape().bytes(64, 1) } else { 0 };
            assert!(most <= plan.kv_cache && plan.kv_cache - most <= slack, "{most} of {}", plan.kv_cache);
        }
    }
}

/// The cost of a token is what a pass reads, and two operations for each weight that it meets.
#[test]
fn the_cost_of_a_token_is_that_of_a_pass() {
    // Files may hold types that are no weights, such as f64.
    let mut all: Vec<_> = small_models::every_type().into_iter().filter(|(name, _)| WeightType::from_name(name).is_some()).collect();
    assert!(!all.is_empty());
    all.extend([("dense", small_models::dense()), ("experts", small_models::experts()), ("k-quants", small_models::k_quants())]);
    for (name, writer) in all {
        let path = TempFile::new(&format!("cost-{name}"), &small_models::bytes(&writer));
        let file = GgufFile::open(&path.0).unwrap();
        let context = context(&path.0, &options(1)).unwrap();
        for position in [0, 70] {
            let cost = TokenCost::new(&file, CacheType::F16, position).unwrap();
            assert_eq!(cost.weights, context.model().bytes_read(1), "{name}");
            let pass = rows(SequenceId(0), position, &[1]);
            assert_eq!(cost.weights + cost.kv_cache, context.bytes_read(&pass), "{name}");
        }
    }
}

#[test]
fn operations_are_two_for_each_weight() {
    let shape = Shape::default();
    for (dtype, dense) in [(DType::F16, true), (DType::Q8_0, false)] {
        let path =
            TempFile::new(&format!("operations-{}", dtype.name()), &small_models::bytes(&small_models::model(shape, &[dtype], false)));
        let cost = TokenCost::new(&GgufFile::open(&path.0).unwrap(), CacheType::F16, 0).unwrap();
        let (q, kv) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
        let layer = 2 * shape.hidden * (q + 2 * kv + q + 3 * shape.width);
        let (layers, output) = (layer * shape.layers, 2 * shape.hidden * shape.vocab);
        let expected = if dense { [0, layers, 0, output] } else { [layers, 0, output, 0] };
        assert_eq!([cost.layers.integer, cost.layers.float, cost.output.integer, cost.output.float], expected, "{}", dtype.name());
    }
}

/// Numbers that no machine has do not overflow.
#[test]
fn huge_plans_saturate() {
    let mut writer = small_models::dense();
    writer.set("llama.context_length", 1u32 << 30);
    let file = TempFile::new("huge-plan", &small_models::bytes(&writer));
    let file = GgufFile::open(&file.0).unwrap();
    for (context, batch) in [(None, usize::MAX), (Some(usize::MAX), 1), (Some(usize::MAX), usize::MAX), (Some(0), 0), (Some(1), 1)] {
        let plan = MemoryPlan::new(&file, context, CacheType::F32, batch).unwrap();
        assert!(plan.total() >= plan.weights);
    }
}
