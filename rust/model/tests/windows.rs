//! Layers with a window keep the positions that it reaches, and no more.
mod variants;
use fastllm_kernels::attention::{CacheType, PAGE};
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use variants::Parts;

#[test]
fn memory_grows_with_the_layers_that_see_everything_only() {
    let file = Parts::of("gemma3").open();
    let options = LoadOptions { threads: Some(1), cache_type: CacheType::F16, ..LoadOptions::default() };
    let mut context = Context::new(Arc::new(Model::load(&file, &options, &mut |_, _| true).unwrap())).unwrap();
    let config = context.model().config().clone();
    let attention: Vec<_> = config.layers.iter().filter_map(|l| l.attention()).collect();
    // Bytes of a position of one layer: keys and values of 2 bytes a channel.
    let bytes: Vec<usize> = attention.iter().map(|a| a.kv_heads * (a.dim_k + a.dim_v) * 2).collect();
    let windowed: usize = attention.iter().zip(&bytes).filter(|(a, _)| a.window.is_some()).map(|(_, b)| b).sum();
    let all: usize = bytes.iter().sum();
    assert!(windowed > 0 && windowed < all);
    let (chunk, sequence) = (64, context.open());
    for first in (0..640u32).step_by(chunk) {
        let row = |i| Row { sequence, position: first + i, token: (first + 7 * i) % 512, logits: false };
        let rows: Vec<Row> = (0..chunk as u32).map(row).collect();
        context.forward(&rows, &AtomicBool::new(false)).unwrap();
        let positions = first as usize + chunk;
        // A window of 16 over chunks of 64: the page being written, the one before it, and a spare one.
        let kept = positions.min(3 * PAGE);
        assert_eq!(context.kv().bytes(), positions * (all - windowed) + kept * windowed, "{positions} positions");
        assert!(context.kv().bytes() <= context.kv().shape().bytes(positions, chunk));
    }
}
