//! A request inside the engine: its ticket, shared with the caller, and its work, owned by the scheduler.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::deadlines::Deadlines;
use super::generation::Generation;
use super::handle::Next;
use super::interrupt::Interrupt;
use super::lock;
use super::queue::Queue;
use crate::event::{Event, FinishReason, Finished, Usage};
use crate::request::{LogitsVisitor, Notify};
use crate::saved::{StateReader, StateWriter};
use crate::timings::Stopwatch;

/// What callers, scheduler and the deadline thread share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) interrupt: Interrupt,
    pub(crate) deadlines: Deadlines,
    pub(crate) running: AtomicUsize,
    pub(crate) computed_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) cache_bytes: AtomicUsize,
    pub(crate) drafted_tokens: AtomicU64,
    pub(crate) accepted_tokens: AtomicU64,
}

const LIVE: u8 = 0;
const CANCELLED: u8 = 1;
const TIMED_OUT: u8 = 2;
const ENDED: u8 = 3;

/// The caller's end of a request and the engine's: events one way, interruption the other.
pub(crate) struct Ticket {
    id: u64,
    deadline: Option<Instant>,
    shared: Arc<Shared>,
    /// LIVE, then why it is to end early or that it ended.
    state: AtomicU8,
    outbox: Mutex<Outbox>,
    available: Condvar,
    notify: Option<Notify>,
}

#[derive(Default)]
struct Outbox {
    events: VecDeque<Event>,
    closed: bool,
}

impl Ticket {
    /// A ticket whose time limit, if any, runs from now. A limit beyond the range of the clock is none.
    pub(crate) fn new(id: u64, timeout: Option<Duration>, notify: Option<Notify>, shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            id,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            shared: Arc::clone(shared),
            state: AtomicU8::new(LIVE),
            outbox: Mutex::default(),
            available: Condvar::new(),
            notify,
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Starts the clock of the time limit, once the request is queued.
    pub(crate) fn watch_deadline(self: &Arc<Self>) {
        if let Some(deadline) = self.deadline {
            self.shared.deadlines.add(deadline, self.id, Arc::downgrade(self));
            // Already over: then its end may have come before the line above.
            if self.state.load(Ordering::SeqCst) != LIVE {
                self.forget_deadline();
            }
        }
    }

    /// Why the request is to end early, if it is.
    pub(crate) fn interrupted(&self) -> Option<FinishReason> {
        match self.state.load(Ordering::SeqCst) {
            CANCELLED => Some(FinishReason::Cancelled),
            TIMED_OUT => Some(FinishReason::Timeout),
            _ => None,
        }
    }

    /// Ends the request early: at once when it waits, by aborting the forward pass when it runs. The first reason counts.
    pub(crate) fn interrupt(&self, reason: FinishReason) {
        let code = if reason == FinishReason::Timeout { TIMED_OUT } else { CANCELLED };
        if !self.leave_live(code) {
            return;
        }
        match self.shared.queue.remove(self.id) {
            Some(task) => task.finish_waiting(reason),
            None => self.shared.interrupt.cancelled(self.id),
        }
    }

    /// Whether the state was LIVE; it is `code` then.
    fn leave_live(&self, code: u8) -> bool {
        self.state.compare_exchange(LIVE, code, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Reports an event.
    pub(crate) fn send(&self, event: Event) {
        self.deliver(event, false);
    }

    /// Reports the last event.
    pub(crate) fn close(&self, event: Event) {
        self.leave_live(ENDED);
        self.forget_deadline();
        self.deliver(event, true);
    }

    fn forget_deadline(&self) {
        if let Some(deadline) = self.deadline {
            self.shared.deadlines.remove(deadline, self.id);
        }
    }

    fn deliver(&self, event: Event, last: bool) {
        let mut outbox = lock(&self.outbox);
        if outbox.closed {
            return;
        }
        outbox.closed = last;
        outbox.events.push_back(event);
        let first = outbox.events.len() == 1;
        drop(outbox);
        self.available.notify_all();
        if let Some(notify) = self.notify.as_ref().filter(|_| first) {
            // A hook that panics breaks its contract; the engine's thread survives it and the event stays in the queue.
            drop(catch_unwind(AssertUnwindSafe(notify)));
        }
    }

    /// The next event, waiting up to `timeout` for it.
    pub(crate) fn next(&self, timeout: Duration) -> Next {
        let outbox = lock(&self.outbox);
        let empty = |outbox: &mut Outbox| outbox.events.is_empty() && !outbox.closed;
        let (mut outbox, _) = self.available.wait_timeout_while(outbox, timeout, empty).unwrap_or_else(PoisonError::into_inner);
        match outbox.events.pop_front() {
            Some(event) => Next::Event(event),
            None if outbox.closed => Next::Closed,
            None => Next::Pending,
        }
    }
}

/// A request as the scheduler sees it.
pub(crate) struct Task {
    pub(crate) ticket: Arc<Ticket>,
    /// Higher ones are served first.
    pub(crate) priority: i32,
    /// Whose prompts may share their computed prefixes with it.
    pub(crate) salt: Arc<str>,
    /// The prompt; while it runs also the tokens that were made and are to be fed back.
    pub(crate) tokens: Vec<u32>,
    pub(crate) work: Work,
    pub(crate) watch: Stopwatch,
}

/// What is done with the logits.
pub(crate) enum Work {
    Generate(Box<Generation>),
    /// Show the logits of every position.
    Logits(LogitsVisitor),
    /// Compute the state, and keep it for others.
    Transfer(Box<Transfer>),
}

/// Where a state comes from and goes to.
#[derive(Default)]
pub(crate) struct Transfer {
    /// Where it is written once it is computed.
    pub(crate) save: Option<StateWriter>,
    /// Where it is read from instead of being computed.
    pub(crate) restore: Option<StateReader>,
    /// The next piece.
    pub(crate) piece: usize,
}

impl Task {
    /// Ends a request that never ran.
    pub(crate) fn finish_waiting(self, reason: FinishReason) {
        let usage = Usage { prompt_tokens: self.tokens.len(), ..Usage::default() };
        let timings = self.watch.finish(0);
        self.ticket.close(Event::Finished(Box::new(Finished { reason, stop: None, text: String::new(), usage, timings })));
    }
}
