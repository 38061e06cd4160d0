//! Who runs when: the queue, the running requests, and the thread that batches them.
//!
//! Each step runs one row of every request that decodes and, in the rows that are left, parts of the prompts that are being read,
//! by priority, the least recently served first. A step that fails is repeated request by request, so that only those that fail alone end.
//!
//! Locks are leaves: none is held while another is taken, nor while code of a caller runs.

pub(crate) mod deadlines;
pub(crate) mod generation;
pub(crate) mod guard;
pub(crate) mod handle;
pub(crate) mod interrupt;
pub(crate) mod prefix;
pub(crate) mod queue;
mod running;
mod speculation;
pub(crate) mod step;
pub(crate) mod task;
mod transfer;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere does not poison the engine: every critical section leaves its data consistent at each point.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
