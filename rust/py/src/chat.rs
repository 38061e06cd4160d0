//! `ChatTemplate`: messages to text.
use crate::errors::OrRaise;
use crate::json;
use fastllm_text::chat::{self, DateTime, RenderInput};
use pyo3::prelude::*;
use pyo3::types::PyDict;

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

    /// Renders; `now` is year, month, day, hour, minute, second, microsecond.
    #[pyo3(signature = (messages, tools, add_generation_prompt, now, variables))]
    fn render(
        &self,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        now: Option<(i32, u8, u8, u8, u8, u8, u32)>,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<String> {
        let py = messages.py();
        let messages = json::from_python(messages)?;
        let tools = tools.map(json::from_python).transpose()?;
        let variables = json::map_from_python(variables)?;
        let now = now.map(|(year, month, day, hour, minute, second, microsecond)| DateTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            microsecond,
        });
        let input = RenderInput { messages: &messages, tools: tools.as_ref(), add_generation_prompt, now, variables: &variables };
        py.detach(|| self.inner.render(&input)).or_raise(py)
    }
}
