//! One request at a time: what it returns, how it ends, what is refused.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use fastllm_engine::sampling::{MAX_LOGPROBS, Sampler, SamplingParams, Scratch};
use fastllm_engine::stop::{MAX_STOP_BYTES, MAX_STOP_STRINGS};
use fastllm_engine::{EngineOptions, Failure, FinishReason, Next, Request, RunError, StartError, StopCause, SubmitError, Usage};

/// The continuation of `prompt`, without an engine.
fn alone(prompt: &[u32], params: &SamplingParams, count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(params.clone(), prompt).unwrap();
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(sampler.sample(&logits_after(&tokens), &mut Scratch::default()).unwrap().id);
    }
    tokens.split_off(prompt.len())
}

fn seeded() -> SamplingParams {
    SamplingParams { seed: Some(42), top_p: 0.9, repetition_penalty: 1.2, ..SamplingParams::default() }
}

#[test]
fn an_engine_returns_what_model_and_sampler_give() {
    let prompt: Vec<u32> = (0..100).map(|i| i * 7 % 50).collect();
    let engine = start(Mock::default());
    let handle = engine.submit(Request { sampling: seeded(), max_tokens: Some(40), ..request(&prompt) }).unwrap();
    let outcome = collect(&handle);
    assert_eq!(outcome.ids(), alone(&prompt, &seeded(), 40));
    assert_eq!(outcome.text(), text_of(&outcome.ids()));
    assert_eq!(outcome.prefill, [(32, 100), (64, 100), (96, 100), (100, 100)]);
    let finished = outcome.finished();
    assert_eq!(finished.reason, FinishReason::Length);
    assert_eq!(finished.usage, Usage { prompt_tokens: 100, cached_tokens: 0, completion_tokens: 40 });
    let t = finished.timings;
    assert!(t.time_to_first_token >= t.prompt_seconds && t.prompt_seconds > 0.0 && t.decode_seconds > 0.0);
    assert_eq!(t.prompt_tokens_per_second, 100.0 / t.prompt_seconds);
    assert_eq!(t.decode_tokens_per_second, 39.0 / t.decode_seconds);
    assert!(t.gigabytes_per_second > 0.0);
}

/// Log-probabilities of the tokens of a prompt are those that the tokens get when they are generated, however the prompt is cut,
/// and whatever was kept of it.
#[test]
fn prompt_logprobs_are_those_of_generation() {
    let sampling = || SamplingParams { logprobs: Some(3), ..seeded() };
    let engine = start(Mock::default());
    let made = collect(&engine.submit(Request { sampling: sampling(), max_tokens: Some(99), ..request(&[5, 7]) }).unwrap());
    let text: Vec<u32> = [5, 7].into_iter().chain(made.ids()).collect();
    let wanted: Vec<_> = made.tokens.iter().map(|token| (token.id, token.logprobs.clone().unwrap())).collect();
    for max_tokens in [0, 1, 6] {
        let asked = || Request { sampling: sampling(), prompt_logprobs: Some(3), max_tokens: Some(max_tokens), ..request(&text) };
        for _ in 0..2 {
            let outcome = collect(&engine.submit(asked()).unwrap());
            let (first, rest) = outcome.prompt_logprobs.split_first().unwrap();
            assert_eq!((first.0, rest), (7, wanted.as_slice()));
            assert_eq!(outcome.ids(), alone(&text, &seeded(), max_tokens as usize));
            let usage = Usage { prompt_tokens: text.len(), cached_tokens: 0, completion_tokens: max_tokens as usize };
            assert_eq!((outcome.finished().reason, outcome.finished().usage), (FinishReason::Length, usage));
        }
    }
    let single = Request { prompt_logprobs: Some(0), max_tokens: Some(1), ..request(&[5]) };
    assert_eq!(collect(&engine.submit(single).unwrap()).prompt_logprobs, []);
    // Without them, a request that makes nothing leaves its state for others.
    collect(&engine.submit(Request { max_tokens: Some(0), ..request(&text) }).unwrap());
    let next = collect(&engine.submit(Request { max_tokens: Some(1), ..request(&text) }).unwrap());
    assert_eq!(next.finished().usage.cached_tokens, text.len() - 1);
}

#[test]
fn numbers_that_are_none_end_a_request_for_prompt_logprobs() {
    let text = |history: &[u32]| if history.len() == 40 { vec![f32::NAN; VOCAB] } else { logits_after(history) };
    let engine = start(Mock { text, ..Mock::default() });
    let asked = Request { prompt_logprobs: Some(1), max_tokens: Some(0), ..request(&[3; 60]) };
    let outcome = collect(&engine.submit(asked).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::Sample(_))), "{:?}", outcome.failure);
    assert_eq!(outcome.prompt_logprobs.len(), 32);
}

#[test]
fn a_full_context_ends_with_length() {
    for prompt_tokens in [1, 7, 9, 10] {
        let engine = start(Mock { context_length: 10, ..Mock::default() });
        let prompt = vec![3; prompt_tokens];
        let outcome = collect(&engine.submit(Request { sampling: seeded(), ..request(&prompt) }).unwrap());
        // The last token needs no place in the context.
        assert_eq!(outcome.ids(), alone(&prompt, &seeded(), 11 - prompt_tokens));
        assert_eq!(outcome.finished().reason, FinishReason::Length);
    }
}

#[test]
fn end_ids_and_stop_ids_end_the_text_and_are_no_part_of_it() {
    let engine = start(Mock::default());
    let made = alone(&[1], &seeded(), 20);
    let at = (1..20).find(|&i| !made[..i].contains(&made[i])).unwrap();
    let base = || Request { sampling: seeded(), max_tokens: Some(20), ..request(&[1]) };

    let mut stop_token = base();
    stop_token.stop.token_ids = vec![made[at]];
    let outcome = collect(&engine.submit(stop_token).unwrap());
    assert_eq!((outcome.ids().as_slice(), outcome.finished().stop), (&made[..at], Some(StopCause::Token(made[at]))));
    assert_eq!((outcome.finished().reason, outcome.finished().usage.completion_tokens), (FinishReason::Stop, at));

    let outcome = collect(&engine.submit(Request { end_of_generation: Arc::new([made[at]]), ..base() }).unwrap());
    assert_eq!((outcome.ids().as_slice(), outcome.finished().stop), (&made[..at], Some(StopCause::EndOfGeneration(made[at]))));

    let mut ignored = Request { end_of_generation: Arc::new([made[at]]), ..base() };
    ignored.stop.ignore_eos = true;
    let outcome = collect(&engine.submit(ignored).unwrap());
    assert_eq!((outcome.ids(), outcome.finished().reason, outcome.finished().stop), (made, FinishReason::Length, None));
}

#[test]
fn nothing_of_a_stop_string_is_reported() {
    let engine = start(Mock::default());
    let made = alone(&[1], &seeded(), 20);
    let mut request = Request { sampling: SamplingParams { logprobs: Some(2), ..seeded() }, max_tokens: Some(20), ..request(&[1]) };
    // From inside the fourth token to inside the sixth.
    request.stop.strings = vec!["never".into(), format!("{}><{}><", made[3], made[4])];
    let outcome = collect(&engine.submit(request).unwrap());
    assert_eq!(outcome.text(), format!("<{}><{}><{}><", made[0], made[1], made[2]));
    assert_eq!(outcome.ids(), made[..4]);
    assert!(outcome.tokens.iter().all(|token| token.logprobs.as_ref().is_some_and(|logprobs| logprobs.top.len() == 2)));
    assert_eq!(outcome.finished().stop, Some(StopCause::String(1)));
    assert_eq!(outcome.finished().usage.completion_tokens, 6);
}

#[test]
fn logits_of_all_positions() {
    let engine = start(Mock::default());
    let ids: Vec<u32> = (0..150).map(|i| i * i % 50).collect();
    let logits = engine.logits(ids.clone(), || false).unwrap();
    assert_eq!(logits.len(), 150 * VOCAB);
    for (position, row) in logits.chunks(VOCAB).enumerate() {
        assert_eq!(row, logits_after(&ids[..=position]), "position {position}");
    }
    assert!(matches!(engine.logits(vec![], || false), Err(RunError::Submit(SubmitError::EmptyPrompt))));
    assert!(matches!(engine.logits(vec![0; 5000], || false), Err(RunError::Submit(SubmitError::ContextOverflow { .. }))));
}

#[test]
fn logits_can_be_cancelled() {
    let engine = start(Mock::with_hook(|_, cancel| compute(Duration::from_secs(10), cancel)));
    assert!(matches!(engine.logits(vec![1; 20], || true), Err(RunError::Cancelled)));
    eventually("the sequence is closed", || engine.stats().running == 0);
}

#[test]
fn the_caller_is_notified_when_events_appear() {
    let engine = start(Mock::default());
    let (sender, receiver) = std::sync::mpsc::channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let notify = Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let _ = sender.send(());
    });
    let handle = engine.submit(Request { max_tokens: Some(200), notify: Some(notify), ..request(&[1]) }).unwrap();
    let mut outcome = Outcome::default();
    'all: loop {
        receiver.recv_timeout(Duration::from_secs(10)).expect("a notification");
        while let Next::Event(event) = handle.next(Duration::ZERO) {
            if outcome.add(event) {
                break 'all;
            }
        }
    }
    assert_eq!(outcome.ids().len(), 200);
    assert!(calls.load(Ordering::Relaxed) <= 202);
}

/// What submission says to a change of a valid request.
fn refusal(change: impl FnOnce(&mut Request)) -> SubmitError {
    let engine = start(Mock { context_length: 16, ..Mock::default() });
    let mut request = request(&[1, 2, 3]);
    change(&mut request);
    let error = engine.submit(request).map(drop).unwrap_err();
    assert_eq!(engine.stats().waiting + engine.stats().running, 0);
    error
}

#[test]
fn hostile_values_are_refused_by_name() {
    type Change = Box<dyn FnOnce(&mut Request)>;
    let mut cases: Vec<(&str, Change)> = Vec::new();
    for value in [f32::NAN, -1.0, -1e-30, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        cases.push(("temperature", Box::new(move |r| r.sampling.temperature = value)));
        cases.push(("top_p", Box::new(move |r| r.sampling.top_p = value)));
        cases.push(("min_p", Box::new(move |r| r.sampling.min_p = value)));
        cases.push(("typical_p", Box::new(move |r| r.sampling.typical_p = value)));
        cases.push(("repetition_penalty", Box::new(move |r| r.sampling.repetition_penalty = value)));
        cases.push(("dry_multiplier", Box::new(move |r| r.sampling.dry_multiplier = value)));
        cases.push(("dry_base", Box::new(move |r| r.sampling.dry_base = value)));
        cases.push(("xtc_probability", Box::new(move |r| r.sampling.xtc_probability = value)));
        cases.push(("xtc_threshold", Box::new(move |r| r.sampling.xtc_threshold = value)));
        cases.push(("mirostat_tau", Box::new(move |r| r.sampling.mirostat_tau = value)));
        cases.push(("mirostat_eta", Box::new(move |r| r.sampling.mirostat_eta = value)));
        let value = if value == -1.0 || value == -1e-30 { 1e38 } else { value };
        cases.push(("presence_penalty", Box::new(move |r| r.sampling.presence_penalty = value)));
        cases.push(("frequency_penalty", Box::new(move |r| r.sampling.frequency_penalty = value)));
        let value = if value == f32::NEG_INFINITY { -101.0 } else { value };
        cases.push(("logit_bias", Box::new(move |r| r.sampling.logit_bias.extend([(1, value)]))));
    }
    cases.push(("repetition_penalty", Box::new(|r| r.sampling.repetition_penalty = 0.0)));
    cases.push(("top_p", Box::new(|r| r.sampling.top_p = 1.000_001)));
    cases.push(("logit_bias", Box::new(|r| r.sampling.logit_bias.extend([(VOCAB as u32, 1.0)]))));
    cases.push(("logit_bias", Box::new(|r| r.sampling.logit_bias.extend([(u32::MAX, 1.0)]))));
    cases.push(("dry_allowed_length", Box::new(|r| r.sampling.dry_allowed_length = 0)));
    cases.push(("dry_sequence_breakers", Box::new(|r| r.sampling.dry_sequence_breakers = [VOCAB as u32].into())));
    cases.push(("mirostat", Box::new(|r| r.sampling.mirostat = 1)));
    cases.push(("mirostat", Box::new(|r| (r.sampling.mirostat, r.sampling.top_p) = (2, 0.9))));
    cases.push(("logprobs", Box::new(|r| r.sampling.logprobs = Some(MAX_LOGPROBS + 1))));
    cases.push(("logprobs", Box::new(|r| r.sampling.logprobs = Some(u32::MAX))));
    cases.push(("prompt_logprobs", Box::new(|r| r.prompt_logprobs = Some(MAX_LOGPROBS + 1))));
    cases.push(("stop", Box::new(|r| r.stop.strings = vec![String::new()])));
    cases.push(("stop", Box::new(|r| r.stop.strings = vec!["x".repeat(MAX_STOP_BYTES + 1)])));
    cases.push(("stop", Box::new(|r| r.stop.strings = vec!["x".into(); MAX_STOP_STRINGS + 1])));
    cases.push(("stop_token_ids", Box::new(|r| r.stop.token_ids = vec![1, VOCAB as u32])));
    for (field, change) in cases {
        match refusal(change) {
            SubmitError::Param(error) => assert!(error.field == field && !error.value.is_empty() && !error.allowed.is_empty(), "{error}"),
            other => panic!("{field}: {other}"),
        }
    }
}

#[test]
fn impossible_prompts_are_refused_with_counts() {
    assert_eq!(refusal(|r| r.prompt.clear()), SubmitError::EmptyPrompt);
    assert_eq!(refusal(|r| r.prompt = vec![0; 17]), SubmitError::ContextOverflow { prompt_tokens: 17, context_length: 16 });
    let expected = SubmitError::TokenOutOfRange { index: 1, id: VOCAB as u32, vocab_size: VOCAB };
    assert_eq!(refusal(|r| r.prompt[1] = VOCAB as u32), expected);
}

#[test]
fn extreme_but_allowed_values_work() {
    let engine = start(Mock::default());
    let extremes: [fn(&mut SamplingParams); 11] = [
        |p| p.temperature = 1e-30,
        |p| p.temperature = 100.0,
        |p| p.top_k = u32::MAX,
        |p| p.top_p = 0.0,
        |p| p.min_p = 1.0,
        |p| p.typical_p = 0.0,
        |p| p.repetition_penalty = 100.0,
        |p| p.frequency_penalty = -100.0,
        |p| (p.dry_multiplier, p.dry_base) = (100.0, 10.0),
        |p| (p.xtc_probability, p.xtc_threshold) = (1.0, 0.0),
        |p| (p.mirostat, p.mirostat_tau, p.mirostat_eta) = (2, 0.0, 1.0),
    ];
    for change in extremes {
        let mut request = Request { max_tokens: Some(u32::MAX), ..request(&[1; 4000]) };
        change(&mut request.sampling);
        request.timeout = Some(Duration::MAX);
        assert_eq!(collect(&engine.submit(request).unwrap()).ids().len(), 97);
    }
}

#[test]
fn engine_options_are_checked() {
    let refused = |options| match fastllm_engine::Engine::start(Mock::default(), options) {
        Err(StartError::Param(error)) => error.field,
        other => panic!("{other:?}"),
    };
    let good = EngineOptions::default();
    assert_eq!(refused(EngineOptions { max_sequences: 0, ..good }), "max_sequences");
    assert_eq!(refused(EngineOptions { max_sequences: 65, ..good }), "max_sequences");
    assert_eq!(refused(EngineOptions { max_queue: 0, ..good }), "max_queue");
    assert_eq!(refused(EngineOptions { prefill_chunk: 0, ..good }), "prefill_chunk");
}
