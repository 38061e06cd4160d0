//! Grammars that make a model call a tool, in the Lark dialect of llguidance: `%json {…}` stands for a text of this JSON schema,
//! `<name>` and `<[id]>` for a control token.

use serde_json::{Map, Value, json};

use super::format::Reasoning;
use super::{Tool, Tools, json};

/// Which tool must be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Any of them.
    Required,
    /// This one.
    Named(&'a str),
}

/// What a grammar shall allow.
#[derive(Clone, Copy)]
pub struct Constraint<'a> {
    /// The declared tools.
    pub tools: &'a Tools,
    /// Which of them.
    pub choice: Choice<'a>,
    /// Whether there may be several calls.
    pub parallel: bool,
    /// The markers of reasoning, which may come before the call.
    pub reasoning: Option<Reasoning>,
    /// Whether the prompt has opened the reasoning already.
    pub inside_reasoning: bool,
    /// The id of a text that is a control token of the vocabulary.
    pub control: &'a dyn Fn(&str) -> Option<u32>,
}

/// An argument of a tool.
pub(super) struct Property {
    pub name: String,
    pub schema: Value,
    pub required: bool,
}

/// A grammar that is being written.
pub(super) struct Lark<'a> {
    constraint: &'a Constraint<'a>,
    tools: Vec<&'a Tool>,
    rules: String,
}

impl<'a> Lark<'a> {
    /// `None` where no tool can be called.
    pub fn new(constraint: &'a Constraint<'a>) -> Option<Self> {
        let tools: Vec<&Tool> = match constraint.choice {
            Choice::Required => constraint.tools.all().iter().collect(),
            Choice::Named(name) => constraint.tools.find(name).into_iter().collect(),
        };
        (!tools.is_empty()).then_some(Lark { constraint, tools, rules: String::new() })
    }

    /// A text as it stands.
    pub fn text(text: &str) -> String {
        json::quoted(text)
    }

    pub fn is_control(&self, marker: &str) -> bool {
        (self.constraint.control)(marker).is_some()
    }

    /// A marker: its token, or its text.
    pub fn marker(&self, marker: &str) -> String {
        let Some(id) = (self.constraint.control)(marker) else { return Self::text(marker) };
        let name = marker.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
        let plain = !name.is_empty() && !name.starts_with('[') && !name.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>'));
        if plain { marker.to_owned() } else { format!("<[{id}]>") }
    }

    pub fn rule(&mut self, name: &str, body: &str) {
        self.rules.extend([name, ": ", body.trim(), "\n"]);
    }

    /// A rule for JSON of a schema.
    pub fn schema(&mut self, name: &str, schema: &Value) -> String {
        self.rule(name, &format!("%json {schema}"));
        name.to_owned()
    }

    /// A rule for a call of one of the tools: what `call` makes of a name and of the rule for its arguments.
    pub fn each(&mut self, mut call: impl FnMut(&mut Self, &str, &str) -> String) -> String {
        for (number, tool) in self.tools.clone().into_iter().enumerate() {
            let arguments = self.schema(&format!("arguments_{number}"), &object_schema(tool));
            let body = call(self, &tool.name, &arguments);
            self.rule(&format!("call_{number}"), &body);
        }
        self.any_call()
    }

    /// As [`Lark::each`], argument by argument.
    pub fn each_with_properties(&mut self, mut call: impl FnMut(&mut Self, usize, &Tool, &[Property]) -> String) -> String {
        for (number, tool) in self.tools.clone().into_iter().enumerate() {
            let body = call(self, number, tool, &properties(tool));
            self.rule(&format!("call_{number}"), &body);
        }
        self.any_call()
    }

    fn any_call(&mut self) -> String {
        let names: Vec<String> = (0..self.tools.len()).map(|number| format!("call_{number}")).collect();
        self.rule("call", &names.join(" | "));
        "call".to_owned()
    }

    /// Calls as JSON objects with these keys.
    pub fn objects(&mut self, name_key: &str, arguments_key: &str) -> String {
        self.objects_after("{", "", "", name_key, arguments_key)
    }

    /// As [`Lark::objects`], after `before`, something that `pattern` matches, and `between`.
    pub fn objects_after(&mut self, before: &str, pattern: &str, between: &str, name_key: &str, arguments_key: &str) -> String {
        let (name_key, arguments_key) = (json::quoted(name_key), json::quoted(arguments_key));
        self.each(|_, name, arguments| {
            let head = format!("{name_key}: {}, {arguments_key}: ", json::quoted(name));
            if pattern.is_empty() {
                format!("{} {arguments} \"}}\"", Self::text(&format!("{before}{head}")))
            } else {
                format!("{} {pattern} {} {arguments} \"}}\"", Self::text(before), Self::text(&format!("{between}{head}")))
            }
        })
    }

    /// One, or where that is allowed several, with `separator` between.
    pub fn repeated(&mut self, rule: &str, separator: &str) -> String {
        if self.constraint.parallel { format!("{rule} ({separator} {rule})*") } else { rule.to_owned() }
    }

    /// Arguments as bare texts: `open(name)`, the value, `close`.
    pub fn texts(&mut self, tool: usize, properties: &[Property], open: impl Fn(&str) -> String, close: &str) -> String {
        let mut all = Vec::with_capacity(properties.len());
        for (number, property) in properties.iter().enumerate() {
            let (rule, value) = (format!("p_{tool}_{number}"), format!("v_{tool}_{number}"));
            let strings = property.schema.get("enum").and_then(Value::as_array).filter(|v| v.iter().all(Value::is_string));
            let head = Self::text(&open(&property.name));
            if let Some(strings) = strings {
                let options: Vec<String> = strings.iter().filter_map(Value::as_str).map(Self::text).collect();
                self.rule(&value, &options.join(" | "));
                self.rule(&rule, &format!("{head} {value} {}", Self::text(close)));
            } else if property.schema.get("type").and_then(Value::as_str) == Some("string") {
                self.rule(&format!("{value}[lazy]"), &format!("/(?s:.*){}/", pattern(close)));
                self.rule(&rule, &format!("{head} {value}"));
            } else {
                let value = self.schema(&value, &property.schema);
                self.rule(&rule, &format!("{head} {value} {}", Self::text(close)));
            }
            all.push(if property.required { rule } else { format!("[{rule}]") });
        }
        all.join(" ")
    }

    /// A rule for any text up to and with a marker.
    pub fn through(&mut self, name: &str, marker: &str) {
        if self.is_control(marker) {
            let marker = self.marker(marker);
            self.rule(name, &format!("/(?s:.*)/ {marker}"));
        } else {
            self.rule(&format!("{name}[lazy]"), &format!("/(?s:.*){}/", pattern(marker)));
        }
    }

    /// The grammar, whose output is `calls`, with reasoning before them.
    pub fn finish(mut self, calls: &str) -> String {
        let Some(Reasoning { open, close }) = self.constraint.reasoning else { return self.text_of(calls) };
        self.through("thought", close);
        self.rule("space", "/[ \\n]{0,4}/");
        if self.constraint.inside_reasoning {
            return self.text_of(&format!("thought space {calls}"));
        }
        let open = self.marker(open);
        self.text_of(&format!("[{open} thought space] {calls}"))
    }

    /// The grammar, whose output is `start`.
    pub fn text_of(self, start: &str) -> String {
        format!("%llguidance {{}}\nstart: {start}\n{}", self.rules)
    }
}

/// A text as a regular expression.
fn pattern(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '<' | '>' | '_' | ' ' => out.push(c),
            c if c.is_alphanumeric() || !c.is_ascii() => out.push(c),
            c => {
                out.push('\\');
                out.push(c);
            }
        }
    }
    out
}

/// The schema of the arguments: an object, with what is declared and nothing else unless the schema says so.
fn object_schema(tool: &Tool) -> Value {
    let mut schema = tool.parameters.as_object().cloned().unwrap_or_default();
    schema.entry("type").or_insert_with(|| json!("object"));
    if schema.contains_key("properties") {
        schema.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    Value::Object(schema)
}

/// The arguments of a tool, each with the definitions that its schema may refer to.
fn properties(tool: &Tool) -> Vec<Property> {
    let parameters = tool.parameters.as_object();
    let definitions: Map<String, Value> =
        ["$defs", "definitions"].into_iter().filter_map(|key| Some((key.to_owned(), parameters?.get(key)?.clone()))).collect();
    let required = parameters.and_then(|p| p.get("required")).and_then(Value::as_array);
    let all = parameters.and_then(|p| p.get("properties")).and_then(Value::as_object);
    all.into_iter()
        .flatten()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            if let Some(object) = schema.as_object_mut() {
                object.extend(definitions.clone());
            }
            let required = required.is_some_and(|r| r.iter().any(|item| item == name));
            Property { name: name.clone(), schema, required }
        })
        .collect()
}
