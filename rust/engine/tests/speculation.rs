//! Guesses make texts that repeat themselves quicker, no text slower, and change none.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use fastllm_engine::sampling::SamplingParams;
use fastllm_engine::{Engine, EngineOptions, FinishReason, Request};
use fastllm_model::batch::Row;

/// The logits after a history.
type Text = fn(&[u32]) -> Vec<f32>;

/// Text that mostly goes on as it did after the same token, but sometimes otherwise.
fn repeating(history: &[u32]) -> Vec<f32> {
    let last = history.last().copied().unwrap_or(0);
    let mut logits = logits_after(&history[history.len().saturating_sub(1)..]);
    let surprise = history.len().is_multiple_of(23);
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
fn engine(text: Text, speculate: bool, row: Duration) -> Engine {
    let hook =
        move |rows: &[Row], cancel: &std::sync::atomic::AtomicBool| compute(Duration::from_millis(1) + row * rows.len() as u32, cancel);
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
    for (text, repeats) in [(repeating as Text, true), (logits_after, false)] {
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
        let log = Arc::clone(&mock.log);
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

/// What a draft model makes of [`logits_after`]: right about three times of four.
fn nearly(history: &[u32]) -> Vec<f32> {
    let mut logits = logits_after(history);
    if (history.iter().sum::<u32>() * 7).is_multiple_of(4) {
        logits[history.len() % VOCAB] += 20.0;
    }
    logits
}

/// An engine whose draft model takes `time` for a pass, and the passes of the draft model.
fn with_draft(draft: Text, time: Duration) -> (Engine, Arc<Mutex<Vec<Vec<Row>>>>) {
    let hook = move |time: Duration| move |_: &[Row], cancel: &std::sync::atomic::AtomicBool| compute(time, cancel);
    let large = Mock { spare: 64, ..Mock::with_hook(hook(Duration::from_millis(3))) };
    let small = Mock { spare: 64, text: draft, ..Mock::with_hook(hook(time)) };
    let log = Arc::clone(&small.log);
    let engine = Engine::start_with_draft(large, Some(small), EngineOptions { max_sequences: 8, ..EngineOptions::default() }).unwrap();
    (engine, log)
}

#[test]
fn a_draft_model_changes_no_text() {
    let plain = engine(logits_after, false, Duration::ZERO);
    let expected: Vec<Outcome> = (0..16).map(|n| collect(&plain.submit(varied(n)).unwrap())).collect();
    let (engine, _) = with_draft(nearly, Duration::ZERO);
    let alone: Vec<Outcome> = (0..16).map(|n| collect(&engine.submit(varied(n)).unwrap())).collect();
    let handles: Vec<_> = (0..16).map(|n| engine.submit(varied(n)).unwrap()).collect();
    let together: Vec<Outcome> = handles.iter().map(collect).collect();
    for (n, expected) in expected.iter().enumerate() {
        assert_eq!(alone[n].tokens, expected.tokens, "request {n}");
        assert_eq!(together[n].tokens, expected.tokens, "request {n} in company");
    }
    let stats = engine.stats();
    assert!(stats.accepted_tokens > 300, "{stats:?}");
}

#[test]
fn a_draft_model_saves_passes_if_it_is_quick_and_right() {
    let run = |(engine, log): (Engine, Arc<Mutex<Vec<Vec<Row>>>>)| {
        let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        collect(&engine.submit(Request { sampling, max_tokens: Some(300), ..request(&[1, 2, 3]) }).unwrap()).finished();
        (engine.stats().accepted_tokens, log.lock().unwrap().len())
    };
    let quick = run(with_draft(nearly, Duration::ZERO));
    assert!(quick.0 > 130, "{quick:?}");
    let slow = run(with_draft(nearly, Duration::from_millis(12)));
    assert!(slow.1 < 30, "{slow:?}");
    let wrong = run(with_draft(|_| vec![0.0; VOCAB], Duration::ZERO));
    // Of 4500 that could be asked for: a chance of nothing is found out within some 30 guesses.
    assert!(wrong.1 < 600, "{wrong:?}");
}

#[test]
fn a_draft_model_that_fails_changes_nothing() {
    let mut calls = 0;
    let small = Mock {
        spare: 64,
        text: nearly,
        ..Mock::with_hook(move |_, _| {
            calls += 1;
            assert!(calls % 5 != 3, "a panic of the draft model");
            if calls % 5 == 4 { Err(fastllm_engine::DecodeError::OutOfMemory { needed: 1, available: 0 }) } else { Ok(()) }
        })
    };
    let large = Mock { spare: 64, ..Mock::with_hook(|_, cancel| compute(Duration::from_millis(1), cancel)) };
    let engine = Engine::start_with_draft(large, Some(small), EngineOptions::default()).unwrap();
    let plain = engine_without();
    for n in 0..6 {
        assert_eq!(collect(&engine.submit(varied(n)).unwrap()).tokens, collect(&plain.submit(varied(n)).unwrap()).tokens);
    }
}

fn engine_without() -> Engine {
    engine(logits_after, false, Duration::ZERO)
}

#[test]
fn a_draft_model_must_fit() {
    let other = Engine::start_with_draft(Mock { spare: 64, ..Mock::default() }, Some(Mock::default()), EngineOptions::default());
    assert!(other.unwrap_err().to_string().contains("recurrent"));
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
