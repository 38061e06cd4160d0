//! `Engine`: accepts requests.
use crate::errors::OrRaise;
use crate::model::Model;
use crate::process::Owned;
use crate::request::{Request, TokenPieces};
use crate::sampling::Sampling;
use crate::tokenizer::{SignalCheck, Tokenizer, ids};
use crate::waker::Waker;
use fastllm_engine::{self as engine, EngineOptions, ModelDecoder};
use fastllm_text::tokenizer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The engines that were started, and the process in which.
static STARTED: Mutex<Vec<(u32, Weak<engine::Engine>)>> = Mutex::new(Vec::new());

/// Ends all requests and threads, so that nothing computes while the interpreter goes. For `atexit`.
#[pyfunction]
pub fn shutdown(py: Python<'_>) {
    // In a forked child another thread may have held the lock for ever; there is nothing to end there.
    let Ok(started) = STARTED.try_lock().map(|mut started| std::mem::take(&mut *started)) else { return };
    py.detach(|| {
        let own = started.iter().filter(|(pid, _)| *pid == std::process::id());
        own.filter_map(|(_, engine)| engine.upgrade()).for_each(|engine| engine.shutdown());
    });
}

fn remember(engine: &Arc<engine::Engine>) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.retain(|(_, engine)| engine.strong_count() > 0);
    started.push((std::process::id(), Arc::downgrade(engine)));
}

/// A model with the thread that runs it.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Engine {
    engine: Owned<Arc<engine::Engine>>,
    tokenizer: Arc<tokenizer::Tokenizer>,
    end_of_generation: Arc<[u32]>,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, model: &Model, tokenizer: &Tokenizer) -> PyResult<Engine> {
        let decoder = ModelDecoder::new(Arc::clone(&model.inner)).or_raise(py)?;
        let engine = Arc::new(engine::Engine::start(decoder, EngineOptions::default()).or_raise(py)?);
        remember(&engine);
        let tokenizer = Arc::clone(&tokenizer.inner);
        Ok(Engine { engine: Owned::new(engine), end_of_generation: tokenizer.end_of_generation().into(), tokenizer })
    }

    /// Queues a request; `waker` hears of its events.
    fn submit(&self, prompt: &Bound<'_, PyAny>, sampling: &Sampling, waker: Option<&Waker>) -> PyResult<Request> {
        let py = prompt.py();
        let engine = self.engine.get(py)?;
        let prompt = ids(prompt)?;
        let request = engine::Request {
            pieces: Box::new(TokenPieces::after(&self.tokenizer, &prompt)),
            prompt,
            sampling: sampling.sampling.clone(),
            stop: sampling.stop.clone(),
            max_tokens: sampling.max_tokens,
            timeout: sampling.timeout,
            end_of_generation: Arc::clone(&self.end_of_generation),
            notify: waker.map(Waker::notify),
        };
        let handle = py.detach(|| engine.submit(request)).or_raise(py)?;
        Ok(Request::new(handle, Arc::clone(engine)))
    }

    /// The logits after every id, as the bytes of float32 `[len, vocab]`.
    fn logits<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyByteArray>> {
        let py = ids.py();
        let (engine, ids) = (self.engine.get(py)?, self::ids(ids)?);
        let mut signals = SignalCheck::new();
        let logits = py.detach(|| engine.logits(ids, || !signals.go_on()));
        signals.into_result()?;
        let logits = logits.or_raise(py)?;
        PyByteArray::new_with(py, logits.len() * size_of::<f32>(), |bytes| {
            for (to, from) in bytes.chunks_exact_mut(size_of::<f32>()).zip(&logits) {
                to.copy_from_slice(&from.to_ne_bytes());
            }
            Ok(())
        })
    }

    /// The log-probability of every id but the first, given those before it.
    fn logprobs(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
        let (engine, ids) = (self.engine.get(py)?, self::ids(ids)?);
        let next = ids.get(1..).unwrap_or_default().to_vec();
        let logprobs = Arc::new(Mutex::new(Vec::with_capacity(next.len())));
        let sink = Arc::clone(&logprobs);
        let visit = move |position: usize, logits: &[f32]| {
            if let Some(&id) = next.get(position) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(log_softmax_at(logits, id as usize));
            }
        };
        let handle = engine.submit_logits(ids, Box::new(visit), None).or_raise(py)?;
        let request = Request::new(handle, Arc::clone(engine));
        request.finish(py)?;
        Ok(std::mem::take(&mut *logprobs.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Requests that run, requests that wait, and tokens that went through the model.
    fn stats(&self, py: Python<'_>) -> PyResult<(usize, usize, u64)> {
        let stats = self.engine.get(py)?.stats();
        Ok((stats.running, stats.waiting, stats.computed_tokens))
    }

    /// Ends all requests and threads, and frees the KV cache.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.engine.get(py)?;
        py.detach(|| engine.shutdown());
        Ok(())
    }
}

/// One entry of the log-softmax, in double precision.
fn log_softmax_at(logits: &[f32], index: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.get(index).map_or(f64::NEG_INFINITY, |&x| f64::from(x - max) - total.ln())
}
