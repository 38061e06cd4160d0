//! `Cancellation`: stops what a thread computes when nobody waits for it any more.
use crate::errors;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// The flag of the call that this thread is in.
    static CURRENT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// The flag that ends what this thread computes, if there is one. Code that runs long asks it now and then.
pub fn current() -> Option<Arc<AtomicBool>> {
    CURRENT.with_borrow(Clone::clone)
}

/// A flag for one call on a thread: once it is set, native code in that call raises `CancelledError` soon.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Cancellation {
    flag: Arc<AtomicBool>,
}

/// Puts the flag of an outer call back, however the inner one ends.
struct Restore(Option<Arc<AtomicBool>>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[pymethods]
impl Cancellation {
    #[new]
    fn new() -> Cancellation {
        Cancellation { flag: Arc::default() }
    }

    /// Sets the flag. From any thread.
    fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// `function(*arguments)` on this thread, under this flag.
    #[pyo3(signature = (function, *arguments))]
    fn run<'py>(&self, function: &Bound<'py, PyAny>, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(errors::cancelled(function.py()));
        }
        let _restore = Restore(CURRENT.replace(Some(Arc::clone(&self.flag))));
        function.call1(arguments)
    }
}
