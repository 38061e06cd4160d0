//! `Grammars` and `Grammar`: what the output of a request must follow.
use crate::errors::{self, OrRaise};
use crate::tokenizer::Tokenizer;
use fastllm_grammar::{Compiler, Grammar as Compiled, Source};
use pyo3::prelude::*;
use std::sync::Arc;

/// Compiles grammars for one tokenizer.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Grammars {
    compiler: Compiler,
}

/// A compiled grammar.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Grammar {
    pub(crate) inner: Arc<Compiled>,
}

#[pymethods]
impl Grammars {
    #[new]
    fn new(tokenizer: &Tokenizer) -> Grammars {
        Grammars { compiler: Compiler::new(Arc::clone(&tokenizer.inner)) }
    }

    /// The grammar of a text of one of the kinds "json_schema", "regex" and "grammar".
    fn compile(&self, py: Python<'_>, kind: &str, text: String) -> PyResult<Grammar> {
        let source = match kind {
            "json_schema" => Source::JsonSchema(text),
            "regex" => Source::Regex(text),
            "grammar" => Source::grammar(text).or_raise(py)?,
            _ => return Err(errors::internal(py, format!("{kind} is no kind of grammar"))),
        };
        self.of(py, &source)
    }

    /// The grammar of a choice of strings.
    fn choices(&self, py: Python<'_>, choices: Vec<String>) -> PyResult<Grammar> {
        self.of(py, &Source::Choices(choices))
    }
}

impl Grammars {
    fn of(&self, py: Python<'_>, source: &Source) -> PyResult<Grammar> {
        Ok(Grammar { inner: py.detach(|| self.compiler.compile(source)).or_raise(py)? })
    }
}
