//! `Tokenizer`: text to ids and back.
use crate::errors::{self, OrRaise};
use crate::file::File;
use fastllm_text::tokenizer::{self, EncodeOptions};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a computation goes on between two looks for signals.
const SLICE: Duration = Duration::from_millis(20);

/// The tokenizer of a file.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Tokenizer {
    pub(crate) inner: Arc<tokenizer::Tokenizer>,
}

/// Calls `check_signals` at most once per slice; remembers what it raised.
pub struct SignalCheck {
    last: Instant,
    raised: Option<PyErr>,
}

impl SignalCheck {
    /// The first look is one slice from now.
    pub fn new() -> Self {
        SignalCheck { last: Instant::now(), raised: None }
    }

    /// Whether to go on. For code that runs detached from the interpreter.
    pub fn go_on(&mut self) -> bool {
        if self.raised.is_none() && self.last.elapsed() >= SLICE {
            self.raised = Python::attach(|py| py.check_signals().err());
            self.last = Instant::now();
        }
        self.raised.is_none()
    }

    /// What a signal handler raised.
    pub fn into_result(self) -> PyResult<()> {
        self.raised.map_or(Ok(()), Err)
    }
}

/// Token ids of any sequence of integers.
pub fn ids(object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if let Ok(ids) = object.extract::<Vec<u32>>() {
        return Ok(ids);
    }
    let signed: Vec<i64> = object.extract()?;
    let wrong = signed.iter().enumerate().find(|(_, id)| u32::try_from(**id).is_err());
    wrong.map_or_else(
        || Ok(signed.iter().map(|id| *id as u32).collect()),
        |(index, id)| Err(errors::parameter(object.py(), format!("token {index} has id {id}, which no vocabulary has"))),
    )
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new(py: Python<'_>, file: &File) -> PyResult<Tokenizer> {
        let inner = py.detach(|| tokenizer::Tokenizer::from_metadata(file.metadata())).or_raise(py)?;
        Ok(Tokenizer { inner: Arc::new(inner) })
    }

    fn encode(&self, py: Python<'_>, text: &str, add_special: bool, parse_special: bool) -> PyResult<Vec<u32>> {
        let options = EncodeOptions { add_special, parse_special };
        let mut signals = SignalCheck::new();
        let ids = py.detach(|| self.inner.encode_while(text, options, |_| signals.go_on()));
        signals.into_result()?;
        ids.or_raise(py)
    }

    fn decode(&self, ids: &Bound<'_, PyAny>, skip_special: bool) -> PyResult<String> {
        self.inner.decode(&self::ids(ids)?, skip_special).or_raise(ids.py())
    }

    fn decode_bytes<'py>(&self, ids: &Bound<'py, PyAny>, skip_special: bool) -> PyResult<Bound<'py, PyBytes>> {
        let py = ids.py();
        Ok(PyBytes::new(py, &self.inner.decode_bytes(&self::ids(ids)?, skip_special).or_raise(py)?))
    }

    /// The text of a token as the file writes it; `None` beyond the vocabulary.
    fn token(&self, id: u32) -> Option<String> {
        self.inner.token_text(id).map(str::to_owned)
    }

    /// The text of a token to show to a reader; `None` beyond the vocabulary.
    fn display(&self, id: u32) -> Option<String> {
        self.inner.token_display(id).map(std::borrow::Cow::into_owned)
    }

    /// The id of a token as the file writes it.
    fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_id(token)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    #[getter]
    fn bos_id(&self) -> Option<u32> {
        self.inner.bos_id()
    }

    #[getter]
    fn eos_id(&self) -> Option<u32> {
        self.inner.eos_id()
    }

    /// The tokens after which generation ends.
    #[getter]
    fn eos_ids(&self) -> Vec<u32> {
        self.inner.end_of_generation().to_vec()
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.inner.warnings().to_vec()
    }
}
