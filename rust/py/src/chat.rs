//! `ChatTemplate`: messages to text.
use crate::errors::OrRaise;
use crate::json;
use crate::tokenizer::{SignalCheck, Tokenizer, id_list, warn_of_dropped};
use fastllm_text::chat::{self, Continued, DateTime, RenderInput};
use fastllm_text::tokenizer::EncodeOptions;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::{Map, Value};

/// A compiled chat template.
#[pyclass(frozen, module = "fastllm._native")]
pub struct ChatTemplate {
    inner: chat::ChatTemplate,
}

#[pymethods]
impl ChatTemplate {
    #[new]
    fn new(py: Python<'_>, source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> PyResult<ChatTemplate> {
        let inner = py.detach(|| chat::ChatTemplate::new(source, bos_token, eos_token)).or_raise(py)?;
        Ok(ChatTemplate { inner })
    }

    /// The names that the template takes from outside.
    fn variables(&self) -> Vec<String> {
        self.inner.variables().to_vec()
    }

    /// What the template writes when it is given: a system message, tools, calls, results. Found by rendering small conversations.
    fn support(&self, py: Python<'_>) -> (bool, bool, bool, bool) {
        let chat::Support { system, tools, calls, results } = py.detach(|| self.inner.support());
        (system, tools, calls, results)
    }

    /// Renders; `now` is year, month, day, hour, minute, second, microsecond.
    #[pyo3(signature = (messages, tools, add_generation_prompt, now, variables))]
    fn render(
        &self,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        now: Option<Now>,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<String> {
        let py = messages.py();
        let input = Input::new(messages, tools, add_generation_prompt, now, variables)?;
        py.detach(|| self.inner.render(&input.borrow())).or_raise(py)
    }

    /// Renders up to the end of the last message, which is continued.
    #[pyo3(signature = (messages, tools, now, variables))]
    fn render_continued(
        &self,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        now: Option<Now>,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<String> {
        let py = messages.py();
        let input = Input::new(messages, tools, false, now, variables)?;
        py.detach(|| self.inner.render_continued(&input.borrow())).or_raise(py)
    }

    /// Renders for a tokenizer: the text, its ids, in which the control tokens are the template's, and how far the answer has begun.
    /// With `continued`, the text ends within the last message, and otherwise with the generation prompt.
    #[pyo3(signature = (tokenizer, messages, tools, continued, now, variables))]
    fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        continued: bool,
        now: Option<Now>,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<(Py<PyString>, Py<PyAny>, String)> {
        let py = messages.py();
        let input = Input::new(messages, tools, !continued, now, variables)?;
        let rendered = py.detach(|| {
            let (template, tokenizer, input) = (&self.inner, &tokenizer.inner, input.borrow());
            if continued {
                return chat::continued(template, tokenizer, &input);
            }
            Ok(Continued { prompt: chat::prompt(template, tokenizer, &input)?, begun: String::new() })
        });
        let Continued { prompt, begun } = rendered.or_raise(py)?;
        let mut signals = SignalCheck::new();
        let ids = py.detach(|| {
            if let Some((text, guard)) = &prompt.guarded {
                return tokenizer.inner.encode_guarded(text, *guard, |_| signals.go_on());
            }
            let options = EncodeOptions { add_special: false, parse_special: true };
            tokenizer.inner.encode_while(&prompt.text, options, |_| signals.go_on())
        });
        signals.into_result()?;
        let ids = ids.or_raise(py)?;
        warn_of_dropped(py, &tokenizer.inner)?;
        Ok((PyString::from_bytes(py, prompt.text.as_bytes())?.unbind(), id_list(py, &ids)?.unbind(), begun))
    }
}

type Now = (i32, u8, u8, u8, u8, u8, u32);

/// What a render sees, converted.
struct Input {
    messages: Value,
    tools: Option<Value>,
    add_generation_prompt: bool,
    now: Option<DateTime>,
    variables: Map<String, Value>,
}

impl Input {
    fn new(
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        now: Option<Now>,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<Input> {
        let now = now.map(|(year, month, day, hour, minute, second, microsecond)| DateTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            microsecond,
        });
        Ok(Input {
            messages: json::from_python(messages)?,
            tools: tools.map(json::from_python).transpose()?,
            add_generation_prompt,
            now,
            variables: json::map_from_python(variables)?,
        })
    }

    fn borrow(&self) -> RenderInput<'_> {
        RenderInput {
            messages: &self.messages,
            tools: self.tools.as_ref(),
            add_generation_prompt: self.add_generation_prompt,
            now: self.now,
            variables: &self.variables,
        }
    }
}
