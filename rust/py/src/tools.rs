//! `OutputParser`: the text of an answer to content, reasoning and calls.
use crate::errors::{self, OrRaise};
use crate::grammar::{Grammar, Grammars};
use crate::json;
use crate::tokenizer::Tokenizer;
use fastllm_text::tools::{Answer, AnswerError, Choice, Constraint, Event, Format, Options, Parser, Reasoning, Tools};
use pyo3::prelude::*;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The names of the formats.
#[pyfunction]
pub fn tool_formats() -> Vec<&'static str> {
    Format::ALL.map(Format::name).to_vec()
}

/// Whether a chat template has markers of reasoning that are known.
#[pyfunction]
pub fn reasons(template: &str) -> bool {
    Reasoning::detect(template).is_some() || Format::detect(template) == Format::Harmony
}

/// A parser for the answer to one prompt.
#[pyclass(frozen, module = "fastllm._native")]
pub struct OutputParser {
    tokenizer: Arc<fastllm_text::tokenizer::Tokenizer>,
    options: Options,
    parser: Mutex<Parser>,
}

/// Kind, number of the call, text.
type Part = (&'static str, Option<usize>, String);

fn parts(events: Vec<Event>) -> Vec<Part> {
    events.into_iter().map(part).collect()
}

fn part(event: Event) -> Part {
    match event {
        Event::Content(text) => ("content", None, text),
        Event::Reasoning(text) => ("reasoning", None, text),
        Event::CallBegin { index, name } => ("begin", Some(index), name),
        Event::Arguments { index, json } => ("arguments", Some(index), json),
        Event::CallEnd { index } => ("end", Some(index), String::new()),
        Event::Malformed { index, reason, .. } => ("malformed", index, reason.into_owned()),
    }
}

/// The name of the format that a chat template teaches, by the markers in its source; "plain" where none is known.
#[pyfunction]
pub fn detect_tool_format(template: &str) -> &'static str {
    Format::detect(template).name()
}

/// Parses a text in a format. Returns the calls, as names and arguments as JSON text, and the content around them; no calls where one of
/// them is malformed.
#[pyfunction]
pub fn read_calls(format: &str, tools: &Bound<'_, PyAny>, text: &str) -> PyResult<(Vec<(String, String)>, String)> {
    let py = tools.py();
    let (mut calls, mut content) = (Vec::<(String, String)>::new(), String::new());
    let Value::Array(tools) = json::from_python(tools)? else { return Ok((calls, content)) };
    let tools = Tools::from_json(&tools).or_raise(py)?;
    let Some(format) = Format::from_name(format) else { return Ok((calls, content)) };
    let mut parser = Parser::new(Options { format, tools, ..Options::default() });
    for event in parser.push(text).into_iter().chain(parser.finish()) {
        match event {
            Event::CallBegin { name, .. } => calls.push((name, String::new())),
            Event::Arguments { index, json } => calls.get_mut(index).into_iter().for_each(|(_, all)| all.push_str(&json)),
            Event::Malformed { .. } => return Ok((Vec::new(), content)),
            Event::Content(text) => content.push_str(&text),
            Event::Reasoning(_) | Event::CallEnd { .. } => {}
        }
    }
    Ok((calls, content))
}

#[pymethods]
impl OutputParser {
    /// `template`: the source of the chat template, which tells the markers of reasoning and, where `format` is `None`, the format.
    /// `tools`: declarations; `None`: nothing is a call. `prompt`: the text before the answer, which may have opened the reasoning.
    #[new]
    fn new(
        tokenizer: &Tokenizer,
        template: &str,
        format: Option<&str>,
        tools: Option<&Bound<'_, PyAny>>,
        prompt: &str,
        py: Python<'_>,
    ) -> PyResult<OutputParser> {
        let format = match format {
            None => Format::detect(template),
            Some(name) => Format::from_name(name).ok_or_else(|| {
                let known = tool_formats().join(", ");
                errors::parameter(py, format!("tool_format = {name:?} is not known: one of {known}"))
            })?,
        };
        let tools = match tools.map(json::from_python).transpose()? {
            Some(Value::Array(tools)) => Tools::from_json(&tools).or_raise(py)?,
            _ => Tools::default(),
        };
        let reasoning = Reasoning::detect(template);
        let inside_reasoning = reasoning.is_some_and(|reasoning| reasoning.is_open(prompt));
        let options = Options { format, tools, reasoning, inside_reasoning };
        Ok(OutputParser { tokenizer: Arc::clone(&tokenizer.inner), parser: Mutex::new(Parser::new(options.clone())), options })
    }

    /// The name of the format.
    #[getter]
    fn format(&self) -> &'static str {
        self.options.format.name()
    }

    /// The control tokens that must be part of the text for the parser to find its markers.
    fn shown(&self) -> Vec<u32> {
        let Options { format, tools, reasoning, .. } = &self.options;
        let calls = !tools.all().is_empty() || *format == Format::Harmony;
        let mut markers = if calls { format.markers() } else { Vec::new() };
        markers.extend(reasoning.iter().flat_map(|reasoning| [reasoning.open, reasoning.close]));
        self.tokenizer.control_ids(&markers)
    }

    /// What the next piece of text gives.
    fn push(&self, text: &str) -> Vec<Part> {
        parts(self.parser.lock().unwrap_or_else(PoisonError::into_inner).push(text))
    }

    /// What the end of the text gives.
    fn finish(&self) -> Vec<Part> {
        parts(self.parser.lock().unwrap_or_else(PoisonError::into_inner).finish())
    }

    /// Whether the answer follows a grammar: see `grammar`.
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "keywords of one Python function")]
    fn constrained(
        &self,
        choice: &str,
        name: Option<&str>,
        parallel: bool,
        reasons: bool,
        form: bool,
        budget: bool,
        py: Python<'_>,
    ) -> PyResult<bool> {
        let answer = self.answer(choice, name, parallel, reasons, form, budget, false);
        Ok(answer.map_err(|error| errors::parameter(py, error.to_string()))?.is_some())
    }

    /// What the answer must follow; `None`: nothing. `choice`: "auto", "required", or "named" with the name of a tool; `reasons`: whether
    /// a grammar lets it begin to reason; `form`: what content must be; `budget`: most tokens of reasoning.
    #[expect(clippy::too_many_arguments, reason = "keywords of one Python function")]
    fn grammar(
        &self,
        grammars: &Grammars,
        choice: &str,
        name: Option<&str>,
        parallel: bool,
        reasons: bool,
        form: Option<&Grammar>,
        budget: Option<usize>,
        py: Python<'_>,
    ) -> PyResult<Option<Grammar>> {
        let form = form.map(|form| form.form().ok_or_else(|| errors::internal(py, "an answer is no form".to_owned()))).transpose()?;
        let answer = |loose| {
            let answer = self.answer(choice, name, parallel, reasons, form.is_some(), budget.is_some(), loose);
            answer.map_err(|error| errors::parameter(py, error.to_string()))
        };
        let Some(first) = answer(false)? else { return Ok(None) };
        let mut compiled = py.detach(|| grammars.compiler.answer(first, form.as_ref(), budget));
        // Nobody asked that these arguments follow a schema: one that no grammar can follow is no reason to refuse the request.
        if compiled.is_err() && choice == "auto" && self.options.format == Format::Generic && form.is_none() {
            let Some(second) = answer(true)? else { return Ok(None) };
            compiled = py.detach(|| grammars.compiler.answer(second, form.as_ref(), budget));
        }
        let compiled = compiled.or_raise(py)?;
        Ok(Some(Grammar::of_answer(compiled)))
    }
}

impl OutputParser {
    #[expect(clippy::fn_params_excessive_bools, reason = "options of a request")]
    fn answer(
        &self,
        choice: &str,
        name: Option<&str>,
        parallel: bool,
        reasons: bool,
        form: bool,
        budget: bool,
        loose: bool,
    ) -> Result<Option<Answer>, AnswerError> {
        let Options { format, tools, reasoning, inside_reasoning } = &self.options;
        format.answer(&Constraint {
            tools,
            choice: match (choice, name) {
                (_, Some(name)) => Choice::Named(name),
                ("required", None) => Choice::Required,
                _ => Choice::Auto,
            },
            parallel,
            form,
            budget,
            loose,
            reasoning: reasoning.filter(|_| reasons || budget || *inside_reasoning),
            inside_reasoning: *inside_reasoning,
            control: &|text| self.tokenizer.control_id(text),
        })
    }
}
