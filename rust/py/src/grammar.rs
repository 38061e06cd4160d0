//! `Grammars` and `Grammar`: what the output of a request must follow.
use crate::errors::{self, OrRaise};
use crate::tokenizer::Tokenizer;
use fastllm_engine::Constraint;
use fastllm_grammar::{Alternative, Answer, Compiler, Grammar as Compiled, GrammarError, Reasoning, Source};
use fastllm_text::tools;
use pyo3::prelude::*;
use std::sync::Arc;

/// Compiles grammars for one tokenizer.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Grammars {
    tokenizer: Arc<fastllm_text::tokenizer::Tokenizer>,
    compiler: Compiler,
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
        Grammars { tokenizer: Arc::clone(&tokenizer.inner), compiler: Compiler::new(Arc::clone(&tokenizer.inner)) }
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

    /// The parts of an answer, compiled. `form` is what was asked for.
    pub fn answer(&self, answer: tools::Answer, form: Option<&Arc<Compiled>>, budget: Option<usize>) -> Result<Answer, GrammarError> {
        let compile = |text: String| self.compiler.compile(&Source::Lark(text));
        let reasoning = match answer.thought {
            None => None,
            Some(tools::Thought { grammar, open, close }) => Some(Reasoning {
                grammar: grammar.map(compile).transpose()?,
                open: open.map(str::to_owned),
                close: close.to_owned(),
                budget,
            }),
        };
        let mut alternatives = Vec::with_capacity(answer.alternatives.len());
        for alternative in answer.alternatives {
            alternatives.push(match (alternative, form) {
                (tools::Alternative::Grammar(text), _) => Alternative::Grammar(compile(text)?),
                (tools::Alternative::Form(None), Some(form)) => Alternative::Grammar(Arc::clone(form)),
                (tools::Alternative::Form(Some(before)), Some(form)) => Alternative::Both(compile(before)?, Arc::clone(form)),
                (tools::Alternative::Free | tools::Alternative::Form(_), _) => Alternative::Free,
            });
        }
        Ok(Answer::new(Arc::clone(&self.tokenizer), reasoning, alternatives))
    }
}
