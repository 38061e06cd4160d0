//! Cancelling a pass: how soon it returns, and that nothing has changed. `FASTLLM_TEST_MODEL` names another file to measure.
mod common;

use common::small_models::{self, Shape};
use common::{TempFile, context, forward, options, rows};
use fastllm_gguf::DType;
use fastllm_model::{MAX_ROWS, ModelError};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_prompt_is_cancelled_soon_and_changes_nothing() {
    let shape = Shape { hidden: 1024, vocab: 2048, layers: 2, heads: 16, kv_heads: 4, dim: 64, width: 4096, experts: 0 };
    let mut writer = small_models::model(shape, &[DType::Q8_0], false);
    writer.set("llama.context_length", 4096u32);
    let file = TempFile::new("cancel", &small_models::bytes(&writer));
    let given = std::env::var_os("FASTLLM_TEST_MODEL").map(PathBuf::from);
    let mut context = context(given.as_ref().unwrap_or(&file.0), &options(2)).unwrap();
    let mut sequence = context.open();
    let (start, next): (Vec<u32>, [u32; 1]) = ((1..100).collect(), [7]);
    forward(&mut context, &rows(sequence, 0, &start)).unwrap();
    let mut whole = Duration::MAX;
    for _ in 0..3 {
        let other = context.open();
        let begin = Instant::now();
        context.forward(&rows(other, 0, &[5; MAX_ROWS]), &AtomicBool::new(false)).unwrap();
        whole = whole.min(begin.elapsed());
        context.close(other);
    }
    let mut times = Vec::new();
    for i in 0..20 {
        let (cancel, set) = (AtomicBool::new(false), Mutex::new(None));
        let prompt = rows(sequence, start.len(), &[5; MAX_ROWS]);
        let (result, returned) = std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(whole * i / 30);
                let mut set = set.lock().unwrap();
                cancel.store(true, Ordering::Relaxed);
                *set = Some(Instant::now());
            });
            let result = context.forward(&prompt, &cancel).map(<[f32]>::len);
            (result, Instant::now())
        });
        let set = set.into_inner().unwrap().unwrap();
        if result.is_ok() {
            // The thread with the flag came late: begin again.
            context.close(sequence);
            sequence = context.open();
            forward(&mut context, &rows(sequence, 0, &start)).unwrap();
            continue;
        }
        assert!(matches!(result, Err(ModelError::Cancelled)), "{result:?}");
        times.push(returned.saturating_duration_since(set));
        assert_eq!(context.kv().len(sequence), Some(start.len()));
    }
    assert!(times.len() >= 10, "{}", times.len());
    times.sort_unstable();
    // The last tenth is left to busy neighbours, who may keep a thread from running for longer.
    let (median, most) = (times[times.len() / 2], times[times.len() * 9 / 10 - 1]);
    println!("a pass of {whole:?} ends after the flag in {median:?}, in nine of ten cases {most:?}, at most {:?}", times[times.len() - 1]);
    assert!(most < Duration::from_millis(100), "{times:?}");
    let after = forward(&mut context, &rows(sequence, start.len(), &next)).unwrap();
    let fresh = context.open();
    let all: Vec<u32> = start.iter().chain(&next).copied().collect();
    assert_eq!(after, forward(&mut context, &rows(fresh, 0, &all)).unwrap());
}
