//! The engine's thread: admits, batches, runs, retires.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastllm_model::batch::Row;

use super::generation::End;
use super::guard::{Guarded, catch};
use super::running::{Cost, Running};
use super::task::Shared;
use crate::decoder::{DecodeError, Decoder};
use crate::error::Failure;
use crate::event::Event;
use crate::prefix_cache::PrefixCache;
use crate::sampling::Scratch;
use crate::speculate::MAX_DRAFT;
use crate::speculate::cost::CostModel;
use crate::speculate::draft::Drafter;

/// Most rows of one step whose logits are all wanted: their logits are `rows * vocab_size` numbers at once.
const MAX_LOGITS_ROWS: usize = 32;

/// How long a step may take that reads a prompt while others wait for their next token, in seconds.
const PATIENCE: f64 = 0.25;
/// Fewest rows of prompts in such a step: with less, weights are read for too little.
const LEAST_CHUNK: usize = 32;
/// Weight of the latest measurement.
const LATEST: f64 = 0.3;

/// Sizes that hold for the life of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) context_length: usize,
    pub(crate) max_rows: usize,
    pub(crate) max_sequences: usize,
    pub(crate) prefill_chunk: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) speculate: bool,
}

/// Owns the decoder and every running request.
pub(crate) struct Scheduler<D: Decoder> {
    pub(super) decoder: Guarded<D>,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) running: Vec<Running>,
    pub(super) prefixes: PrefixCache,
    scratch: Scratch,
    pub(super) cost: CostModel,
    pub(super) drafter: Option<Drafter<D>>,
    pub(super) rows: Vec<Row>,
    pub(super) step: u64,
    /// Rows a second of steps that read prompts.
    reading: Option<f64>,
    /// The last step was aborted: the next one gives the requests that are left their turn.
    pub(super) shielded: bool,
}

/// The next `rows` tokens of `running[index]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) rows: usize,
}

impl<D: Decoder> Scheduler<D> {
    pub(crate) fn new(decoder: D, draft: Option<D>, shared: Arc<Shared>, limits: Limits) -> Self {
        let decoder = Guarded::new(decoder);
        let speculate = limits.speculate && decoder.spare() >= MAX_DRAFT;
        Self {
            decoder,
            shared,
            limits: Limits { speculate, ..limits },
            running: Vec::new(),
            prefixes: PrefixCache::default(),
            scratch: Scratch::default(),
            cost: CostModel::default(),
            drafter: draft.filter(|_| speculate).map(Drafter::new),
            rows: Vec::new(),
            step: 0,
            reading: None,
            shielded: false,
        }
    }

    /// The thread: until the queue is closed.
    pub(crate) fn run(mut self) {
        while !self.shared.queue.is_closed() {
            if self.running.is_empty() {
                self.shared.queue.wait();
            }
            if let Err(failure) = catch("the scheduler", || self.turn()) {
                // A bug of ours: nothing is known of what runs, so it ends; what waits goes on.
                let message = failure.to_string();
                self.end_all(|| Failure::Panicked { stage: "the scheduler", message: message.clone() });
            }
        }
    }

    fn turn(&mut self) {
        self.admit();
        self.retire();
        self.begin();
        self.transfer();
        self.retire();
        let mut parts = self.plan();
        self.speculate(&mut parts);
        if !parts.is_empty() {
            self.step += 1;
            self.execute(&parts);
            self.retire();
        }
    }

    /// Gives waiting requests a sequence while there is room.
    fn admit(&mut self) {
        while self.running.len() < self.limits.max_sequences && self.shared.queue.len() > 0 {
            let opened = self.decoder.open();
            if matches!(opened, Err(Failure::Decode(DecodeError::OutOfMemory { .. }))) {
                if self.forget_oldest() {
                    continue;
                }
                if !self.running.is_empty() {
                    return;
                }
            }
            match (opened, self.shared.queue.pop()) {
                (Ok(sequence), Some(task)) => {
                    self.shared.running.fetch_add(1, Ordering::Relaxed);
                    self.running.push(Running::new(task, sequence, self.limits.speculate));
                }
                (Ok(sequence), None) => self.decoder.close(sequence),
                (Err(failure), Some(task)) => task.ticket.close(Event::Failed(failure)),
                (Err(_), None) => {}
            }
        }
    }

    /// Ends the requests that are over or interrupted.
    fn retire(&mut self) {
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            let interrupted = || running.task.ticket.interrupted().map(|reason| Ok(End::early(reason)));
            match running.outcome.take().or_else(interrupted) {
                Some(outcome) => self.end(index, outcome),
                None => index += 1,
            }
        }
    }

    fn end(&mut self, index: usize, outcome: Result<End, Failure>) {
        let running = self.running.remove(index);
        if let Some(drafter) = &mut self.drafter {
            drafter.end(running.task.ticket.id());
        }
        if outcome.is_ok() && running.may_come_back() {
            self.keep(&running.task.salt, running.in_cache().into(), running.sequence);
        } else {
            self.decoder.close(running.sequence);
        }
        self.decoder.shrink(self.limits.cache_bytes);
        self.shared.cache_bytes.store(self.decoder.cache_bytes(), Ordering::Relaxed);
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        running.conclude(outcome);
    }

    fn end_all(&mut self, failure: impl Fn() -> Failure) {
        while !self.running.is_empty() {
            self.end(self.running.len() - 1, Err(failure()));
        }
    }

    /// The rows of the next step: one of each request that decodes, then prompts by priority, the least recently served first.
    fn plan(&self) -> Vec<Part> {
        let decoding = |running: &Running| running.remaining() == 1;
        let mut parts: Vec<Part> = Vec::new();
        let mut prompts: Vec<usize> = Vec::new();
        for (index, running) in self.running.iter().enumerate().filter(|(_, running)| running.begun && running.remaining() > 0) {
            if decoding(running) { parts.push(Part { index, rows: 1 }) } else { prompts.push(index) }
        }
        if self.shielded {
            // A long prompt chunk here would delay cancellation, because a shielded step is not aborted for one of many.
            prompts.truncate(usize::from(parts.is_empty()));
        }
        prompts.sort_by_key(|&index| {
            let running = &self.running[index];
            (Reverse(running.task.priority), running.served, running.task.ticket.id())
        });
        let mut budget = self.chunk(!parts.is_empty()).min(self.limits.max_rows - parts.len());
        for index in prompts {
            let running = &self.running[index];
            let most = if running.wants_all_logits() { MAX_LOGITS_ROWS } else { usize::MAX };
            let rows = running.remaining().min(running.until_split()).min(most).min(budget);
            if rows == 0 {
                break;
            }
            budget -= rows;
            parts.push(Part { index, rows });
        }
        parts
    }

    /// Most rows of prompts in a step: fewer on a slow machine while others decode.
    fn chunk(&self, others_decode: bool) -> usize {
        match self.reading.filter(|_| others_decode) {
            Some(rate) => ((rate * PATIENCE) as usize).max(LEAST_CHUNK).min(self.limits.prefill_chunk),
            None => self.limits.prefill_chunk,
        }
    }

    /// Learns from the time of a step.
    fn measured(&mut self, time: Duration) {
        let rows = self.rows.len();
        if self.rows.iter().all(|row| row.logits) {
            self.cost.measured(rows, time);
        } else if rows >= LEAST_CHUNK {
            let rate = rows as f64 / time.as_secs_f64().max(1e-9);
            self.reading = Some(self.reading.map_or(rate, |known| known + LATEST * (rate - known)));
        }
    }

    /// Runs `parts` in one forward pass. When that fails, each runs alone, and those that fail alone end.
    fn execute(&mut self, parts: &[Part]) {
        self.rows.clear();
        for part in parts {
            self.running[part.index].extend_rows(part.rows, &mut self.rows);
        }
        self.make_room();
        let interrupt = &self.shared.interrupt;
        interrupt.arm(parts.iter().map(|part| self.running[part.index].task.ticket.id()), self.shielded);
        if parts.iter().any(|part| self.running[part.index].task.ticket.interrupted().is_some()) {
            interrupt.disarm();
            return;
        }
        let started = Instant::now();
        let result = self.decoder.bytes_read(&self.rows).and_then(|bytes| {
            let logits = self.decoder.forward(&self.rows, interrupt.flag())?;
            Ok((logits, Cost { time: started.elapsed(), bytes }))
        });
        interrupt.disarm();
        match result {
            Ok((logits, cost)) => {
                self.shielded = false;
                self.shared.computed_tokens.fetch_add(self.rows.len() as u64, Ordering::Relaxed);
                let (mut logits, mut guesses) = (logits.rows(), Vec::new());
                for part in parts {
                    let running = &mut self.running[part.index];
                    running.served = self.step;
                    let mut own = logits.by_ref().take(running.wanted_logits(part.rows));
                    let wrong = running.absorb(part.rows, &mut own, self.limits.context_length, &mut self.scratch, cost);
                    own.for_each(drop);
                    guesses.extend((wrong > 0).then_some((part.index, wrong)));
                }
                self.measured(cost.time);
                self.drop_wrong(&guesses);
                self.checkpoint(parts.iter().map(|part| part.index));
                self.shared.cache_bytes.store(self.decoder.cache_bytes(), Ordering::Relaxed);
            }
            Err(Failure::Decode(DecodeError::Cancelled)) if interrupt.flag().load(Ordering::Acquire) => self.shielded = true,
            Err(failure) => {
                if matches!(failure, Failure::Decode(DecodeError::OutOfMemory { .. })) && self.forget_all() {
                    return self.execute(parts);
                }
                match parts {
                    [part] => self.running[part.index].outcome = Some(Err(failure)),
                    _ => parts.iter().for_each(|part| self.execute(std::slice::from_ref(part))),
                }
            }
        }
    }
}

/// Whatever ends the thread, nobody waits in vain.
impl<D: Decoder> Drop for Scheduler<D> {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.end_all(|| Failure::ShutDown);
        while let Some(task) = self.shared.queue.pop() {
            task.ticket.close(Event::Failed(Failure::ShutDown));
        }
    }
}
