//! `Grammars` and `Grammar`: what the output of a request must follow.
use crate::errors::{self, OrRaise};
use crate::tokenizer::Tokenizer;
use fastllm_engine::Constraint;
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
}

impl Grammar {
    /// The constraint of one request.
    pub fn constraint(&self) -> Box<dyn Constraint> {
        match &self.inner {
            Inner::One(grammar) => grammar.constraint(),
            Inner::Answer(answer) => answer.constraint(),
        }
    }

    pub fn of_answer(answer: Answer) -> Grammar {
        Grammar { inner: Inner::Answer(Arc::new(answer)) }
    }

    /// The grammar of a form; `None` for an answer, which is none.
    pub fn form(&self) -> Option<Arc<Compiled>> {
        match &self.inner {
            Inner::One(grammar) => Some(Arc::clone(grammar)),
            Inner::Answer(_) => None,
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
