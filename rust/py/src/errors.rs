//! The one place where errors become Python exceptions: classes of `fastllm.errors`, each also the built-in that fits.
use fastllm_engine::{ConstraintError, DecodeError, Failure, ParamError, StartError, StateError, SubmitError};
use fastllm_gguf as gguf;
use fastllm_grammar::GrammarError;
use fastllm_kernels::buffer::OutOfMemory;
use fastllm_model::ModelError;
use fastllm_text::{chat, tokenizer, tools};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::io;
use std::path::Path;

/// Tells `progress` how far something is, and looks for signals; what either raises.
pub fn report<T: for<'py> IntoPyObject<'py>>(progress: Option<&Py<PyAny>>, done: T, total: T) -> PyResult<()> {
    let reported = Python::try_attach(|py| {
        py.check_signals()?;
        progress.map_or(Ok(()), |progress| progress.call1(py, (done, total)).map(drop))
    });
    reported.unwrap_or_else(|| Err(exiting()))
}

/// Why work stops that a daemon thread does when the interpreter has ended. Nothing can raise it any more: it is never seen.
pub fn exiting() -> PyErr {
    PyRuntimeError::new_err("the interpreter has ended")
}

/// An error of the core, on its way to Python.
pub trait IntoPyErr {
    /// The exception.
    fn into_py_err(self, py: Python<'_>) -> PyErr;
}

/// `result.or_raise(py)?`.
pub trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: IntoPyErr> OrRaise<T> for Result<T, E> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|e| e.into_py_err(py))
    }
}

/// An exception of the class `fastllm.errors.{class}`.
fn raise(py: Python<'_>, class: &str, message: impl std::fmt::Display) -> PyErr {
    with_counts(py, class, message, &[])
}

fn with_counts(py: Python<'_>, class: &str, message: impl std::fmt::Display, counts: &[(&str, usize)]) -> PyErr {
    let make = || {
        let keywords = PyDict::new(py);
        for (name, count) in counts {
            keywords.set_item(name, count)?;
        }
        py.import("fastllm.errors")?.getattr(class)?.call((message.to_string(),), Some(&keywords))
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

/// Says that the model, or the whole interpreter, is gone.
pub fn closed(py: Python<'_>) -> PyErr {
    raise(py, "CancelledError", "the model was closed")
}

/// Says that a call was given up before it began.
pub fn cancelled(py: Python<'_>) -> PyErr {
    raise(py, "CancelledError", "nobody waits for this any more")
}

/// Says that an object came from another process.
pub fn forked(py: Python<'_>, owner: u32) -> PyErr {
    let message = format!("the model was loaded in process {owner}, before this process was forked: load it after the fork instead");
    raise(py, "ForkError", message)
}

/// An option outside its range.
pub fn parameter(py: Python<'_>, message: impl std::fmt::Display) -> PyErr {
    raise(py, "ParameterError", message)
}

/// A result that does not fit into memory.
pub fn out_of_memory(py: Python<'_>, message: impl std::fmt::Display) -> PyErr {
    raise(py, "OutOfMemoryError", message)
}

/// A bug of the core.
pub fn internal(py: Python<'_>, message: impl std::fmt::Display) -> PyErr {
    raise(py, "InternalError", message)
}

/// An `OSError` as Python itself would raise it.
pub fn os_error(py: Python<'_>, path: &Path, error: &io::Error, message: &str) -> PyErr {
    let class = match error.kind() {
        io::ErrorKind::NotFound => "ModelFileNotFoundError",
        io::ErrorKind::PermissionDenied => "ModelFilePermissionError",
        _ => "ModelFileError",
    };
    let make = || {
        let class = py.import("fastllm.errors")?.getattr(class)?;
        match error.raw_os_error() {
            Some(code) => class.call1((code, py.import("os")?.call_method1("strerror", (code,))?, path.as_os_str())),
            None => class.call1((message,)),
        }
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

impl IntoPyErr for gguf::Error {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        match self.root() {
            gguf::Error::Io { path, source, .. } => os_error(py, path, source, &message),
            gguf::Error::NotRegularFile { .. } | gguf::Error::Output(_) => raise(py, "ModelFileError", message),
            &gguf::Error::OutOfMemory { bytes } => out_of_memory(py, OutOfMemory { bytes }),
            gguf::Error::MissingShard { .. } => raise(py, "ModelFileNotFoundError", message),
            gguf::Error::BigEndian | gguf::Error::UnsupportedVersion { .. } => raise(py, "UnsupportedModelError", message),
            _ => raise(py, "ModelFormatError", message),
        }
    }
}

impl IntoPyErr for OutOfMemory {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        out_of_memory(py, self)
    }
}

impl IntoPyErr for ModelError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            ModelError::File(error) => error.into_py_err(py),
            ModelError::Unsupported(message) => raise(py, "UnsupportedModelError", message),
            ModelError::Invalid(message) => raise(py, "ModelFormatError", message),
            ModelError::Option(message) | ModelError::Batch(message) => raise(py, "ParameterError", message),
            ModelError::OutOfMemory(error) => raise(py, "OutOfMemoryError", error),
            ModelError::Cache { ref folder, ref source } => os_error(py, folder, source, &self.to_string()),
            ModelError::DamagedCache { .. } => raise(py, "ModelFileError", self.to_string()),
            ModelError::Cancelled => raise(py, "CancelledError", "cancelled"),
        }
    }
}

impl IntoPyErr for tokenizer::Error {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        use tokenizer::Error;
        let class = match &self {
            Error::UnsupportedModel(_) => "UnsupportedModelError",
            Error::TooLarge(_) | Error::UnknownId { .. } => "ParameterError",
            Error::OutOfMemory => "OutOfMemoryError",
            Error::Cancelled => "CancelledError",
            _ => "ModelFormatError",
        };
        raise(py, class, self)
    }
}

impl IntoPyErr for chat::TemplateError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        let class = if matches!(self, chat::TemplateError::OutOfMemory { .. }) { "OutOfMemoryError" } else { "TemplateError" };
        raise(py, class, self)
    }
}

impl IntoPyErr for tools::ToolError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        raise(py, "ParameterError", self)
    }
}

impl IntoPyErr for GrammarError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            GrammarError::Thread(_) | GrammarError::OutOfMemory { .. } => raise(py, "OutOfMemoryError", self),
            _ => raise(py, "GrammarError", self),
        }
    }
}

impl IntoPyErr for StateError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        raise(py, "SavedStateError", self)
    }
}

impl IntoPyErr for ParamError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        raise(py, "ParameterError", self)
    }
}

impl IntoPyErr for StartError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            StartError::Param(error) => error.into_py_err(py),
            StartError::Thread(_) => raise(py, "OutOfMemoryError", self),
        }
    }
}

impl IntoPyErr for SubmitError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            SubmitError::Param(error) => error.into_py_err(py),
            SubmitError::ContextOverflow { prompt_tokens, context_length } => {
                let counts = [("prompt_tokens", prompt_tokens), ("context_length", context_length)];
                with_counts(py, "ContextOverflowError", self, &counts)
            }
            SubmitError::EmptyPrompt | SubmitError::TokenOutOfRange { .. } => raise(py, "ParameterError", self),
            SubmitError::Busy { .. } => raise(py, "BusyError", self),
            SubmitError::Thread(_) => raise(py, "OutOfMemoryError", self),
            SubmitError::ShutDown => closed(py),
        }
    }
}

impl IntoPyErr for DecodeError {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            DecodeError::Cancelled => raise(py, "CancelledError", self),
            DecodeError::OutOfMemory { .. } => raise(py, "OutOfMemoryError", self),
            DecodeError::Failed(error) => match error.downcast::<ModelError>() {
                Ok(error) => error.into_py_err(py),
                Err(error) => raise(py, "InternalError", error),
            },
        }
    }
}

impl IntoPyErr for Failure {
    fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            Failure::Decode(error) => error.into_py_err(py),
            Failure::Sample(error) => raise(py, "SamplingError", error),
            Failure::Constraint(error @ ConstraintError::OutOfMemory(_)) => raise(py, "OutOfMemoryError", error),
            Failure::Constraint(error) => raise(py, "GrammarError", error),
            Failure::State(error) => error.into_py_err(py),
            Failure::Panicked { .. } => raise(py, "InternalError", self),
            Failure::ShutDown => closed(py),
        }
    }
}
