//! Many requests at once: none changes another, and none outlives its end.

mod common;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::*;
use fastllm_engine::sampling::{SampleError, SamplingParams};
use fastllm_engine::{DecodeError, Decoder, Engine, EngineOptions, Event, Failure, FinishReason, Logits, Next, Request, SubmitError};
use fastllm_model::batch::{Row, SequenceId};

/// A varied request; `n` decides everything.
fn varied(n: u32) -> Request {
    let prompt: Vec<u32> = (0..=n * 37 % 200).map(|i| (i * i + n) % VOCAB as u32).collect();
    let sampling = SamplingParams {
        seed: Some(u64::from(n)),
        temperature: (n % 4) as f32 * 0.5,
        top_p: if n.is_multiple_of(3) { 0.8 } else { 1.0 },
        frequency_penalty: (n % 2) as f32,
        ..SamplingParams::default()
    };
    let mut request = Request { sampling, max_tokens: Some(1 + n * 13 % 60), ..request(&prompt) };
    if n.is_multiple_of(5) {
        request.stop.strings = vec![format!("{}>", n % 10)];
    }
    request
}

#[test]
fn a_result_does_not_depend_on_what_else_runs() {
    let solo: Vec<Outcome> = {
        let engine = start(Mock::default());
        (0..40).map(|n| collect(&engine.submit(varied(n)).unwrap())).collect()
    };
    for (max_sequences, prefill_chunk, max_rows) in [(8, 32, 64), (1, 1, 1), (40, 256, 64), (5, 3, 5), (3, 7, 64)] {
        let mock = Mock { max_rows, ..Mock::default() };
        let engine =
            Engine::start(mock, EngineOptions { max_sequences, max_queue: 64, prefill_chunk, ..EngineOptions::default() }).unwrap();
        let handles: Vec<_> = (0..40).map(|n| engine.submit(varied(n)).unwrap()).collect();
        for (n, (handle, solo)) in handles.iter().zip(&solo).enumerate() {
            let outcome = collect(handle);
            assert_eq!(outcome.tokens, solo.tokens, "request {n} with {max_sequences} sequences, chunks of {prefill_chunk}");
            assert_eq!((outcome.finished().reason, outcome.finished().stop), (solo.finished().reason, solo.finished().stop));
        }
    }
}

#[test]
fn short_prompts_and_decoding_do_not_wait_for_a_long_prompt() {
    let mock = Mock::with_hook(|_, cancel| compute(Duration::from_millis(1), cancel));
    let log = Arc::clone(&mock.log);
    let engine = start(mock);
    let decoding = engine.submit(Request { max_tokens: Some(4000), ..request(&[1]) }).unwrap();
    while !matches!(next_event(&decoding), Event::Token(_)) {}
    let long = engine.submit(request(&[2; 4000])).unwrap();
    assert!(matches!(next_event(&long), Event::Prefill { done: 32, total: 4000 }));
    let short = engine.submit(Request { max_tokens: Some(3), ..request(&[3; 20]) }).unwrap();
    assert_eq!(collect(&short).ids().len(), 3);
    let mut done = 32;
    while let Next::Event(Event::Prefill { done: now, .. }) = long.next(Duration::ZERO) {
        done = now;
    }
    assert!(done < 2000, "the short prompt waited until {done} tokens of the long one were read");
    // The long prompt is read, step by step, with a token for the first request in each.
    while done < 2000 {
        match next_event(&long) {
            Event::Prefill { done: now, .. } => done = now,
            other => panic!("{other:?}"),
        }
    }
    let log = log.lock().unwrap();
    let mixed: Vec<_> = log.iter().filter(|rows| rows.len() > 16).collect();
    assert!(mixed.len() >= 60 && mixed.iter().all(|rows| rows[0].logits && rows[0].sequence != rows[1].sequence));
}

#[test]
fn on_a_slow_machine_prompts_are_read_in_smaller_parts_while_others_decode() {
    // A row of a prompt takes two milliseconds: a step of 256 would be half a second.
    let mock = Mock::with_hook(|rows, cancel| compute(Duration::from_millis(2 * rows.len() as u64), cancel));
    let log = Arc::clone(&mock.log);
    let engine = Engine::start(Mock { max_rows: 512, ..mock }, EngineOptions::default()).unwrap();
    let decoding = engine.submit(Request { max_tokens: Some(500), ..request(&[1]) }).unwrap();
    while !matches!(next_event(&decoding), Event::Token(_)) {}
    let long = engine.submit(Request { max_tokens: Some(1), ..request(&[2; 1200]) }).unwrap();
    collect(&long).finished();
    drop(decoding);
    let alone = engine.submit(Request { max_tokens: Some(1), ..request(&[3; 600]) }).unwrap();
    collect(&alone).finished();
    let log = log.lock().unwrap();
    let of =
        |token: u32| log.iter().map(|rows| rows.iter().filter(|row| row.token == token).count()).filter(|&n| n > 1).collect::<Vec<_>>();
    let (long, alone) = (of(2), of(3));
    assert_eq!(long[0], 256, "nothing is known before the first");
    assert!(long[1..long.len() - 1].iter().all(|&rows| (32..=200).contains(&rows)), "{long:?}");
    assert_eq!(alone[..2], [256, 256]);
}

/// Forward passes with more than 8 rows take ten seconds, all others a millisecond. Says when a long one starts.
fn slow_prefill() -> (Mock, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let hook = move |rows: &[Row], cancel: &AtomicBool| {
        if rows.len() <= 8 {
            return compute(Duration::from_millis(1), cancel);
        }
        let _ = sender.send(());
        compute(Duration::from_secs(10), cancel)
    };
    (Mock::with_hook(hook), receiver)
}

fn expect_reason(outcome: &Outcome, reason: FinishReason) {
    assert_eq!(outcome.finished().reason, reason);
}

#[test]
fn a_cancelled_prefill_stops_within_its_chunk_and_others_go_on() {
    let (mock, started) = slow_prefill();
    let engine = start(mock);
    let running = engine.submit(Request { max_tokens: Some(300), ..request(&[1]) }).unwrap();
    assert!(matches!(next_event(&running), Event::Prefill { .. }));
    let victim = engine.submit(request(&[5; 1000])).unwrap();
    started.recv_timeout(Duration::from_secs(10)).unwrap();
    let cancelled = Instant::now();
    victim.cancel();
    expect_reason(&collect(&victim), FinishReason::Cancelled);
    assert!(cancelled.elapsed() < Duration::from_millis(250), "{:?}", cancelled.elapsed());
    assert_eq!(collect(&running).ids().len(), 300);
}

#[test]
fn an_aborted_step_changes_nothing_for_the_others() {
    let sampling = SamplingParams { seed: Some(3), ..SamplingParams::default() };
    let request_a = || Request { sampling: sampling.clone(), max_tokens: Some(200), ..request(&[9]) };
    let solo = collect(&start(Mock::default()).submit(request_a()).unwrap());
    let (mock, started) = slow_prefill();
    let engine = start(mock);
    let a = engine.submit(request_a()).unwrap();
    // Every prompt is cancelled while a step with it and the first request is under way.
    for _ in 0..20 {
        let victim = engine.submit(request(&[5; 100])).unwrap();
        if started.recv_timeout(Duration::from_millis(500)).is_err() {
            break;
        }
        drop(victim);
    }
    assert_eq!(collect(&a).tokens, solo.tokens);
}

#[test]
fn a_storm_of_cancellations_does_not_starve_a_prompt() {
    let mock = Mock::with_hook(|rows, cancel| compute(Duration::from_micros(100 * rows.len() as u64), cancel));
    let engine = Arc::new(start(mock));
    let handle = engine.submit(Request { max_tokens: Some(50), ..request(&[4; 1000]) }).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let storm = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut cancelled = 0;
            while !stop.load(Ordering::Relaxed) {
                let handle = engine.submit(request(&[5; 1000])).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                drop(handle);
                cancelled += 1;
            }
            cancelled
        })
    };
    let outcome = collect(&handle);
    stop.store(true, Ordering::Relaxed);
    assert!(storm.join().unwrap() > 10);
    assert_eq!(outcome.ids().len(), 50);
}

#[test]
fn an_abandoned_request_frees_its_place_and_computes_no_more() {
    let engine = start(Mock::with_hook(|_, cancel| compute(Duration::from_millis(2), cancel)));
    let handle = engine.submit(request(&[1, 2, 3])).unwrap();
    for _ in 0..3 {
        next_event(&handle);
    }
    assert_eq!(engine.stats().running, 1);
    drop(handle);
    let dropped = Instant::now();
    eventually("the place is free", || engine.stats().running == 0);
    assert!(dropped.elapsed() < Duration::from_millis(250));
    let computed = engine.stats().computed_tokens;
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(engine.stats().computed_tokens, computed);
}

#[test]
fn time_limits_hold_while_waiting_reading_and_decoding() {
    let limit = Some(Duration::from_millis(50));
    let timed = |prompt: &[u32]| Request { timeout: limit, ..request(prompt) };
    let (mock, _started) = slow_prefill();
    let engine =
        Engine::start(mock, EngineOptions { max_sequences: 1, max_queue: 8, prefill_chunk: 32, ..EngineOptions::default() }).unwrap();
    let begun = Instant::now();
    let (reading, waiting) = (engine.submit(timed(&[1; 40])).unwrap(), engine.submit(timed(&[1])).unwrap());
    let outcome = collect(&reading);
    expect_reason(&outcome, FinishReason::Timeout);
    assert_eq!((outcome.tokens.len(), outcome.finished().usage.prompt_tokens), (0, 40));
    expect_reason(&collect(&waiting), FinishReason::Timeout);
    assert!((50..300).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let decoding = engine.submit(timed(&[1])).unwrap();
    let outcome = collect(&decoding);
    expect_reason(&outcome, FinishReason::Timeout);
    assert!(outcome.tokens.len() > 3 && outcome.finished().usage.completion_tokens == outcome.tokens.len());
    let none = collect(&engine.submit(Request { timeout: Some(Duration::ZERO), ..request(&[1]) }).unwrap());
    expect_reason(&none, FinishReason::Timeout);
    assert_eq!(engine.stats().running, 0);
}

#[test]
fn a_time_limit_that_passes_during_submission_counts() {
    let (mock, started) = slow_prefill();
    let engine =
        Engine::start(mock, EngineOptions { max_sequences: 1, max_queue: 4, prefill_chunk: 32, ..EngineOptions::default() }).unwrap();
    let _busy = engine.submit(request(&[1; 40])).unwrap();
    started.recv_timeout(Duration::from_secs(10)).unwrap();
    for microseconds in 0..500 {
        let timeout = Some(Duration::from_micros(microseconds % 50));
        let waiting = engine.submit(Request { timeout, ..request(&[1]) }).unwrap();
        match waiting.next(Duration::from_secs(5)) {
            Next::Event(Event::Finished(finished)) => assert_eq!(finished.reason, FinishReason::Timeout),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_queue_refuses_and_a_cancelled_waiter_never_starts() {
    let (mock, started) = slow_prefill();
    let log = Arc::clone(&mock.log);
    let engine =
        Engine::start(mock, EngineOptions { max_sequences: 1, max_queue: 2, prefill_chunk: 32, ..EngineOptions::default() }).unwrap();
    let running = engine.submit(request(&[1; 40])).unwrap();
    started.recv_timeout(Duration::from_secs(10)).unwrap();
    let first = engine.submit(Request { max_tokens: Some(2), ..request(&[2]) }).unwrap();
    let second = engine.submit(Request { max_tokens: Some(2), ..request(&[3]) }).unwrap();
    assert_eq!(engine.submit(request(&[4])).unwrap_err(), SubmitError::Busy { waiting: 2, limit: 2 });
    first.cancel();
    expect_reason(&collect(&first), FinishReason::Cancelled);
    // Cancelling what waits leaves the running step alone and frees the place in the queue at once.
    assert_eq!((engine.stats().running, engine.stats().waiting), (1, 1));
    let third = engine.submit(Request { max_tokens: Some(2), ..request(&[4]) }).unwrap();
    drop(running);
    assert_eq!((collect(&second).ids().len(), collect(&third).ids().len()), (2, 2));
    assert!(log.lock().unwrap().iter().flatten().all(|row| row.position != 0 || row.token != 2));
}

/// Runs ten requests, one of which (prompt 7, 7, 7) meets `fault`; its failure.
fn one_of_ten(mock: Mock, faulty: impl Fn(Request) -> Request) -> Failure {
    let good = |n: u32| Request { max_tokens: Some(30), ..varied(n) };
    let solo: Vec<_> = {
        let engine = start(Mock::default());
        (10..19).map(|n| collect(&engine.submit(good(n)).unwrap()).tokens).collect()
    };
    let engine = start(mock);
    for _ in 0..3 {
        let mut handles: Vec<_> = (10..14).map(|n| engine.submit(good(n)).unwrap()).collect();
        let bad = engine.submit(faulty(request(&[7, 7, 7]))).unwrap();
        handles.extend((14..19).map(|n| engine.submit(good(n)).unwrap()));
        for (handle, solo) in handles.iter().zip(&solo) {
            assert_eq!(&collect(handle).tokens, solo);
        }
        assert!(collect(&bad).failure.is_some());
        eventually("all places are free", || engine.stats().running == 0);
    }
    collect(&engine.submit(faulty(request(&[7, 7, 7]))).unwrap()).failure.unwrap()
}

fn touches_fault(rows: &[Row]) -> bool {
    rows.windows(3).any(|rows| rows.iter().all(|row| row.token == 7 && row.sequence == rows[0].sequence))
}

#[test]
fn a_panic_in_the_forward_pass_ends_only_its_request() {
    let mock = Mock::with_hook(|rows, _| {
        assert!(!touches_fault(rows), "three sevens");
        Ok(())
    });
    match one_of_ten(mock, |request| request) {
        Failure::Panicked { stage: "the forward pass", message } => assert!(message.contains("three sevens")),
        other => panic!("{other}"),
    }
}

#[test]
fn an_error_of_the_forward_pass_ends_only_its_request() {
    let mock =
        Mock::with_hook(|rows, _| if touches_fault(rows) { Err(DecodeError::OutOfMemory { needed: 5, available: 4 }) } else { Ok(()) });
    let failure = one_of_ten(mock, |request| request);
    assert!(matches!(failure, Failure::Decode(DecodeError::OutOfMemory { needed: 5, available: 4 })));
}

#[test]
fn a_panic_in_the_text_ends_only_its_request() {
    struct Bad;
    impl fastllm_engine::Pieces for Bad {
        fn push(&mut self, _: u32, _: &mut String) {
            panic!("no such piece")
        }
        fn finish(&mut self, _: &mut String) {}
    }
    let failure = one_of_ten(Mock::default(), |request| Request { pieces: Box::new(Bad), ..request });
    assert!(matches!(failure, Failure::Panicked { stage: "sampling", .. }));
}

#[test]
fn a_request_with_nothing_left_to_sample_ends_alone() {
    let ban = |mut request: Request| {
        request.sampling.logit_bias = (0..VOCAB as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
        request
    };
    assert!(matches!(one_of_ten(Mock::default(), ban), Failure::Sample(SampleError::AllBanned)));
}

#[test]
fn a_decoder_that_claims_a_cancellation_does_not_hang_the_engine() {
    let engine = start(Mock::with_hook(|_, _| Err(DecodeError::Cancelled)));
    let outcome = collect(&engine.submit(request(&[1])).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::Decode(DecodeError::Cancelled))));
}

#[test]
fn a_step_that_fails_only_in_company_ends_nobody() {
    let solo: Vec<Outcome> = {
        let engine = start(Mock::default());
        (0..30).map(|n| collect(&engine.submit(varied(n)).unwrap())).collect()
    };
    let mut calls = 0;
    let engine = start(Mock::with_hook(move |rows, _| {
        calls += 1;
        let alone = rows.iter().all(|row| row.sequence == rows[0].sequence);
        assert!(alone || calls % 3 != 1, "a passing panic");
        if alone || calls % 3 != 2 { Ok(()) } else { Err(DecodeError::Failed("a passing error".into())) }
    }));
    let handles: Vec<_> = (0..30).map(|n| engine.submit(varied(n)).unwrap()).collect();
    for (handle, solo) in handles.iter().zip(&solo) {
        assert_eq!(collect(handle).tokens, solo.tokens);
    }
}

#[test]
fn a_hook_that_panics_does_not_stop_the_engine() {
    let engine = start(Mock::default());
    let panicking = Request { notify: Some(Box::new(|| panic!("a bad hook"))), max_tokens: Some(5), ..request(&[1]) };
    assert_eq!(collect(&engine.submit(panicking).unwrap()).ids().len(), 5);
    assert_eq!(collect(&engine.submit(Request { max_tokens: Some(5), ..request(&[1]) }).unwrap()).ids().len(), 5);
}

#[test]
fn nan_logits_end_the_request_with_an_error() {
    struct Nan(Mock);
    impl Decoder for Nan {
        fn vocab_size(&self) -> usize {
            self.0.vocab_size()
        }
        fn context_length(&self) -> usize {
            self.0.context_length()
        }
        fn max_rows(&self) -> usize {
            self.0.max_rows()
        }
        fn open(&mut self) -> Result<SequenceId, DecodeError> {
            self.0.open()
        }
        fn close(&mut self, sequence: SequenceId) {
            self.0.close(sequence);
        }
        fn keeps_all(&self) -> bool {
            self.0.keeps_all()
        }
        fn forkable(&self, sequence: SequenceId, most: usize) -> usize {
            self.0.forkable(sequence, most)
        }
        fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, DecodeError> {
            self.0.fork(sequence, len)
        }
        fn spare(&self) -> usize {
            self.0.spare()
        }
        fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), DecodeError> {
            self.0.truncate(sequence, len)
        }
        fn piece(&self, sequence: SequenceId, index: usize) -> Option<Cow<'_, [u8]>> {
            self.0.piece(sequence, index)
        }
        fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, DecodeError> {
            self.0.restore(sequence, index, piece)
        }
        fn cache_bytes(&self) -> usize {
            self.0.cache_bytes()
        }
        fn growth(&self, rows: &[Row]) -> usize {
            self.0.growth(rows)
        }
        fn shrink(&mut self, bytes: usize) {
            self.0.shrink(bytes);
        }
        fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, DecodeError> {
            self.0.forward(rows, cancel)?;
            self.0.logits.fill(f32::NAN);
            Ok(Logits::new(&self.0.logits, VOCAB))
        }
        fn bytes_read(&self, rows: &[Row]) -> u64 {
            self.0.bytes_read(rows)
        }
    }
    let engine = Engine::start(Nan(Mock::default()), EngineOptions::default()).unwrap();
    let outcome = collect(&engine.submit(request(&[1])).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::Sample(SampleError::InvalidLogit { id: 0, .. }))));
    assert_eq!(engine.stats().running, 0);
}

#[test]
fn requests_wait_while_no_sequence_can_be_opened() {
    let engine = start(Mock { max_open: 2, ..Mock::default() });
    let handles: Vec<_> = (0..20).map(|n| engine.submit(varied(n)).unwrap()).collect();
    for handle in &handles {
        collect(handle).finished();
    }
    let engine = start(Mock { max_open: 0, ..Mock::default() });
    let outcome = collect(&engine.submit(request(&[1])).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::Decode(DecodeError::OutOfMemory { .. }))));
}

#[test]
fn shutdown_ends_everything_and_drops_the_decoder() {
    let (mock, started) = slow_prefill();
    let alive = Arc::downgrade(&mock.alive);
    let engine =
        Engine::start(mock, EngineOptions { max_sequences: 1, max_queue: 8, prefill_chunk: 32, ..EngineOptions::default() }).unwrap();
    let handles = [engine.submit(request(&[1; 40])).unwrap(), engine.submit(request(&[1])).unwrap()];
    started.recv_timeout(Duration::from_secs(10)).unwrap();
    let begun = Instant::now();
    engine.shutdown();
    assert!(begun.elapsed() < Duration::from_millis(250));
    assert!(alive.upgrade().is_none());
    for handle in &handles {
        assert!(matches!(collect(handle).failure, Some(Failure::ShutDown)));
    }
    assert_eq!(engine.submit(request(&[1])).unwrap_err(), SubmitError::ShutDown);
    engine.shutdown();
}

#[test]
fn logits_are_read_beside_running_texts() {
    let engine = start(Mock::default());
    let solo = collect(&engine.submit(varied(31)).unwrap()).tokens;
    let handle = engine.submit(varied(31)).unwrap();
    let rows = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&rows);
    let visitor = Box::new(move |position: usize, row: &[f32]| sink.lock().unwrap().push((position, row.to_vec())));
    let reading = engine.submit_logits(vec![6; 500], visitor, None).unwrap();
    assert_eq!(collect(&handle).tokens, solo);
    expect_reason(&collect(&reading), FinishReason::Stop);
    let rows = rows.lock().unwrap();
    assert_eq!(rows.len(), 500);
    assert!(rows.iter().enumerate().all(|(n, (position, row))| n == *position && *row == logits_after(&[6; 500][..=n])));
}

#[test]
fn many_threads_use_one_engine() {
    let engine = Arc::new(Engine::start(Mock::default(), EngineOptions { max_queue: 8, ..EngineOptions::default() }).unwrap());
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || {
                let mut ids = Vec::new();
                for round in 0..20 {
                    let handle = loop {
                        match engine.submit(varied(n)) {
                            Ok(handle) => break handle,
                            Err(SubmitError::Busy { .. }) => std::thread::yield_now(),
                            Err(other) => panic!("{other}"),
                        }
                    };
                    if round % 3 == 1 {
                        let _ = handle.next(Duration::from_micros(u64::from(n) * 50));
                        continue;
                    }
                    ids.push(collect(&handle).ids());
                    assert!(matches!(handle.next(Duration::ZERO), Next::Closed));
                }
                ids
            })
        })
        .collect();
    for thread in threads {
        let ids = thread.join().unwrap();
        assert!(ids.iter().all(|other| *other == ids[0]));
    }
    eventually("nothing is left", || engine.stats().running + engine.stats().waiting == 0);
}
