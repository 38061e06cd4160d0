//! The public face: starts the threads, accepts requests.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle, ThreadId};
use std::time::Duration;

use crate::constraint::MaskWorker;
use crate::decoder::Decoder;
use crate::error::{ParamError, RunError, StartError, SubmitError};
use crate::event::Event;
use crate::request::{LogitsVisitor, Notify, Request, validate_prompt};
use crate::saved::{StateReader, StateWriter};
use crate::scheduler::deadlines::Deadlines;
use crate::scheduler::generation::Generation;
use crate::scheduler::handle::{Handle, Next};
use crate::scheduler::interrupt::Interrupt;
use crate::scheduler::lock;
use crate::scheduler::queue::Queue;
use crate::scheduler::step::{Limits, Scheduler};
use crate::scheduler::task::{Shared, Task, Ticket, Transfer, Work};
use crate::speculate::MAX_DRAFT;
use crate::timings::Stopwatch;

/// How much runs and waits at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most requests that run at once; at least 1 and at most the decoder's rows.
    pub max_sequences: usize,
    /// Most requests that wait; at least 1.
    pub max_queue: usize,
    /// Most prompt tokens in one step; at least 1. Smaller: decoding requests wait less for prompts; larger: prompts are read faster.
    pub prefill_chunk: usize,
    /// Bytes of the KV cache up to which ended sequences are kept for requests that begin alike; 0: none are.
    pub cache_bytes: usize,
    /// Guess tokens from the text before and compute them beside the certain one, where that pays. The output is the same.
    pub speculate: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_sequences: 16, max_queue: 256, prefill_chunk: 256, cache_bytes: 1 << 30, speculate: true }
    }
}

/// What the engine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests that own a sequence.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Tokens that went through the model since the start.
    pub computed_tokens: u64,
    /// Tokens of prompts that did not have to, because another request began alike.
    pub cached_tokens: u64,
    /// Bytes of the KV cache after the last step.
    pub cache_bytes: usize,
    /// Tokens that were guessed and computed.
    pub drafted_tokens: u64,
    /// Of these, the tokens that came true.
    pub accepted_tokens: u64,
}

/// One decoder and the requests on it. Dropping it shuts it down.
pub struct Engine {
    shared: Arc<Shared>,
    vocab_size: usize,
    context_length: usize,
    next_id: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Of `threads`, for a thread that is one of them.
    thread_ids: Vec<ThreadId>,
    masks: Arc<MaskWorker>,
}

impl Engine {
    /// Starts the engine's thread, which owns `decoder` from now on, and the thread for time limits.
    ///
    /// # Errors
    /// An option out of range, or the system's refusal of a thread.
    pub fn start<D: Decoder>(decoder: D, options: EngineOptions) -> Result<Self, StartError> {
        Self::start_with_draft(decoder, None, options)
    }

    /// Starts an engine in which `draft`, a smaller model with the same ids, guesses what `decoder` will choose, where that pays.
    ///
    /// # Errors
    /// As [`start`](Self::start); another vocabulary, or models whose sequences cannot be shortened.
    pub fn start_with_draft<D: Decoder>(decoder: D, draft: Option<D>, options: EngineOptions) -> Result<Self, StartError> {
        if let Some(other) = draft.as_ref().map(Decoder::vocab_size).filter(|&other| other != decoder.vocab_size()) {
            let allowed = format!("a model of {} ids", decoder.vocab_size());
            return Err(ParamError::new("draft", format!("a model of {other} ids"), allowed).into());
        }
        if draft.as_ref().is_some_and(|draft| draft.spare().min(decoder.spare()) < MAX_DRAFT) {
            let allowed = "where neither model has recurrent layers";
            return Err(ParamError::new("draft", "a model".to_owned(), allowed.to_owned()).into());
        }
        let limits = Limits {
            context_length: decoder.context_length(),
            max_rows: decoder.max_rows(),
            max_sequences: options.max_sequences,
            prefill_chunk: options.prefill_chunk,
            cache_bytes: options.cache_bytes,
            speculate: options.speculate,
        };
        check("max_sequences", options.max_sequences, limits.max_rows)?;
        check("max_queue", options.max_queue, usize::MAX)?;
        check("prefill_chunk", options.prefill_chunk, usize::MAX)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(options.max_queue),
            interrupt: Interrupt::default(),
            deadlines: Deadlines::default(),
            running: AtomicUsize::new(0),
            computed_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            cache_bytes: AtomicUsize::new(0),
            drafted_tokens: AtomicU64::new(0),
            accepted_tokens: AtomicU64::new(0),
        });
        let mut engine = Self {
            shared: Arc::clone(&shared),
            vocab_size: decoder.vocab_size(),
            context_length: limits.context_length,
            next_id: AtomicU64::new(0),
            threads: Mutex::default(),
            thread_ids: Vec::new(),
            masks: Arc::default(),
        };
        let scheduler = Scheduler::new(decoder, draft, Arc::clone(&shared), limits);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| Builder::new().name(name.to_owned()).spawn(body);
        let deadlines = spawn("fastllm-deadline", Box::new(move || shared.deadlines.run()))?;
        lock(&engine.threads).push(deadlines);
        let scheduler = spawn("fastllm-engine", Box::new(move || scheduler.run()))?;
        lock(&engine.threads).push(scheduler);
        engine.thread_ids = lock(&engine.threads).iter().map(|thread| thread.thread().id()).collect();
        Ok(engine)
    }

    /// Queues a request.
    ///
    /// # Errors
    /// What is wrong with the request, or [`SubmitError::Busy`] when the queue is full. Nothing was done.
    pub fn submit(&self, mut request: Request) -> Result<Handle, SubmitError> {
        request.validate(self.context_length, self.vocab_size)?;
        let ticket = self.ticket(request.timeout, request.notify.take());
        let (priority, salt) = (request.priority, Arc::clone(&request.cache_salt));
        if request.constraint.is_some() {
            self.masks.start().map_err(|error| SubmitError::Thread(error.to_string()))?;
        }
        let (generation, tokens) = Generation::new(request, &self.masks)?;
        self.queue(&ticket, priority, &salt, tokens, Work::Generate(Box::new(generation)))
    }

    /// Queues a request for the logits after every position of `ids`, shown to `visitor` on the engine's thread. Its last event is
    /// [`Event::Finished`] when all were shown.
    ///
    /// # Errors
    /// What is wrong with the ids, or [`SubmitError::Busy`] when the queue is full.
    pub fn submit_logits(&self, ids: Vec<u32>, visitor: LogitsVisitor, notify: Option<Notify>) -> Result<Handle, SubmitError> {
        validate_prompt(&ids, self.context_length, self.vocab_size)?;
        self.queue(&self.ticket(None, notify), 0, &Arc::from(""), ids, Work::Logits(visitor))
    }

    /// Queues a request that computes the state after `ids` and keeps it for others that begin alike, as far as memory allows. With `save`,
    /// which was made with the same ids, it also goes there. `salt` is that of [`Request::cache_salt`].
    ///
    /// # Errors
    /// What is wrong with the ids, or [`SubmitError::Busy`] when the queue is full.
    pub fn submit_state(
        &self,
        ids: Vec<u32>,
        save: Option<StateWriter>,
        salt: &Arc<str>,
        notify: Option<Notify>,
    ) -> Result<Handle, SubmitError> {
        validate_prompt(&ids, self.context_length, self.vocab_size)?;
        self.queue(&self.ticket(None, notify), 0, salt, ids, Work::Transfer(Box::new(Transfer { save, ..Transfer::default() })))
    }

    /// Queues a request that reads a state, and keeps it for others of the same salt that begin with its tokens.
    ///
    /// # Errors
    /// What is wrong with its tokens, or [`SubmitError::Busy`] when the queue is full.
    pub fn submit_saved(&self, state: StateReader, salt: &Arc<str>, notify: Option<Notify>) -> Result<Handle, SubmitError> {
        let ids = state.tokens().to_vec();
        validate_prompt(&ids, self.context_length, self.vocab_size)?;
        let transfer = Transfer { restore: Some(state), ..Transfer::default() };
        self.queue(&self.ticket(None, notify), 0, salt, ids, Work::Transfer(Box::new(transfer)))
    }

    /// The logits after every position of `ids`: `[ids.len(), vocab_size]`, row-major. Waits for them; `cancel` is asked at least every 50 ms
    /// whether to give up.
    ///
    /// # Errors
    /// What is wrong with the ids, what went wrong, or that it was cancelled.
    pub fn logits(&self, ids: Vec<u32>, mut cancel: impl FnMut() -> bool) -> Result<Vec<f32>, RunError> {
        validate_prompt(&ids, self.context_length, self.vocab_size)?;
        let len = ids.len().saturating_mul(self.vocab_size);
        let mut logits = Vec::new();
        logits.try_reserve_exact(len).map_err(|_| RunError::OutOfMemory { bytes: len.saturating_mul(size_of::<f32>()) })?;
        let logits = Arc::new(Mutex::new(logits));
        let sink = Arc::clone(&logits);
        let handle = self.submit_logits(ids, Box::new(move |_, row| lock(&sink).extend_from_slice(row)), None)?;
        loop {
            match handle.next(Duration::from_millis(50)) {
                Next::Event(Event::Finished(_)) => return Ok(std::mem::take(&mut *lock(&logits))),
                Next::Event(Event::Failed(failure)) => return Err(failure.into()),
                Next::Event(_) | Next::Pending if cancel() => return Err(RunError::Cancelled),
                Next::Event(_) | Next::Pending => {}
                Next::Closed => return Err(RunError::Cancelled),
            }
        }
    }

    /// What the engine is doing now.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.shared.running.load(Ordering::Relaxed),
            waiting: self.shared.queue.len(),
            computed_tokens: self.shared.computed_tokens.load(Ordering::Relaxed),
            cached_tokens: self.shared.cached_tokens.load(Ordering::Relaxed),
            cache_bytes: self.shared.cache_bytes.load(Ordering::Relaxed),
            drafted_tokens: self.shared.drafted_tokens.load(Ordering::Relaxed),
            accepted_tokens: self.shared.accepted_tokens.load(Ordering::Relaxed),
        }
    }

    /// Refuses new requests, ends all others with [`Failure::ShutDown`](crate::Failure::ShutDown), and waits for the threads. The
    /// decoder is dropped. Calling it again waits as well, and does nothing.
    pub fn shutdown(&self) {
        self.shared.queue.close();
        self.shared.interrupt.shut_down();
        self.shared.deadlines.close();
        // A notify hook may hold the engine: then this is the engine's own thread, which ends by itself.
        if self.thread_ids.contains(&std::thread::current().id()) {
            return;
        }
        // Held to the end: whoever calls this meanwhile returns when the threads have ended, too.
        let mut threads = lock(&self.threads);
        for thread in threads.drain(..) {
            // A thread that panicked has already ended its requests.
            drop(thread.join());
        }
        self.masks.shut_down();
    }

    fn ticket(&self, timeout: Option<Duration>, notify: Option<Notify>) -> Arc<Ticket> {
        Ticket::new(self.next_id.fetch_add(1, Ordering::Relaxed), timeout, notify, &self.shared)
    }

    fn queue(&self, ticket: &Arc<Ticket>, priority: i32, salt: &Arc<str>, tokens: Vec<u32>, work: Work) -> Result<Handle, SubmitError> {
        let handle = Handle::new(Arc::clone(ticket));
        let (ticket_of, salt) = (Arc::clone(ticket), Arc::clone(salt));
        let task = Task { ticket: ticket_of, priority, salt, tokens, work, watch: Stopwatch::start() };
        self.shared.queue.push(task)?;
        ticket.watch_deadline();
        Ok(handle)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn check(field: &'static str, value: usize, most: usize) -> Result<(), ParamError> {
    let allowed = if most == usize::MAX { "at least 1".to_owned() } else { format!("1 to {most}, the rows of one forward pass") };
    if (1..=most).contains(&value) { Ok(()) } else { Err(ParamError::new(field, value.to_string(), allowed)) }
}
