//! `Engine`: accepts requests.
use crate::cache;
use crate::errors::{self, OrRaise};
use crate::file::File;
use crate::grammar::Grammar;
use crate::model::Model;
use crate::process::Owned;
use crate::request::{Request, TokenPieces};
use crate::sampling::Sampling;
use crate::tokenizer::{Tokenizer, ids};
use crate::waker::Waker;
use fastllm_engine::{self as engine, EngineOptions, ModelDecoder, StateReader, StateWriter};
use fastllm_gguf::open_regular;
use fastllm_model::config::Config;
use fastllm_model::identity;
use fastllm_text::tokenizer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The engines that were started, and the process in which.
static STARTED: Mutex<Vec<(u32, Weak<engine::Engine>)>> = Mutex::new(Vec::new());

/// Ends all requests and threads, so that nothing computes while the interpreter goes, and waits for the cache. For `atexit`.
#[pyfunction]
pub fn shutdown(py: Python<'_>) {
    // In a forked child another thread may have held the lock for ever; there is nothing to end there.
    let Ok(started) = STARTED.try_lock().map(|mut started| std::mem::take(&mut *started)) else { return };
    py.detach(|| {
        let own = started.iter().filter(|(pid, _)| *pid == std::process::id());
        own.filter_map(|(_, engine)| engine.upgrade()).for_each(|engine| engine.shutdown());
    });
    cache::finish(py);
}

fn remember(engine: &Arc<engine::Engine>) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.retain(|(_, engine)| engine.strong_count() > 0);
    started.push((std::process::id(), Arc::downgrade(engine)));
}

/// A model with the thread that runs it.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Engine {
    inner: Owned<Arc<engine::Engine>>,
    tokenizer: Arc<tokenizer::Tokenizer>,
    end_of_generation: Arc<[u32]>,
    vocab_size: usize,
    config: Config,
}

#[pymethods]
impl Engine {
    /// Starts the thread; `cache_bytes` bounds what the KV cache keeps of requests that ended, `speculate` allows guesses from the text,
    /// and from `draft`, a model with the same vocabulary.
    #[new]
    fn new(
        py: Python<'_>,
        model: &Model,
        tokenizer: &Tokenizer,
        cache_bytes: usize,
        speculate: bool,
        draft: Option<&Model>,
    ) -> PyResult<Engine> {
        let decoder = |model: &Model| ModelDecoder::new(Arc::clone(&model.inner)).or_raise(py);
        let options = EngineOptions { cache_bytes, speculate, ..EngineOptions::default() };
        let draft = draft.map(decoder).transpose()?;
        let engine = Arc::new(engine::Engine::start_with_draft(decoder(model)?, draft, options).or_raise(py)?);
        remember(&engine);
        let tokenizer = Arc::clone(&tokenizer.inner);
        Ok(Engine {
            inner: Owned::new(engine),
            end_of_generation: tokenizer.end_of_generation().into(),
            vocab_size: model.inner.config().vocab_size,
            tokenizer,
            config: model.inner.config().clone(),
        })
    }

    /// Queues a request whose output follows `grammar`; `waker` hears of its events. Without `skip_ahead`, each token that the grammar
    /// forces is sampled. The control tokens `shown` are part of the text.
    #[pyo3(signature = (prompt, sampling, grammar, skip_ahead, waker, shown = None))]
    fn submit(
        &self,
        prompt: &Bound<'_, PyAny>,
        sampling: &Sampling,
        grammar: Option<&Grammar>,
        skip_ahead: bool,
        waker: Option<&Waker>,
        shown: Option<Vec<u32>>,
    ) -> PyResult<Request> {
        let py = prompt.py();
        let engine = self.inner.get(py)?;
        let prompt = ids(prompt)?;
        let constraint = grammar.map(|grammar| py.detach(|| grammar.constraint())).transpose();
        let constraint = constraint.map_err(|error| errors::internal(py, error.to_string()))?;
        let request = engine::Request {
            pieces: Box::new(TokenPieces::after(&self.tokenizer, &prompt, shown.unwrap_or_default())),
            prompt,
            sampling: sampling.params.clone(),
            stop: sampling.stop.clone(),
            prompt_logprobs: sampling.prompt_logprobs,
            max_tokens: sampling.max_tokens,
            timeout: sampling.timeout,
            priority: sampling.priority,
            cache_salt: Arc::clone(&sampling.cache_salt),
            end_of_generation: Arc::clone(&self.end_of_generation),
            constraint,
            skip_ahead,
            notify: waker.map(Waker::notify),
        };
        let handle = py.detach(|| engine.submit(request)).or_raise(py)?;
        Ok(Request::new(handle, Arc::clone(engine)))
    }

    /// Computes the state after `ids`, keeps it for requests with this salt, and writes it to `path` if there is one; `file` is that of
    /// the model.
    fn save_state(&self, ids: &Bound<'_, PyAny>, path: Option<PathBuf>, file: &File, cache_salt: &str) -> PyResult<()> {
        let py = ids.py();
        let (engine, ids) = (self.inner.get(py)?, self::ids(ids)?);
        let writer = path.map(|path| {
            let identity = py.detach(|| identity(&file.file, &self.config)).or_raise(py)?;
            let created = std::fs::File::create_new(&path).map_err(|error| errors::os_error(py, &path, &error, &error.to_string()))?;
            StateWriter::new(BufWriter::new(created), &identity, &ids).or_raise(py)
        });
        let writer = writer.transpose()?;
        let handle = engine.submit_state(ids, writer, &cache_salt.into(), None).or_raise(py)?;
        Request::new(handle, Arc::clone(engine)).finish(py)
    }

    /// Reads the state in `path` and keeps it for requests with this salt; its tokens.
    fn restore_state(&self, py: Python<'_>, path: PathBuf, file: &File, cache_salt: &str) -> PyResult<Vec<u32>> {
        let engine = self.inner.get(py)?;
        let identity = py.detach(|| identity(&file.file, &self.config)).or_raise(py)?;
        let (opened, len) = open_regular(path).or_raise(py)?;
        let reader = StateReader::new(BufReader::new(opened), len, &identity).or_raise(py)?;
        let tokens = reader.tokens().to_vec();
        let handle = engine.submit_saved(reader, &cache_salt.into(), None).or_raise(py)?;
        Request::new(handle, Arc::clone(engine)).finish(py)?;
        Ok(tokens)
    }

    /// The logits after every id, as the bytes of float32 `[len, vocab]`.
    fn logits<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyByteArray>> {
        let py = ids.py();
        let ids = self::ids(ids)?;
        let bytes = ids.len().saturating_mul(self.vocab_size).saturating_mul(size_of::<f32>());
        let logits = self.visit(py, ids, bytes, |out: &mut Vec<u8>, _, logits| {
            out.extend(logits.iter().flat_map(|x| x.to_ne_bytes()));
        })?;
        PyByteArray::new_with(py, logits.len(), |bytes| {
            bytes.copy_from_slice(&logits);
            Ok(())
        })
    }

    /// The log-probability of every id but the first, given those before it.
    fn logprobs(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
        let py = ids.py();
        let ids = self::ids(ids)?;
        let next = ids.get(1..).unwrap_or_default().to_vec();
        self.visit(py, ids, next.len(), move |out: &mut Vec<f64>, position, logits| {
            out.extend(next.get(position).map(|id| log_softmax_at(logits, *id as usize)));
        })
    }

    /// Requests that run, requests that wait, tokens that went through the model, tokens that did not have to, bytes of the KV cache,
    /// tokens guessed, and guesses that came true.
    fn stats(&self, py: Python<'_>) -> PyResult<(usize, usize, u64, u64, usize, u64, u64)> {
        let stats = self.inner.get(py)?.stats();
        let (computed, cached, bytes) = (stats.computed_tokens, stats.cached_tokens, stats.cache_bytes);
        Ok((stats.running, stats.waiting, computed, cached, bytes, stats.drafted_tokens, stats.accepted_tokens))
    }

    /// Ends all requests and waits for the threads; frees the KV cache, and the weights unless something else holds them.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.inner.get(py)?;
        py.detach(|| engine.shutdown());
        Ok(())
    }
}

impl Engine {
    /// What `visit(out, position, logits)` makes of the logits after every id: at most `len` elements.
    fn visit<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ids: Vec<u32>,
        len: usize,
        mut visit: impl FnMut(&mut Vec<T>, usize, &[f32]) + Send + 'static,
    ) -> PyResult<Vec<T>> {
        let engine = self.inner.get(py)?;
        let out = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&out);
        let mut reserved = false;
        // Reserved on the first call: by then the ids were found to fit the context.
        let visitor = move |position: usize, logits: &[f32]| {
            let mut out = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if !reserved {
                reserved = out.try_reserve_exact(len).is_ok();
            }
            if reserved {
                visit(&mut out, position, logits);
            }
        };
        let handle = engine.submit_logits(ids, Box::new(visitor), None).or_raise(py)?;
        Request::new(handle, Arc::clone(engine)).finish(py)?;
        let out = std::mem::take(&mut *out.lock().unwrap_or_else(PoisonError::into_inner));
        if out.len() == len { Ok(out) } else { Err(errors::out_of_memory(py, format!("no memory for {len} results"))) }
    }
}

/// One entry of the log-softmax, in double precision.
fn log_softmax_at(logits: &[f32], index: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.get(index).map_or(f64::NEG_INFINITY, |&x| f64::from(x - max) - total.ln())
}
