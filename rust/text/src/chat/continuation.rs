//! Prompts that end within the last message, which the model continues.
//!
//! A mark, a character that occurs nowhere, is appended to the last message. The prompt is what stands before the mark: whatever the
//! template writes after the message is cut off, and white space at the end of the message is kept.

use serde_json::Value;

use super::prompt::{Prompt, collect, prompt, unused};
use super::{ChatTemplate, RenderInput, TemplateError};
use crate::tokenizer::Tokenizer;

/// A prompt that ends within the last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    /// The prompt.
    pub prompt: Prompt,
    /// Its end, as far as the model would have written it: what follows the prompt for an answer to the messages before.
    pub begun: String,
}

/// The fields of a message of which the first that is not empty is continued.
const FIELDS: [&str; 3] = ["content", "reasoning_content", "thinking"];

impl ChatTemplate {
    /// Renders a conversation up to the end of its last message. `add_generation_prompt` is ignored.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and [`TemplateError::Evaluation`] where the last message has no text or is not written.
    pub fn render_continued(&self, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let Marked { messages, mark, .. } = Marked::new(input)?;
        let text = self.render(&RenderInput { messages: &messages, add_generation_prompt: false, ..*input })?;
        cut(text, mark)
    }
}

/// Renders a conversation up to the end of its last message, for a tokenizer.
///
/// # Errors
/// As [`ChatTemplate::render_continued`].
pub fn continued(template: &ChatTemplate, tokenizer: &Tokenizer, input: &RenderInput<'_>) -> Result<Continued, TemplateError> {
    let Marked { messages, mark, last } = Marked::new(input)?;
    let Prompt { text, guarded } =
        prompt(template, tokenizer, &RenderInput { messages: &messages, add_generation_prompt: false, ..*input })?;
    let text = cut(text, mark)?;
    let guarded = guarded.map(|(guarded, guard)| Ok::<_, TemplateError>((cut(guarded, mark)?, guard))).transpose()?;
    let earlier = input.messages.as_array().and_then(|all| all.split_last()).map(|(_, earlier)| earlier.to_vec()).unwrap_or_default();
    let earlier = Value::Array(earlier);
    let before = template.render(&RenderInput { messages: &earlier, add_generation_prompt: true, ..*input });
    let begun = before.ok().and_then(|before| text.strip_prefix(before.as_str()).map(str::to_owned)).unwrap_or(last);
    Ok(Continued { prompt: Prompt { text, guarded }, begun })
}

/// The messages with a mark at the end of the last one.
struct Marked {
    messages: Value,
    mark: char,
    /// What is continued, without the mark.
    last: String,
}

impl Marked {
    fn new(input: &RenderInput<'_>) -> Result<Marked, TemplateError> {
        let mut strings = Vec::new();
        collect(input.messages, &mut strings);
        input.tools.iter().for_each(|tools| collect(tools, &mut strings));
        input.variables.values().for_each(|value| collect(value, &mut strings));
        let mark =
            unused(&strings, "").ok_or_else(|| TemplateError::Internal("the conversation has all characters for private use".into()))?;
        let mut messages = input.messages.clone();
        let message = messages.as_array_mut().and_then(|messages| messages.last_mut());
        let filled = |message: &Value, field: &&str| message.get(*field).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let found = message.and_then(|message| {
            let field = FIELDS.into_iter().find(|field| filled(message, field))?;
            message.get_mut(field)
        });
        let Some(Value::String(text)) = found else {
            return Err(error("the last message has no text that could be continued"));
        };
        let last = text.clone();
        text.push(mark);
        Ok(Marked { messages, mark, last })
    }
}

fn error(message: &str) -> TemplateError {
    TemplateError::Evaluation { message: message.to_owned(), line: None }
}

/// What stands before the last mark.
fn cut(mut text: String, mark: char) -> Result<String, TemplateError> {
    let at = text.rfind(mark).ok_or_else(|| error("the template does not write the last message, which is to be continued"))?;
    text.truncate(at);
    // A template may write a message twice.
    Ok(if text.contains(mark) { text.replace(mark, "") } else { text })
}
