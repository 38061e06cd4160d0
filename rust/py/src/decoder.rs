//! `Decoder`: forward passes alone, for measurements.
use crate::errors::{self, OrRaise};
use crate::model::Model;
use crate::process::{Owned, watched};
use fastllm_engine::{DecodeError, Decoder as _, ModelDecoder};
use fastllm_model::batch::{Row, SequenceId};
use pyo3::prelude::*;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A model and its KV cache, without scheduling and sampling.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Decoder {
    inner: Owned<Mutex<ModelDecoder>>,
}

type Rows = Vec<(u32, u32, u32, bool)>;

fn rows(rows: Rows) -> Vec<Row> {
    rows.into_iter().map(|(sequence, position, token, logits)| Row { sequence: SequenceId(sequence), position, token, logits }).collect()
}

impl Decoder {
    fn with<T>(&self, py: Python<'_>, f: impl FnOnce(&mut ModelDecoder) -> T) -> PyResult<T> {
        let inner = self.inner.get(py)?;
        // A decoder commits nothing of a pass that panicked.
        Ok(f(&mut inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

#[pymethods]
impl Decoder {
    #[new]
    fn new(py: Python<'_>, model: &Model) -> PyResult<Decoder> {
        let decoder = ModelDecoder::new(Arc::clone(&model.inner)).or_raise(py)?;
        Ok(Decoder { inner: Owned::new(Mutex::new(decoder)) })
    }

    /// Most rows of a pass.
    #[getter]
    fn max_rows(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |decoder| decoder.max_rows())
    }

    /// A new sequence.
    fn open(&self, py: Python<'_>) -> PyResult<u32> {
        self.with(py, fastllm_engine::Decoder::open)?.map(|id| id.0).or_raise(py)
    }

    /// Ends a sequence.
    fn close(&self, py: Python<'_>, sequence: u32) -> PyResult<()> {
        self.with(py, |decoder| decoder.close(SequenceId(sequence)))
    }

    /// Runs passes of rows (sequence, position, token, whether its logits are wanted) one after the other. Returns the seconds that
    /// they took together, and the bytes of weights and KV cache that they read.
    fn run(&self, py: Python<'_>, passes: Vec<Rows>) -> PyResult<(f64, u64)> {
        let passes: Vec<_> = passes.into_iter().map(rows).collect();
        let cancel = AtomicBool::new(false);
        let inner = self.inner.get(py)?;
        let work = || {
            let mut decoder = inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let start = Instant::now();
            for pass in &passes {
                decoder.forward(pass, &cancel)?;
            }
            let seconds = start.elapsed().as_secs_f64();
            Ok::<_, DecodeError>((seconds, passes.iter().map(|pass| decoder.bytes_read(pass)).sum()))
        };
        let (result, raised) = py.detach(|| watched(work, &cancel));
        raised.map_or(Ok(()), Err)?;
        result.ok_or_else(|| errors::internal(py, "a forward pass panicked"))?.or_raise(py)
    }
}
