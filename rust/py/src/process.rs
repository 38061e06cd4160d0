//! What belongs to one process: threads do not survive a `fork`, and locks may be held for ever in the child.
use crate::errors;
use pyo3::prelude::*;
use std::mem::ManuallyDrop;

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
