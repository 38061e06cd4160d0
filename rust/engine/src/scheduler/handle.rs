//! The caller's end of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::task::Ticket;
use crate::event::{Event, FinishReason};

/// Receives the events of one request. Dropping it cancels the request. May be shared between threads.
///
/// Events that are not taken stay in the queue: at most one a token, so that a context is the bound. A consumer that is too slow is
/// stopped by cancelling.
pub struct Handle {
    ticket: Arc<Ticket>,
}

/// What [`Handle::next`] found.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Event(Event),
    /// No event came in the given time.
    Pending,
    /// The last event was taken before.
    Closed,
}

impl Handle {
    pub(crate) fn new(ticket: Arc<Ticket>) -> Self {
        Self { ticket }
    }

    /// The next event, waiting up to `timeout` for it; with a timeout of zero, what is there now.
    pub fn next(&self, timeout: Duration) -> Next {
        self.ticket.next(timeout)
    }

    /// Stops the request: a waiting one never starts, a running one ends within its current forward pass. Its last event follows.
    pub fn cancel(&self) {
        self.ticket.interrupt(FinishReason::Cancelled);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.ticket.id()).finish()
    }
}
