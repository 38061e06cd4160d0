//! `Grammars` and `Grammar`: what the output of a request must follow.
use crate::errors::{self, OrRaise};
use crate::tokenizer::Tokenizer;
use fastllm_engine::{Constraint, ConstraintError};
use fastllm_grammar::{Answer, Compiler, Grammar as Compiled, Source};
use pyo3::prelude::*;
use std::sync::Arc;

/// Compiles grammars for one tokenizer.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Grammars {
    pub(crate) compiler: Compiler,
}

/// A compiled grammar.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Grammar {
    inner: Inner,
}

enum Inner {
    One(Arc<Compiled>),
    Answer(Arc<Answer>),
    /// An answer, and the tokens with which the prompt has begun it.
    Begun(Arc<Answer>, Vec<u32>),
}

#[pymethods]
impl Grammar {
    /// The grammar of what follows a text with which the prompt has begun the answer.
    fn begun(&self, py: Python<'_>, text: &str) -> PyResult<Grammar> {
        let Inner::Answer(answer) = &self.inner else {
            return Err(errors::internal(py, "only an answer can have begun".to_owned()));
        };
        let ids = py.detach(|| answer.begin(text)).map_err(|error| {
            let text = "the last message cannot be continued: it is not the beginning of what the options ask for, such as response_format";
            errors::parameter(py, format!("{text} ({error})"))
        })?;
        Ok(Grammar { inner: Inner::Begun(Arc::clone(answer), ids) })
    }
}

impl Grammar {
    /// The constraint of one request.
    pub fn constraint(&self) -> Result<Box<dyn Constraint>, ConstraintError> {
        match &self.inner {
            Inner::One(grammar) => Ok(grammar.constraint()),
            Inner::Answer(answer) => Ok(answer.constraint()),
            Inner::Begun(answer, ids) => answer.constraint_after(ids),
        }
    }

    pub fn of_answer(answer: Answer) -> Grammar {
        Grammar { inner: Inner::Answer(Arc::new(answer)) }
    }

    /// The grammar of a form; `None` for an answer, which is none.
    pub fn form(&self) -> Option<Arc<Compiled>> {
        match &self.inner {
            Inner::One(grammar) => Some(Arc::clone(grammar)),
            Inner::Answer(_) | Inner::Begun(..) => None,
        }
    }
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
        Ok(Grammar { inner: Inner::One(py.detach(|| self.compiler.compile(source)).or_raise(py)?) })
    }
}
