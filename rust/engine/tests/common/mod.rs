//! A decoder whose logits are a hash of the whole history of a sequence, so that any mix-up of sequences or positions shows, and
//! which checks that the engine keeps its side of the contract.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastllm_engine::sampling::TokenLogprobs;
use fastllm_engine::{DecodeError, Decoder, Engine, EngineOptions, Event, Failure, Finished, Handle, Logits, Next, Pieces, Request, Token};
use fastllm_model::batch::{Row, SequenceId};

pub const VOCAB: usize = 50;

/// Called before a forward pass is computed; may sleep, panic or fail.
pub type Hook = Box<dyn FnMut(&[Row], &AtomicBool) -> Result<(), DecodeError> + Send>;

pub struct Mock {
    pub context_length: usize,
    pub max_rows: usize,
    pub max_open: usize,
    /// Positions at the end of a sequence at which it can be forked.
    pub keeps: usize,
    /// Positions by which a sequence can be shortened.
    pub spare: usize,
    /// The logits after a history.
    pub text: fn(&[u32]) -> Vec<f32>,
    pub hook: Hook,
    /// Rows of every committed forward pass.
    pub log: Arc<Mutex<Vec<Vec<Row>>>>,
    /// Held until the decoder is dropped.
    pub alive: Arc<()>,
    /// Positions of the state that is being restored.
    pub restoring: usize,
    pub histories: HashMap<SequenceId, Vec<u32>>,
    pub logits: Vec<f32>,
}

impl Default for Mock {
    fn default() -> Self {
        Self {
            context_length: 4096,
            max_rows: 64,
            max_open: usize::MAX,
            keeps: usize::MAX,
            spare: 0,
            text: logits_after,
            hook: Box::new(|_, _| Ok(())),
            log: Arc::default(),
            alive: Arc::default(),
            restoring: 0,
            histories: HashMap::new(),
            logits: Vec::new(),
        }
    }
}

impl Mock {
    pub fn with_hook(hook: impl FnMut(&[Row], &AtomicBool) -> Result<(), DecodeError> + Send + 'static) -> Self {
        Self { hook: Box::new(hook), ..Self::default() }
    }
}

/// Sleeps like a forward pass of that length: until `cancel`.
pub fn compute(time: Duration, cancel: &AtomicBool) -> Result<(), DecodeError> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if cancel.load(Ordering::Acquire) {
            return Err(DecodeError::Cancelled);
        }
        std::thread::sleep(Duration::from_micros(200).min(time));
    }
    Ok(())
}

/// The logits after `history`: numbers in [-4, 4).
pub fn logits_after(history: &[u32]) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ history.len() as u64;
    for &token in history {
        hash = (hash ^ u64::from(token)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }
    (0..VOCAB as u64)
        .map(|id| {
            let x = (hash ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            ((x ^ (x >> 33)) % 4096) as f32 / 512.0 - 4.0
        })
        .collect()
}

impl Decoder for Mock {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn open(&mut self) -> Result<SequenceId, DecodeError> {
        if self.histories.len() >= self.max_open {
            return Err(DecodeError::OutOfMemory { needed: 1, available: 0 });
        }
        let id = (0..1_000_000).map(SequenceId).find(|id| !self.histories.contains_key(id)).expect("ids do not run out");
        self.histories.insert(id, Vec::new());
        Ok(id)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.histories.remove(&sequence).expect("only open sequences are closed");
    }

    fn keeps_all(&self) -> bool {
        self.keeps == usize::MAX
    }

    fn forkable(&self, sequence: SequenceId, most: usize) -> usize {
        let len = self.histories[&sequence].len();
        if len.saturating_sub(most) <= self.keeps { len.min(most) } else { 0 }
    }

    fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, DecodeError> {
        assert_eq!(self.forkable(sequence, len), len);
        let fork = self.open()?;
        let history = self.histories[&sequence][..len].to_vec();
        self.histories.insert(fork, history);
        Ok(fork)
    }

    fn spare(&self) -> usize {
        self.spare
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), DecodeError> {
        let history = self.histories.get_mut(&sequence).expect("the sequence is open");
        assert!(len < history.len() && history.len() - len <= self.spare);
        history.truncate(len);
        Ok(())
    }

    fn piece(&self, sequence: SequenceId, index: usize) -> Option<Cow<'_, [u8]>> {
        let history = &self.histories[&sequence];
        let bytes: Vec<u8> = history.iter().flat_map(|id| id.to_le_bytes()).collect();
        // The length, then pieces of ten tokens.
        if index == 0 {
            return Some((history.len() as u64).to_le_bytes().to_vec().into());
        }
        bytes.chunks(40).nth(index - 1).map(|piece| piece.to_vec().into())
    }

    fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, DecodeError> {
        let history = self.histories.get_mut(&sequence).expect("the sequence is open");
        if index == 0 {
            self.restoring = u64::from_le_bytes(piece.try_into().expect("a length")) as usize;
        } else {
            history.extend(piece.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().expect("four bytes"))));
        }
        Ok(history.len() == self.restoring)
    }

    fn cache_bytes(&self) -> usize {
        self.histories.values().map(Vec::len).sum()
    }

    fn growth(&self, rows: &[Row]) -> usize {
        rows.len()
    }

    fn shrink(&mut self, _: usize) {}

    fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, DecodeError> {
        assert!((1..=self.max_rows).contains(&rows.len()), "{} rows", rows.len());
        (self.hook)(rows, cancel)?;
        let mut histories = self.histories.clone();
        self.logits.clear();
        let mut seen = Vec::new();
        for row in rows {
            if seen.last() != Some(&row.sequence) {
                assert!(!seen.contains(&row.sequence), "rows of a sequence are adjacent");
                seen.push(row.sequence);
            }
            let history = histories.get_mut(&row.sequence).expect("the sequence is open");
            assert_eq!(row.position as usize, history.len(), "positions have no gaps");
            assert!(history.len() < self.context_length, "the context is not exceeded");
            history.push(row.token);
            if row.logits {
                self.logits.extend((self.text)(history));
            }
        }
        self.histories = histories;
        self.log.lock().unwrap().push(rows.to_vec());
        Ok(Logits::new(&self.logits, VOCAB))
    }

    fn bytes_read(&self, rows: &[Row]) -> u64 {
        1_000_000 + 100 * rows.len() as u64
    }
}

/// Token `id` is the text "<id>".
#[derive(Clone)]
pub struct Brackets;

pub fn text_of(ids: &[u32]) -> String {
    let mut text = String::new();
    for &id in ids {
        Brackets.push(id, &mut text);
    }
    text
}

impl Pieces for Brackets {
    fn push(&mut self, id: u32, text: &mut String) {
        text.extend(["<", &id.to_string(), ">"]);
    }

    fn finish(&mut self, _: &mut String) {}
}

pub fn request(prompt: &[u32]) -> Request {
    Request::new(prompt.to_vec(), Box::new(Brackets))
}

pub fn start(mock: Mock) -> Engine {
    Engine::start(mock, EngineOptions { max_sequences: 8, max_queue: 256, prefill_chunk: 32, ..EngineOptions::default() }).unwrap()
}

/// All that a request reported.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tokens: Vec<Token>,
    pub prefill: Vec<(usize, usize)>,
    pub prompt_logprobs: Vec<(u32, TokenLogprobs)>,
    pub finished: Option<Finished>,
    pub failure: Option<Failure>,
}

impl Outcome {
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub fn text(&self) -> String {
        let tail = self.finished.as_ref().map_or("", |finished| &finished.text);
        self.tokens.iter().map(|token| token.text.as_str()).chain([tail]).collect()
    }

    pub fn finished(&self) -> &Finished {
        self.finished.as_ref().unwrap_or_else(|| panic!("failed: {:?}", self.failure))
    }

    /// Adds an event; whether it was the last.
    pub fn add(&mut self, event: Event) -> bool {
        assert!(self.finished.is_none() && self.failure.is_none(), "nothing follows the last event");
        match event {
            Event::Prefill { done, total } => self.prefill.push((done, total)),
            Event::PromptLogprobs(found) => self.prompt_logprobs.extend(found),
            Event::Token(token) => self.tokens.push(token),
            Event::Finished(finished) => self.finished = Some(*finished),
            Event::Failed(failure) => self.failure = Some(failure),
        }
        self.finished.is_some() || self.failure.is_some()
    }
}

/// The next event, which comes within ten seconds.
pub fn next_event(handle: &Handle) -> Event {
    match handle.next(Duration::from_secs(10)) {
        Next::Event(event) => event,
        other => panic!("no event: {other:?}"),
    }
}

/// All events up to the last.
pub fn collect(handle: &Handle) -> Outcome {
    let mut outcome = Outcome::default();
    while !outcome.add(next_event(handle)) {}
    assert!(matches!(handle.next(Duration::ZERO), Next::Closed));
    outcome
}

/// Waits until `condition` holds, at most ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}
