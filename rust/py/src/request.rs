//! `Request`: one running request and its events.
use crate::errors::IntoPyErr;
use crate::process::Owned;
use fastllm_engine::{Engine, Event, Handle, Next, Pieces, StopCause};
use fastllm_text::tokenizer::{StreamDecoder, Tokenizer};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// How long a waiting caller sleeps between two looks for signals.
const SLICE: Duration = Duration::from_millis(20);

/// The text of ids, for the engine.
pub struct TokenPieces {
    tokenizer: Arc<Tokenizer>,
    decoder: StreamDecoder,
}

impl TokenPieces {
    /// Of what follows `prompt`. Control tokens have no text, except those that are `shown`.
    pub fn after(tokenizer: &Arc<Tokenizer>, prompt: &[u32], shown: Vec<u32>) -> Self {
        TokenPieces { tokenizer: Arc::clone(tokenizer), decoder: StreamDecoder::after(tokenizer, prompt, true).showing(shown) }
    }
}

impl Pieces for TokenPieces {
    fn push(&mut self, id: u32, text: &mut String) {
        // A model may have more logits than its tokenizer has tokens: those stand for no text.
        text.push_str(&self.decoder.push(&self.tokenizer, id).unwrap_or_default());
    }

    fn finish(&mut self, text: &mut String) {
        text.push_str(&self.decoder.flush());
    }
}

/// Another part of the prompt was read.
#[pyclass(frozen, get_all, module = "fastllm._native")]
pub struct Prefill {
    done: usize,
    total: usize,
}

/// The most likely tokens at a position, and their log-probabilities.
type TopLogprobs = Vec<(u32, f32)>;

/// Log-probabilities of further tokens of the prompt: id, its log-probability, and the most likely ones.
#[pyclass(frozen, get_all, module = "fastllm._native")]
pub struct PromptLogprobs {
    tokens: Vec<(u32, f32, TopLogprobs)>,
}

/// A token of the output and the text that it completes.
#[pyclass(frozen, get_all, module = "fastllm._native")]
pub struct Token {
    id: u32,
    text: String,
    logprob: Option<f32>,
    top: Option<TopLogprobs>,
}

/// The end of a request.
#[pyclass(frozen, get_all, module = "fastllm._native")]
pub struct Finished {
    reason: &'static str,
    stop_token: Option<u32>,
    stop_string: Option<usize>,
    text: String,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    time_to_first_token: f64,
    prompt_seconds: f64,
    decode_seconds: f64,
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    gigabytes_per_second: f64,
}

impl From<fastllm_engine::Token> for Token {
    fn from(token: fastllm_engine::Token) -> Token {
        let (logprob, top) = token.logprobs.map(|l| (l.logprob, l.top)).unzip();
        Token { id: token.id, text: token.text, logprob, top }
    }
}

impl From<fastllm_engine::Finished> for Finished {
    fn from(f: fastllm_engine::Finished) -> Finished {
        let (stop_token, stop_string) = match f.stop {
            Some(StopCause::EndOfGeneration(id) | StopCause::Token(id)) => (Some(id), None),
            Some(StopCause::String(index)) => (None, Some(index)),
            Some(StopCause::Constraint) | None => (None, None),
        };
        Finished {
            reason: f.reason.as_str(),
            stop_token,
            stop_string,
            text: f.text,
            prompt_tokens: f.usage.prompt_tokens,
            cached_tokens: f.usage.cached_tokens,
            completion_tokens: f.usage.completion_tokens,
            time_to_first_token: f.timings.time_to_first_token,
            prompt_seconds: f.timings.prompt_seconds,
            decode_seconds: f.timings.decode_seconds,
            prompt_tokens_per_second: f.timings.prompt_tokens_per_second,
            decode_tokens_per_second: f.timings.decode_tokens_per_second,
            gigabytes_per_second: f.timings.gigabytes_per_second,
        }
    }
}

/// A request on an engine. Collecting it cancels it.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Request {
    /// The handle goes first; the engine lives as long as a request of it does.
    parts: Owned<(Handle, Arc<Engine>)>,
}

impl Request {
    pub(crate) fn new(handle: Handle, engine: Arc<Engine>) -> Request {
        Request { parts: Owned::new((handle, engine)) }
    }

    /// Waits for the end, whatever comes before.
    pub(crate) fn finish(&self, py: Python<'_>) -> PyResult<()> {
        while self.take(py, true)?.is_some() {
            // Events may come faster than a slice passes.
            py.check_signals()?;
        }
        Ok(())
    }

    /// The next event; failures are raised.
    fn take(&self, py: Python<'_>, wait: bool) -> PyResult<Option<Event>> {
        let (handle, _) = self.parts.get(py)?;
        let mut next = handle.next(Duration::ZERO);
        while wait && matches!(next, Next::Pending) {
            next = py.detach(|| handle.next(SLICE));
            if matches!(next, Next::Pending) {
                py.check_signals()?;
            }
        }
        match next {
            Next::Pending | Next::Closed => Ok(None),
            Next::Event(Event::Failed(failure)) => Err(failure.into_py_err(py)),
            Next::Event(event) => Ok(Some(event)),
        }
    }
}

#[pymethods]
impl Request {
    /// The next event. With `wait`, comes back with one, or with `None` when there will be no more; a signal handler that raises ends
    /// the wait. Without, `None` also says that there is no event yet.
    fn next(&self, py: Python<'_>, wait: bool) -> PyResult<Option<Py<PyAny>>> {
        match self.take(py, wait)? {
            Some(Event::Prefill { done, total }) => Prefill { done, total }.into_py_any(py).map(Some),
            Some(Event::PromptLogprobs(found)) => {
                let tokens = found.into_iter().map(|(id, l)| (id, l.logprob, l.top)).collect();
                PromptLogprobs { tokens }.into_py_any(py).map(Some)
            }
            Some(Event::Token(token)) => Token::from(token).into_py_any(py).map(Some),
            Some(Event::Finished(finished)) => Finished::from(*finished).into_py_any(py).map(Some),
            Some(Event::Failed(_)) | None => Ok(None),
        }
    }

    /// Stops the request; its last event follows.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.parts.get(py)?.0.cancel();
        Ok(())
    }
}
