//! Output that follows a constraint: masks, forced tokens, ends and errors.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use fastllm_engine::sampling::{SampleError, SamplingParams};
use fastllm_engine::{Constraint, ConstraintError, Engine, EngineOptions, Failure, FinishReason, Request, StopCause};

/// Id with which a text ends.
const END: u32 = 49;

/// What the toy constraint does, besides allowing what a hash of the ids so far says.
#[derive(Clone, Copy, Default)]
struct Toy {
    /// Complete after this many tokens.
    complete: Option<usize>,
    /// Masks after this many tokens are errors, or panic.
    fail: Option<usize>,
    panic: Option<usize>,
    delay: Duration,
    /// Every token from here on is forced.
    forced_from: Option<usize>,
    /// A few ids that come again and again, which guesses find out.
    periodic: bool,
}

struct Walk {
    toy: Toy,
    ids: Vec<u32>,
    mask: Vec<u32>,
}

impl Walk {
    fn hash(&self) -> u64 {
        self.ids.iter().fold(7, |hash: u64, id| (hash ^ u64::from(*id)).wrapping_mul(0x0100_0000_01b3).rotate_left(13))
    }

    /// The ids that must follow now.
    fn next_forced(&self) -> Vec<u32> {
        let hash = self.hash();
        if self.toy.periodic {
            let at = self.ids.len() as u32;
            return if at.is_multiple_of(6) { vec![at % 4 + 10, 20, 21] } else { Vec::new() };
        }
        let count = match self.toy.forced_from {
            Some(from) if self.ids.len() >= from => 20,
            _ => [0, 0, 1, 3][(hash >> 7) as usize % 4],
        };
        // A run of forced ids is the same however far one is in it.
        (0..count).map(|i| ((hash >> 20) as u32 + 5 * i) % 48).collect()
    }
}

/// A constraint that remembers what it said must follow.
struct ToyConstraint {
    walk: Walk,
    forced: std::collections::VecDeque<u32>,
}

impl Toy {
    fn boxed(self) -> Box<dyn Constraint> {
        Box::new(ToyConstraint { walk: Walk { toy: self, ids: Vec::new(), mask: Vec::new() }, forced: Vec::new().into() })
    }
}

impl Constraint for ToyConstraint {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        let at = self.walk.ids.len();
        std::thread::sleep(self.walk.toy.delay);
        assert!(self.walk.toy.panic.is_none_or(|panic| at < panic), "as asked");
        if self.walk.toy.fail.is_some_and(|fail| at >= fail) {
            return Err(ConstraintError::Output("as asked".to_owned()));
        }
        self.forced()?;
        let forced = self.forced.front().copied();
        let hash = if self.walk.toy.periodic { 0b11 << (at % 3) } else { self.walk.hash() };
        self.walk.mask = vec![0; 2];
        for id in 0..50 {
            let allowed = forced.map_or((hash >> id) & 1 == 1 || id == 3, |forced| forced == id);
            self.walk.mask[id as usize / 32] |= u32::from(allowed) << (id % 32);
        }
        Ok(&self.walk.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        if self.forced.pop_front().is_some_and(|forced| forced != id) {
            return Err(ConstraintError::Output("not what was forced".to_owned()));
        }
        self.walk.ids.push(id);
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<u32>, ConstraintError> {
        if self.forced.is_empty() {
            self.forced = self.walk.next_forced().into();
        }
        Ok(self.forced.iter().copied().collect())
    }

    fn is_complete(&self) -> bool {
        self.walk.toy.complete.is_some_and(|complete| self.walk.ids.len() >= complete)
    }
}

fn constrained(prompt: &[u32], toy: Toy) -> Request {
    Request { constraint: Some(toy.boxed()), end_of_generation: Arc::new([END]), max_tokens: Some(60), ..request(prompt) }
}

fn varied(n: u32) -> Request {
    let sampling = SamplingParams {
        seed: Some(u64::from(n)),
        temperature: (n % 3) as f32 * 0.7,
        frequency_penalty: (n % 2) as f32,
        top_p: if n.is_multiple_of(4) { 0.7 } else { 1.0 },
        mirostat: if n % 4 == 1 { 2 } else { 0 },
        dry_multiplier: if n.is_multiple_of(5) { 0.8 } else { 0.0 },
        ..SamplingParams::default()
    };
    let toy = Toy { complete: Some(40 + n as usize % 30), ..Toy::default() };
    Request { sampling, ..constrained(&(0..=n % 40).collect::<Vec<_>>(), toy) }
}

#[test]
fn every_token_is_allowed_and_forced_ones_are_not_sampled_again() {
    let engine = start(Mock::default());
    for n in 0..40 {
        let ids = collect(&engine.submit(varied(n)).unwrap()).ids();
        let mut check = ToyConstraint { walk: Walk { toy: Toy::default(), ids: Vec::new(), mask: Vec::new() }, forced: Vec::new().into() };
        for id in ids {
            let mask = check.mask().unwrap();
            assert_eq!(mask[id as usize / 32] >> (id % 32) & 1, 1, "request {n}: {id} is not allowed");
            check.accept(id).unwrap();
        }
    }
}

#[test]
fn skipping_ahead_batches_and_slow_masks_change_nothing() {
    let alone: Vec<Outcome> = (0..40).map(|n| collect(&start(Mock::default()).submit(varied(n)).unwrap())).collect();
    assert!(alone.iter().any(|outcome| outcome.finished().stop == Some(StopCause::Constraint)));
    for (max_sequences, prefill_chunk, max_rows, skip_ahead, delay) in
        [(8, 32, 64, true, 0), (1, 1, 1, true, 0), (8, 4, 8, true, 1), (8, 32, 64, false, 0)]
    {
        let options = EngineOptions { max_sequences, max_queue: 64, prefill_chunk, ..EngineOptions::default() };
        let engine = Engine::start(Mock { max_rows, ..Mock::default() }, options).unwrap();
        let submit = |n: u32| {
            let toy = Toy {
                complete: Some(40 + n as usize % 30),
                delay: Duration::from_micros(delay * 300 * u64::from(n % 3)),
                ..Toy::default()
            };
            engine.submit(Request { skip_ahead, constraint: Some(toy.boxed()), ..varied(n) }).unwrap()
        };
        let handles: Vec<_> = (0..40).map(submit).collect();
        for (n, (handle, alone)) in handles.iter().zip(&alone).enumerate() {
            let outcome = collect(handle);
            let what = format!("request {n}: {max_sequences} sequences, chunks of {prefill_chunk}, skip_ahead {skip_ahead}");
            assert_eq!(outcome.tokens, alone.tokens, "{what}");
            assert_eq!((outcome.finished().reason, outcome.finished().stop), (alone.finished().reason, alone.finished().stop), "{what}");
            let made = |outcome: &Outcome| outcome.finished().usage.completion_tokens;
            assert_eq!(made(&outcome), made(alone), "{what}");
        }
    }
}

#[test]
fn guesses_change_nothing() {
    let run = |speculate: bool, skip_ahead: bool, seed: u64| {
        let mock = Mock::with_hook(|_, cancel| compute(Duration::from_micros(300), cancel));
        let log = Arc::clone(&mock.log);
        let engine = Engine::start(mock, EngineOptions { speculate, ..EngineOptions::default() }).unwrap();
        let toy = Toy { periodic: true, complete: Some(300), ..Toy::default() };
        let sampling = SamplingParams { seed: Some(seed), temperature: 0.4, ..SamplingParams::default() };
        let request = Request { sampling, skip_ahead, max_tokens: Some(400), ..constrained(&[1, 2, 3], toy) };
        let outcome = collect(&engine.submit(request).unwrap());
        assert_eq!(outcome.finished().stop, Some(StopCause::Constraint));
        assert_eq!(outcome.finished().usage.completion_tokens, 300);
        let passes = log.lock().unwrap().len();
        (outcome.ids(), passes)
    };
    for seed in 0..3 {
        let (ids, passes) = run(false, false, seed);
        assert_eq!(passes, 300);
        for (speculate, skip_ahead) in [(false, true), (true, false), (true, true)] {
            let (other, fewer) = run(speculate, skip_ahead, seed);
            assert_eq!(other, ids, "speculate {speculate}, skip_ahead {skip_ahead}, seed {seed}");
            assert!(fewer <= 300, "{fewer} passes");
        }
    }
}

#[test]
fn forced_tokens_go_through_the_model_together() {
    let toy = Toy { forced_from: Some(0), complete: Some(40), ..Toy::default() };
    let passes = |skip_ahead| {
        let mock = Mock::default();
        let log = Arc::clone(&mock.log);
        let outcome = collect(&start(mock).submit(Request { skip_ahead, ..constrained(&[1, 2], toy) }).unwrap());
        assert_eq!(outcome.finished().stop, Some(StopCause::Constraint));
        assert_eq!((outcome.ids().len(), outcome.finished().usage.completion_tokens), (40, 40));
        let log = log.lock().unwrap();
        (outcome.ids(), log.len())
    };
    let ((together, few), (single, many)) = (passes(true), passes(false));
    assert_eq!(together, single);
    assert!(few <= 4 && many == 40, "{few} and {many} passes");
}

#[test]
fn limits_and_stops_hold_within_forced_tokens() {
    let toy = Toy { forced_from: Some(0), ..Toy::default() };
    let all = collect(&start(Mock::default()).submit(constrained(&[1], toy)).unwrap()).ids();
    let engine = start(Mock::default());
    let cut = collect(&engine.submit(Request { max_tokens: Some(7), ..constrained(&[1], toy) }).unwrap());
    assert_eq!((cut.ids(), cut.finished().reason), (all[..7].to_vec(), FinishReason::Length));
    let mut stopped = constrained(&[1], toy);
    stopped.stop.token_ids = vec![all[5]];
    let stopped = collect(&engine.submit(stopped).unwrap());
    let first = all.iter().position(|id| *id == all[5]).unwrap();
    assert_eq!((stopped.ids(), stopped.finished().stop), (all[..first].to_vec(), Some(StopCause::Token(all[5]))));
    let mut stopped = constrained(&[1], toy);
    stopped.stop.strings = vec![text_of(&all[5..7])];
    let stopped = collect(&engine.submit(stopped).unwrap());
    assert_eq!((stopped.text(), stopped.finished().stop), (text_of(&all[..5]), Some(StopCause::String(0))));
    let small = start(Mock { context_length: 10, ..Mock::default() });
    let full = collect(&small.submit(constrained(&[1], toy)).unwrap());
    assert_eq!((full.ids(), full.finished().reason), (all[..10].to_vec(), FinishReason::Length));
}

#[test]
fn a_completed_text_is_an_end_also_at_the_last_token() {
    let toy = Toy { complete: Some(12), ..Toy::default() };
    let outcome = collect(&start(Mock::default()).submit(Request { max_tokens: Some(12), ..constrained(&[1], toy) }).unwrap());
    if outcome.ids().len() == 12 {
        assert_eq!((outcome.finished().reason, outcome.finished().stop), (FinishReason::Stop, Some(StopCause::Constraint)));
    } else {
        assert_eq!(outcome.finished().stop, Some(StopCause::EndOfGeneration(END)));
    }
}

#[test]
fn errors_and_panics_end_only_their_request() {
    let engine = start(Mock::default());
    let fine = engine.submit(varied(3)).unwrap();
    let seeded = |toy| Request { sampling: SamplingParams { seed: Some(1), ..SamplingParams::default() }, ..constrained(&[1], toy) };
    for at in [0, 5] {
        // Up to three tokens are forced at a time, for which no mask is needed.
        let outcome = collect(&engine.submit(seeded(Toy { fail: Some(at), ..Toy::default() })).unwrap());
        assert!(outcome.ids().len() <= at + 3 && matches!(outcome.failure, Some(Failure::Constraint(_))), "{outcome:?}");
        let outcome = collect(&engine.submit(seeded(Toy { panic: Some(at), ..Toy::default() })).unwrap());
        let expected = matches!(&outcome.failure, Some(Failure::Panicked { stage: "computing a mask", .. }));
        assert!(outcome.ids().len() <= at + 3 && expected, "{outcome:?}");
    }
    assert_eq!(collect(&fine).tokens, collect(&start(Mock::default()).submit(varied(3)).unwrap()).tokens);
}

#[test]
fn bans_combine_with_the_mask() {
    let sampling = SamplingParams { logit_bias: (0..50).map(|id| (id, f32::NEG_INFINITY)).collect(), ..SamplingParams::default() };
    let outcome = collect(&start(Mock::default()).submit(Request { sampling, ..constrained(&[1], Toy::default()) }).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::Sample(SampleError::AllBanned))));
    // A forced token that is banned, with and without skipping ahead.
    let toy = Toy { forced_from: Some(0), ..Toy::default() };
    let all = collect(&start(Mock::default()).submit(constrained(&[1], toy)).unwrap()).ids();
    for skip_ahead in [true, false] {
        let sampling = SamplingParams { logit_bias: [(all[4], f32::NEG_INFINITY)].into(), ..SamplingParams::default() };
        let outcome = collect(&start(Mock::default()).submit(Request { sampling, skip_ahead, ..constrained(&[1], toy) }).unwrap());
        let first = all.iter().position(|id| *id == all[4]).unwrap();
        assert_eq!(outcome.ids(), all[..first]);
        assert!(matches!(outcome.failure, Some(Failure::Sample(SampleError::AllBanned))));
    }
}

#[test]
fn the_model_cannot_end_its_text_with_ignore_eos() {
    let engine = start(Mock::default());
    for n in 0..30 {
        let mut request =
            Request { sampling: SamplingParams { seed: Some(n), ..SamplingParams::default() }, ..constrained(&[n as u32], Toy::default()) };
        request.stop.ignore_eos = true;
        let outcome = collect(&engine.submit(request).unwrap());
        assert!(!outcome.ids().contains(&END));
        assert_eq!((outcome.ids().len(), outcome.finished().reason), (60, FinishReason::Length));
    }
}

#[test]
fn shutting_down_does_not_wait_for_a_request_with_a_mask_to_come() {
    let engine = start(Mock::default());
    let handle = engine.submit(constrained(&[1], Toy { delay: Duration::from_millis(30), ..Toy::default() })).unwrap();
    engine.shutdown();
    assert!(matches!(collect(&handle).failure, Some(Failure::ShutDown)));
}
