//! What belongs to one process: threads do not survive a `fork`, and locks may be held for ever in the child. And its signals.
use crate::errors;
use pyo3::prelude::*;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long a waiting caller sleeps between two looks for signals.
const SLICE: Duration = Duration::from_millis(20);

/// A value that only the process which made it may touch. In a forked child every use is an error, and dropping it does nothing:
/// joining a thread that is not there would wait for ever.
#[derive(Debug)]
pub struct Owned<T> {
    pid: u32,
    value: ManuallyDrop<T>,
}

impl<T> Owned<T> {
    /// Of this process.
    pub fn new(value: T) -> Self {
        Owned { pid: std::process::id(), value: ManuallyDrop::new(value) }
    }

    /// The value.
    ///
    /// # Errors
    /// `ForkError` in another process.
    pub fn get(&self, py: Python<'_>) -> PyResult<&T> {
        if self.pid == std::process::id() { Ok(&self.value) } else { Err(errors::forked(py, self.pid)) }
    }
}

impl<T> Drop for Owned<T> {
    #[allow(unsafe_code, reason = "ManuallyDrop has no safe drop")]
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // SAFETY: the value is not touched again, this being its owner's drop.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// Runs `work` on another thread, and sets `cancel` when a signal handler raises; returns what it raised.
pub fn watched<T: Send>(work: impl FnOnce() -> T + Send, cancel: &AtomicBool) -> (Option<T>, Option<PyErr>) {
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        let thread = scope.spawn(move || {
            let _done = done;
            work()
        });
        let mut raised = None;
        while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(SLICE) {
            raised = raised.or_else(|| Python::try_attach(|py| py.check_signals().err()).unwrap_or_else(|| Some(errors::exiting())));
            cancel.store(raised.is_some(), Ordering::Relaxed);
        }
        (thread.join().ok(), raised)
    })
}
