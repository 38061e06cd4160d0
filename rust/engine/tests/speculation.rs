//! Guesses make texts that repeat themselves quicker, no text slower, and change none.

mod common;

use std::time::Duration;

use common::*;
use fastllm_engine::sampling::SamplingParams;
use fastllm_engine::{Engine, EngineOptions, FinishReason, Request};

/// Text that mostly goes on as it did after the same token, but sometimes otherwise.
fn repeating(history: &[u32]) -> Vec<f32> {
    let last = history.last().copied().unwrap_or(0);
    let mut logits = logits_after(&history[history.len().saturating_sub(1)..]);
    let surprise = history.len() % 23 == 0;
    logits[(last as usize * 7 + 3 + usize::from(surprise)) % VOCAB] += 12.0;
    logits
}

/// Text of which a third comes as a surprise.
fn capricious(history: &[u32]) -> Vec<f32> {
    let last = history.last().copied().unwrap_or(0);
    let mut logits = vec![0.0; VOCAB];
    let surprise = (history.len() as u32).wrapping_mul(2_654_435_761) >> 9;
    logits[(last as usize * 7 + 3 + usize::from(surprise.is_multiple_of(3)) * surprise as usize) % VOCAB] = 12.0;
    logits
}

/// An engine on which a pass takes a millisecond, and `row` more for every row.
fn engine(text: fn(&[u32]) -> Vec<f32>, speculate: bool, row: Duration) -> Engine {
    let hook = move |rows: &[fastllm_model::batch::Row], cancel: &std::sync::atomic::AtomicBool| {
        compute(Duration::from_millis(1) + row * rows.len() as u32, cancel)
    };
    let mock = Mock { text, spare: 64, ..Mock::with_hook(hook) };
    Engine::start(mock, EngineOptions { max_sequences: 8, prefill_chunk: 32, speculate, ..EngineOptions::default() }).unwrap()
}

fn varied(n: u32) -> Request {
    let prompt: Vec<u32> = (0..20 + n).map(|i| (i * 7 + n) % VOCAB as u32).collect();
    let sampling = SamplingParams {
        seed: Some(u64::from(n)),
        temperature: (n % 3) as f32 * 0.4,
        frequency_penalty: if n.is_multiple_of(4) { 0.01 } else { 0.0 },
        logprobs: n.is_multiple_of(2).then_some(2),
        ..SamplingParams::default()
    };
    let mut request = Request { sampling, max_tokens: Some(90 + n * 17 % 60), ..request(&prompt) };
    if n.is_multiple_of(5) {
        request.stop.strings = vec!["<17><22>".into()];
    }
    if n.is_multiple_of(3) {
        request.end_of_generation = [n % 11].into();
    }
    request
}

#[test]
fn guesses_change_no_text() {
    let texts: [(fn(&[u32]) -> Vec<f32>, bool); 2] = [(repeating, true), (logits_after, false)];
    for (text, repeats) in texts {
        let plain = engine(text, false, Duration::ZERO);
        let expected: Vec<Outcome> = (0..24).map(|n| collect(&plain.submit(varied(n)).unwrap())).collect();
        let guessing = engine(text, true, Duration::ZERO);
        let alone: Vec<Outcome> = (0..24).map(|n| collect(&guessing.submit(varied(n)).unwrap())).collect();
        let handles: Vec<_> = (0..24).map(|n| guessing.submit(varied(n)).unwrap()).collect();
        let together: Vec<Outcome> = handles.iter().map(collect).collect();
        for (n, expected) in expected.iter().enumerate() {
            for outcome in [&alone[n], &together[n]] {
                assert_eq!(outcome.tokens, expected.tokens, "request {n}");
                let (found, wanted) = (outcome.finished(), expected.finished());
                assert_eq!((found.reason, found.stop, &found.text), (wanted.reason, wanted.stop, &wanted.text));
                assert_eq!(found.usage.completion_tokens, wanted.usage.completion_tokens);
            }
        }
        if repeats {
            let stats = guessing.stats();
            assert!(stats.accepted_tokens * 2 > stats.drafted_tokens && stats.accepted_tokens > 1000, "{stats:?}");
        }
    }
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_passes() {
    let passes = |speculate: bool| {
        let mock = Mock { text: repeating, spare: 64, ..Mock::with_hook(|_, cancel| compute(Duration::from_millis(1), cancel)) };
        let log = std::sync::Arc::clone(&mock.log);
        let options = EngineOptions { speculate, ..EngineOptions::default() };
        let engine = Engine::start(mock, EngineOptions { max_sequences: 8, ..options }).unwrap();
        let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let outcome = collect(&engine.submit(Request { sampling, max_tokens: Some(400), ..request(&[1, 2, 3]) }).unwrap());
        assert_eq!((outcome.ids().len(), outcome.finished().reason), (400, FinishReason::Length));
        log.lock().unwrap().len()
    };
    assert_eq!(passes(false), 400);
    assert!(passes(true) < 150);
}

#[test]
fn nothing_is_guessed_where_rows_are_dear() {
    // Two of three guesses come true, but a second row takes four fifths of the time of the first.
    let engine = engine(capricious, true, Duration::from_millis(4));
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    collect(&engine.submit(Request { sampling, max_tokens: Some(200), ..request(&[1, 2, 3]) }).unwrap()).finished();
    let stats = engine.stats();
    assert!(stats.drafted_tokens < 20, "{stats:?}");
}

#[test]
fn nothing_is_guessed_where_nothing_comes_true() {
    let engine = engine(logits_after, true, Duration::ZERO);
    for n in 0..10 {
        let sampling = SamplingParams { seed: Some(n), ..SamplingParams::default() };
        collect(&engine.submit(Request { sampling, max_tokens: Some(200), ..request(&[1, 2, 3]) }).unwrap()).finished();
    }
    let stats = engine.stats();
    assert!(stats.drafted_tokens < 2000, "{stats:?}");
}
