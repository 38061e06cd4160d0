//! What of a conversation reaches the prompt. A template is a program: whether it writes something is found out by rendering.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, RenderInput};

/// What a template writes when it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Support {
    /// The content of a system message at the beginning.
    pub system: bool,
    /// The declarations of tools.
    pub tools: bool,
    /// The tool calls of an earlier assistant message, in at least one of the shapes that templates expect.
    pub calls: bool,
    /// The content of a message with the role "tool".
    pub results: bool,
}

/// Strings that occur in no template.
const SYSTEM: &str = "probe-system-text";
const TOOL: &str = "probe_tool_name";
const CALL: &str = "probe_call_name";
const ARGUMENT: &str = "probe-argument-text";
const RESULT: &str = "probe-result-text";

impl ChatTemplate {
    /// Whether a conversation can be rendered and the prompt contains all of these strings.
    pub fn reaches(&self, input: &RenderInput<'_>, strings: &[&str]) -> bool {
        self.render(input).is_ok_and(|text| strings.iter().all(|string| text.contains(string)))
    }

    /// What this template writes, found by rendering small conversations. This takes several renders: keep the result.
    pub fn support(&self) -> Support {
        let user = json!({"role": "user", "content": "question"});
        let system = json!([{"role": "system", "content": SYSTEM}, user]);
        Support {
            system: self.writes(&system, &[SYSTEM]),
            tools: self.writes(&json!([user]), &[TOOL]),
            calls: tool_conversations(&user).iter().any(|messages| self.writes(messages, &[CALL, ARGUMENT])),
            results: tool_conversations(&user).iter().any(|messages| self.writes(messages, &[RESULT])),
        }
    }

    /// Whether the strings reach the prompt, with tools or without: some templates fail without.
    fn writes(&self, messages: &Value, strings: &[&str]) -> bool {
        let parameters = json!({"type": "object", "properties": {"x": {"type": "string", "description": "d"}}});
        let tools = json!([{"type": "function", "function": {"name": TOOL, "description": "d", "parameters": parameters}}]);
        let variables = Map::new();
        [Some(&tools), None].into_iter().any(|tools| {
            let input = RenderInput { messages, tools, add_generation_prompt: true, now: None, variables: &variables };
            self.reaches(&input, strings)
        })
    }
}

/// A call and its result, in all the shapes that templates expect: arguments as a mapping or as text, and no content as "" or null.
fn tool_conversations(user: &Value) -> Vec<Value> {
    let arguments = json!({"probe_key": ARGUMENT});
    let mut all = Vec::new();
    for arguments in [arguments.clone(), Value::String(arguments.to_string())] {
        for content in [Value::String(String::new()), Value::Null] {
            let call = json!({"id": "probe0000", "type": "function", "function": {"name": CALL, "arguments": arguments}});
            all.push(json!([
                user,
                {"role": "assistant", "content": content, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "probe0000", "name": CALL, "content": RESULT},
            ]));
        }
    }
    all
}
