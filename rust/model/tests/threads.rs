//! Threads share heads, tokens and, where these are few, the context: the same bits for any number of them.
mod variants;
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use variants::models;

/// Positions before the passes: several chunks of the context for each thread.
const DEPTH: u32 = 1300;

fn context(file: &GgufFile, threads: usize, cache_type: CacheType) -> Context {
    let options = LoadOptions { threads: Some(threads), cache_type, ..LoadOptions::default() };
    Context::new(Arc::new(Model::load(file, &options, &mut |_, _| true).unwrap())).unwrap()
}

/// Logits of passes of 1, 3, 17 and 70 tokens of a deep sequence, beside a token of a short one.
fn logits(mut context: Context) -> Vec<u32> {
    let (deep, short, cancel) = (context.open(), context.open(), AtomicBool::new(false));
    let row = |sequence, position: u32, logits| Row { sequence, position, token: (position * 5 + 11) % 512, logits };
    let (mut at, mut out) = (0, Vec::new());
    while at < DEPTH {
        let count = (DEPTH - at).min(500);
        let rows: Vec<Row> = (at..at + count).map(|position| row(deep, position, false)).collect();
        context.forward(&rows, &cancel).unwrap();
        at += count;
    }
    for (i, count) in [1, 3, 17, 70].into_iter().enumerate() {
        let mut rows: Vec<Row> = (at..at + count).map(|position| row(deep, position, true)).collect();
        rows.push(row(short, i as u32, true));
        out.extend(context.forward(&rows, &cancel).unwrap().iter().map(|x| x.to_bits()));
        at += count;
    }
    out
}

#[test]
fn bits_do_not_depend_on_how_threads_share_a_deep_context() {
    for (name, mut parts) in models() {
        let keys: Vec<String> = parts.metadata.iter().map(|(key, _)| key.clone()).filter(|key| key.ends_with(".context_length")).collect();
        for key in &keys {
            parts.set(key, 2048u32);
        }
        let file = parts.open();
        for cache_type in [CacheType::F16, CacheType::Q8_0] {
            let reference = logits(context(&file, 1, cache_type));
            for threads in [2, 5, 16] {
                let same = logits(context(&file, threads, cache_type)) == reference;
                assert!(same, "{name}, {} cache, {threads} threads", cache_type.name());
            }
        }
    }
}
