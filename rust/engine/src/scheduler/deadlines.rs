//! Time limits: a thread that sleeps until the next one and interrupts its request, wherever that is.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::guard::catch;
use super::lock;
use super::task::Ticket;
use crate::event::FinishReason;

/// The deadlines of all requests that have one, soonest first. Monotonic time.
#[derive(Default)]
pub(crate) struct Deadlines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<(Instant, u64), Weak<Ticket>>,
    closed: bool,
}

impl Deadlines {
    pub(crate) fn add(&self, deadline: Instant, id: u64, ticket: Weak<Ticket>) {
        lock(&self.state).pending.insert((deadline, id), ticket);
        self.changed.notify_one();
    }

    pub(crate) fn remove(&self, deadline: Instant, id: u64) {
        lock(&self.state).pending.remove(&(deadline, id));
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }

    /// The thread: interrupts requests as their time passes, until the engine is closed.
    pub(crate) fn run(&self) {
        while let Some(ticket) = self.next_expired() {
            if let Some(ticket) = ticket.upgrade() {
                // Dropping a waiting request runs code of its caller; a panic there must not end all other time limits.
                drop(catch("a time limit", || ticket.interrupt(FinishReason::Timeout)));
            }
        }
    }

    /// Sleeps until a deadline passes; `None` once closed.
    fn next_expired(&self) -> Option<Weak<Ticket>> {
        let mut state = lock(&self.state);
        while !state.closed {
            let now = Instant::now();
            let first = state.pending.first_key_value().map(|(&(deadline, _), _)| deadline);
            state = match first {
                Some(deadline) if deadline <= now => return state.pending.pop_first().map(|(_, ticket)| ticket),
                Some(deadline) => self.changed.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }
}
