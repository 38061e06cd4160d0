//! `Tokenizer`: text to ids and back.
use crate::cancellation;
use crate::errors::{self, OrRaise};
use crate::file::File;
use fastllm_text::tokenizer::{self, EncodeOptions};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyMemoryView, PySet, PyString};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a computation goes on between two looks for signals.
const SLICE: Duration = Duration::from_millis(20);

/// The tokenizer of a file.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Tokenizer {
    pub(crate) inner: Arc<tokenizer::Tokenizer>,
}

/// Calls `check_signals` at most once per slice, and remembers what it raised; looks at the flag of the call, if it has one.
pub struct SignalCheck {
    cancelled: Option<Arc<AtomicBool>>,
    last: Instant,
    raised: Option<PyErr>,
}

impl SignalCheck {
    /// The first look is one slice from now.
    pub fn new() -> Self {
        SignalCheck { cancelled: cancellation::current(), last: Instant::now(), raised: None }
    }

    /// Whether to go on. For code that runs detached from the interpreter.
    pub fn go_on(&mut self) -> bool {
        if self.raised.is_none() && self.last.elapsed() >= SLICE {
            self.raised = Python::try_attach(|py| py.check_signals().err()).unwrap_or_else(|| Some(errors::exiting()));
            self.last = Instant::now();
        }
        self.raised.is_none() && !self.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// What a signal handler raised.
    pub fn into_result(self) -> PyResult<()> {
        self.raised.map_or(Ok(()), Err)
    }
}

/// Token ids of any sequence of integers.
pub fn ids(object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let py = object.py();
    if object.is_instance_of::<PyDict>() || object.is_instance_of::<PySet>() || object.is_instance_of::<PyFrozenSet>() {
        return Err(PyTypeError::new_err(format!("token ids must be a sequence of integers, not {}", object.get_type().name()?)));
    }
    let mut ids = Vec::new();
    let short = || errors::out_of_memory(py, "not enough memory for the token ids");
    ids.try_reserve_exact(object.len()?).map_err(|_| short())?;
    for (index, item) in object.try_iter()?.enumerate() {
        let id: i64 = item?.extract()?;
        let valid = u32::try_from(id);
        ids.try_reserve(1).map_err(|_| short())?;
        ids.push(valid.map_err(|_| errors::parameter(py, format!("token {index} has id {id}, which no vocabulary has")))?);
    }
    Ok(ids)
}

/// The ids as a list of Python. Where memory is short Python raises `MemoryError`: the conversions of PyO3 would panic.
pub fn id_list<'py>(py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyBytes::new_with(py, size_of_val(ids), |bytes| {
        for (bytes, id) in bytes.chunks_exact_mut(size_of::<u32>()).zip(ids) {
            bytes.copy_from_slice(&id.to_ne_bytes());
        }
        Ok(())
    })?;
    PyMemoryView::from(&bytes)?.call_method1("cast", ("I",))?.call_method0("tolist")
}

/// Warns, once for each tokenizer, that encoding has dropped a byte of the text.
pub fn warn_of_dropped(py: Python<'_>, tokenizer: &tokenizer::Tokenizer) -> PyResult<()> {
    let Some(byte) = tokenizer.take_dropped() else { return Ok(()) };
    let message =
        format!("the vocabulary has no token for the byte 0x{byte:02X}: such bytes are left out, as the model's own tokenizer does");
    let class = py.import("fastllm.errors")?.getattr("FastLLMWarning")?;
    PyErr::warn(py, &class, &CString::new(message)?, 2)
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new(py: Python<'_>, file: &File) -> PyResult<Tokenizer> {
        let inner = py.detach(|| tokenizer::Tokenizer::from_metadata(file.metadata())).or_raise(py)?;
        Ok(Tokenizer { inner: Arc::new(inner) })
    }

    fn encode(&self, py: Python<'_>, text: &str, add_special: bool, parse_special: bool) -> PyResult<Py<PyAny>> {
        let options = EncodeOptions { add_special, parse_special };
        let mut signals = SignalCheck::new();
        let ids = py.detach(|| self.inner.encode_while(text, options, |_| signals.go_on()));
        signals.into_result()?;
        let ids = ids.or_raise(py)?;
        warn_of_dropped(py, &self.inner)?;
        Ok(id_list(py, &ids)?.unbind())
    }

    fn decode<'py>(&self, ids: &Bound<'py, PyAny>, skip_special: bool) -> PyResult<Bound<'py, PyString>> {
        let py = ids.py();
        PyString::from_bytes(py, self.inner.decode(&self::ids(ids)?, skip_special).or_raise(py)?.as_bytes())
    }

    fn decode_bytes<'py>(&self, ids: &Bound<'py, PyAny>, skip_special: bool) -> PyResult<Bound<'py, PyBytes>> {
        let py = ids.py();
        let decoded = self.inner.decode_bytes(&self::ids(ids)?, skip_special).or_raise(py)?;
        PyBytes::new_with(py, decoded.len(), |bytes| {
            bytes.copy_from_slice(&decoded);
            Ok(())
        })
    }

    /// The text of a token as the file writes it; `None` beyond the vocabulary.
    fn token(&self, id: u32) -> Option<String> {
        self.inner.token_text(id).map(str::to_owned)
    }

    /// The bytes that a token stands for; `None` beyond the vocabulary.
    fn token_bytes<'py>(&self, py: Python<'py>, id: u32) -> Option<Bound<'py, PyBytes>> {
        self.inner.token_bytes(id).map(|bytes| PyBytes::new(py, bytes))
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
