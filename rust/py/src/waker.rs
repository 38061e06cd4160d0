//! `Waker`: how the engine wakes an event loop without touching Python.
use pyo3::prelude::*;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
#[cfg(unix)]
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A pipe with at most one byte in it, so that neither end ever blocks.
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether a byte is, or is about to be, in the pipe.
    signalled: AtomicBool,
    closed: AtomicBool,
}

impl Pipe {
    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // A pipe whose reader is open and that holds no other byte takes this one.
            let written = (&self.writer).write(&[0]);
            debug_assert!(matches!(written, Ok(1)));
        }
    }
}

/// Becomes readable when one of the requests that it was given to has news. One is enough for an event loop.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Waker {
    pipe: Arc<Pipe>,
}

impl Waker {
    /// A hook for requests. It keeps both ends of the pipe open, so that the descriptor cannot become another file's.
    pub fn notify(&self) -> fastllm_engine::Notify {
        let pipe = Arc::clone(&self.pipe);
        Box::new(move || pipe.signal())
    }
}

#[pymethods]
impl Waker {
    #[new]
    fn new() -> PyResult<Waker> {
        let (reader, writer) = pipe()?;
        Ok(Waker { pipe: Arc::new(Pipe { reader, writer, signalled: AtomicBool::new(false), closed: AtomicBool::new(false) }) })
    }

    /// The descriptor to wait for; `None` where event loops cannot wait for pipes.
    fn fileno(&self) -> Option<i32> {
        #[cfg(unix)]
        return Some(self.pipe.reader.as_raw_fd());
        #[cfg(not(unix))]
        None
    }

    /// Waits for news, for a thread of its own; `False` once closed.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| (&self.pipe.reader).read_exact(&mut [0]))?;
        self.pipe.signalled.store(false, Ordering::Release);
        Ok(!self.pipe.closed.load(Ordering::Acquire))
    }

    /// Ends `wait`.
    fn close(&self) {
        self.pipe.closed.store(true, Ordering::Release);
        self.pipe.signal();
    }

    /// Makes it unreadable until the next news. To be called before looking at the requests.
    fn clear(&self) -> PyResult<()> {
        if self.pipe.signalled.load(Ordering::Acquire) {
            (&self.pipe.reader).read_exact(&mut [0])?;
            self.pipe.signalled.store(false, Ordering::Release);
        }
        Ok(())
    }
}
