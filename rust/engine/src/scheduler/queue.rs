//! The requests that wait, in order of priority and arrival.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;
use super::task::Task;
use crate::error::SubmitError;

/// A bounded queue between the callers and the scheduler.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), limit }
    }

    pub(crate) fn push(&self, task: Task) -> Result<(), SubmitError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SubmitError::ShutDown);
        }
        if state.tasks.len() >= self.limit {
            return Err(SubmitError::Busy { waiting: state.tasks.len(), limit: self.limit });
        }
        state.tasks.push_back(task);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the first of those with the highest priority.
    pub(crate) fn pop(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        let index = state.tasks.iter().enumerate().max_by_key(|&(index, task)| (task.priority, Reverse(index)))?.0;
        state.tasks.remove(index)
    }

    /// Takes a waiting task out.
    pub(crate) fn remove(&self, id: u64) -> Option<Task> {
        let mut state = lock(&self.state);
        let index = state.tasks.iter().position(|task| task.ticket.id() == id)?;
        state.tasks.remove(index)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).tasks.len()
    }

    /// Refuses what comes from now on, and wakes the scheduler.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.arrived.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Sleeps until there is a task or the queue is closed.
    pub(crate) fn wait(&self) {
        let state = lock(&self.state);
        drop(self.arrived.wait_while(state, |state| state.tasks.is_empty() && !state.closed).unwrap_or_else(PoisonError::into_inner));
    }
}
