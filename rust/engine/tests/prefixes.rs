//! What one request computed is not computed again for another that begins alike, and no result changes.

mod common;

use common::*;
use fastllm_engine::sampling::SamplingParams;
use fastllm_engine::{Engine, EngineOptions, Event, Request};

const UNLIMITED: usize = usize::MAX;
/// Positions that a decoder with windows keeps at the end.
const WINDOW: usize = 64;

fn engine(keeps: usize, cache_bytes: usize) -> Engine {
    let options = EngineOptions { max_sequences: 8, prefill_chunk: 32, cache_bytes, ..EngineOptions::default() };
    Engine::start(Mock { keeps, ..Mock::default() }, options).unwrap()
}

fn some(prompt: &[u32], tokens: u32) -> Request {
    let sampling = SamplingParams { seed: Some(7), ..SamplingParams::default() };
    Request { max_tokens: Some(tokens), sampling, ..request(prompt) }
}

fn run(engine: &Engine, prompt: &[u32], tokens: u32) -> Outcome {
    collect(&engine.submit(some(prompt, tokens)).unwrap())
}

fn cached(outcome: &Outcome) -> usize {
    outcome.finished().usage.cached_tokens
}

/// Pseudo-random tokens.
fn tokens(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + seed * 31 + i / 3) % VOCAB as u32).collect()
}

#[test]
fn a_second_turn_reads_only_what_is_new() {
    for keeps in [UNLIMITED, WINDOW] {
        let engine = engine(keeps, UNLIMITED);
        let mut conversation = tokens(1, 500);
        let first = run(&engine, &conversation, 200);
        assert_eq!(cached(&first), 0);
        let prompt = conversation.len();
        conversation.extend(first.ids());
        conversation.extend([1, 2, 3, 4, 5]);
        let second = run(&engine, &conversation, 5);
        // The last token of an answer was never fed back.
        assert_eq!(cached(&second), prompt + 199);
        // An answer that is left out or written anew, as templates do: the prompt is kept all the same.
        let rewritten = [&conversation[..prompt], &[9; 20]].concat();
        assert_eq!(cached(&run(&engine, &rewritten, 5)), prompt, "a window of {keeps}");
        // The same prompt again computes its last token.
        assert_eq!(cached(&run(&engine, &conversation, 5)), conversation.len() - 1);
        assert_eq!(engine.stats().cached_tokens as usize, prompt + 199 + prompt + conversation.len() - 1);
    }
}

#[test]
fn the_last_event_counts_what_was_computed() {
    let engine = engine(UNLIMITED, UNLIMITED);
    let prompt = tokens(2, 100);
    run(&engine, &prompt, 3);
    let again = run(&engine, &prompt, 3);
    assert_eq!(again.prefill, [(100, 100)]);
    assert_eq!(engine.stats().computed_tokens, 100 + 2 + 1 + 2);
}

#[test]
fn a_beginning_that_comes_at_once_is_read_once() {
    for keeps in [UNLIMITED, WINDOW] {
        let engine = engine(keeps, UNLIMITED);
        let shared = tokens(3, 300);
        let prompts: Vec<Vec<u32>> = (0..8).map(|n| [&shared[..], &tokens(n + 10, 100)].concat()).collect();
        let handles: Vec<_> = prompts.iter().map(|prompt| engine.submit(some(prompt, 4)).unwrap()).collect();
        let outcomes: Vec<Outcome> = handles.iter().map(collect).collect();
        let read: usize = prompts.iter().zip(&outcomes).map(|(prompt, outcome)| prompt.len() - cached(outcome)).sum();
        // Less than 32 tokens are not worth a step of waiting.
        assert!(read <= 300 + 8 * 100 + 7 * 31, "{read} tokens were read with a window of {keeps}");
    }
}

#[test]
fn a_shared_beginning_is_learned_where_windows_forget() {
    let engine = engine(WINDOW, UNLIMITED);
    let shared = tokens(4, 300);
    let ask = |n: u32| run(&engine, &[&shared[..], &tokens(n, 150)].concat(), 4);
    // The first knows nothing of others, the second cannot go back behind the window of the first, and notes where they part.
    let (first, second, third) = (cached(&ask(20)), cached(&ask(21)), cached(&ask(22)));
    assert_eq!((first, second), (0, 0));
    assert!((300..450).contains(&third), "{third}");
}

#[test]
fn memory_is_kept_within_its_limit() {
    let engine = engine(UNLIMITED, 1000);
    for n in 0..20 {
        run(&engine, &tokens(n, 300), 10);
        assert!(engine.stats().cache_bytes <= 1000, "{}", engine.stats().cache_bytes);
    }
    assert!(cached(&run(&engine, &tokens(19, 300), 10)) > 0, "the latest is kept");
    assert_eq!(cached(&run(&engine, &tokens(0, 300), 10)), 0, "the oldest is not");
    let none = self::engine(UNLIMITED, 0);
    run(&none, &tokens(1, 300), 10);
    assert_eq!(none.stats().cache_bytes, 0);
    assert_eq!(cached(&run(&none, &tokens(1, 300), 10)), 0);
}

#[test]
fn a_cancelled_prompt_goes_on_where_it_stopped() {
    let options = EngineOptions { max_sequences: 8, prefill_chunk: 32, ..EngineOptions::default() };
    let mock = Mock::with_hook(|_, cancel| compute(std::time::Duration::from_millis(5), cancel));
    let engine = Engine::start(mock, options).unwrap();
    let prompt = tokens(5, 1000);
    let handle = engine.submit(some(&prompt, 1)).unwrap();
    while !matches!(next_event(&handle), Event::Prefill { done, .. } if done >= 320) {}
    drop(handle);
    eventually("it has ended", || engine.stats().running == 0);
    assert!(cached(&run(&engine, &prompt, 1)) >= 320);
}

#[test]
fn many_conversations_give_what_each_gives_alone() {
    let turn =
        |n: u32, round: u32, history: &[u32]| -> Vec<u32> { [history, &tokens(n % 3 + round * 7, 40 + 9 * n as usize % 50)].concat() };
    let alone = |prompt: &[u32]| run(&engine(UNLIMITED, 0), prompt, 12).ids();
    for (keeps, cache_bytes) in [(UNLIMITED, UNLIMITED), (WINDOW, UNLIMITED), (UNLIMITED, 900), (WINDOW, 700), (1, 5000)] {
        let engine = engine(keeps, cache_bytes);
        let mut histories: Vec<Vec<u32>> = (0..12).map(|n| tokens(n % 2, 150)).collect();
        for round in 0..4 {
            let prompts: Vec<Vec<u32>> = histories.iter().zip(0..).map(|(history, n)| turn(n, round, history)).collect();
            let handles: Vec<_> = prompts.iter().map(|prompt| engine.submit(some(prompt, 12)).unwrap()).collect();
            for ((history, prompt), handle) in histories.iter_mut().zip(prompts).zip(&handles) {
                let ids = collect(handle).ids();
                assert_eq!(ids, alone(&prompt), "{keeps} positions kept, {cache_bytes} bytes");
                *history = [prompt, ids].concat();
            }
        }
    }
}

#[test]
fn higher_priorities_are_served_first() {
    let mock = Mock::with_hook(|_, cancel| compute(std::time::Duration::from_millis(1), cancel));
    let log = std::sync::Arc::clone(&mock.log);
    let options = EngineOptions { max_sequences: 1, prefill_chunk: 32, ..EngineOptions::default() };
    let engine = Engine::start(mock, options).unwrap();
    let first = engine.submit(some(&[1; 500], 1)).unwrap();
    next_event(&first);
    let handles: Vec<_> =
        [(2, 0), (3, 5), (4, -1), (5, 5)].map(|(token, priority)| engine.submit(Request { priority, ..some(&[token], 1) }).unwrap()).into();
    for handle in &handles {
        collect(handle).finished();
    }
    let order: Vec<u32> = log.lock().unwrap().iter().flatten().filter(|row| row.position == 0).map(|row| row.token).collect();
    assert_eq!(order, [1, 3, 5, 2, 4]);
}

#[test]
fn nothing_is_shared_between_salts() {
    for keeps in [UNLIMITED, WINDOW] {
        let engine = engine(keeps, UNLIMITED);
        let prompt = tokens(6, 300);
        let salted = |salt: &str, prompt: &[u32]| Request { cache_salt: salt.into(), ..some(prompt, 4) };
        let ask = |salt: &str, prompt: &[u32]| collect(&engine.submit(salted(salt, prompt)).unwrap());
        assert_eq!(cached(&ask("alice", &prompt)), 0);
        let computed = engine.stats().computed_tokens;
        for (asked, salt) in ["mallory", ""].into_iter().enumerate() {
            assert_eq!(cached(&ask(salt, &prompt)), 0, "{salt:?}");
            assert_eq!(engine.stats().computed_tokens, computed * (asked as u64 + 2), "the work is that of a prompt nobody sent before");
        }
        assert_eq!(cached(&ask("alice", &prompt)), 299);
        // Nor while the other one runs: both are submitted before either is read, and neither waits for the other.
        let prompt = tokens(7, 300);
        let handles: Vec<_> = ["alice", "mallory"].iter().map(|salt| engine.submit(salted(salt, &prompt)).unwrap()).collect();
        assert_eq!(handles.iter().map(|handle| cached(&collect(handle))).collect::<Vec<_>>(), [0, 0]);
    }
}
