//! The plan against what is allocated.
mod common;

use common::small_models::{self, Shape};
use common::{TempFile, context, forward, options, rows};
use fastllm_gguf::{DType, GgufFile};
use fastllm_kernels::attention::CacheType;
use fastllm_model::{LoadOptions, MAX_ROWS, MemoryPlan};

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
