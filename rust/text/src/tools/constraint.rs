//! Grammars that make a model call a tool, in the Lark dialect of llguidance: `%json {…}` stands for a text of this JSON schema,
//! `<name>` and `<[id]>` for a control token.

use serde_json::{Map, Value, json};

use super::format::{Format, Reasoning};
use super::{Tool, Tools, json};

/// Whether a tool must be called, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The model decides.
    Auto,
    /// Any of them.
    Required,
    /// This one.
    Named(&'a str),
}

/// What an answer shall be.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of a request")]
pub struct Constraint<'a> {
    /// The declared tools.
    pub tools: &'a Tools,
    /// Which of them.
    pub choice: Choice<'a>,
    /// Whether there may be several calls.
    pub parallel: bool,
    /// Whether content must have a form, which is no matter of this crate.
    pub form: bool,
    /// Whether reasoning is limited.
    pub budget: bool,
    /// Whether the arguments of tools that are not strict may be any object, also where a format would have them follow their schema.
    pub loose: bool,
    /// The markers of reasoning, which may come first.
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
    /// Whether there is text around the calls, and only those of strict tools follow the schema.
    among_text: bool,
    /// What begins calls, where it is left to the rule of the text before them.
    opener: Option<String>,
    rules: String,
}

impl<'a> Lark<'a> {
    /// Of calls alone, each of which follows the schema of its tool. `None` where no tool can be called.
    pub fn new(constraint: &'a Constraint<'a>) -> Option<Self> {
        let tools: Vec<&Tool> = match constraint.choice {
            Choice::Auto | Choice::Required => constraint.tools.all().iter().collect(),
            Choice::Named(name) => constraint.tools.find(name).into_iter().collect(),
        };
        (!tools.is_empty()).then_some(Lark { constraint, tools, among_text: false, opener: None, rules: String::new() })
    }

    /// Of text with calls in it. Those of tools that are not strict may have any arguments.
    pub fn among_text(constraint: &'a Constraint<'a>) -> Self {
        Lark { constraint, tools: constraint.tools.all().iter().collect(), among_text: true, opener: None, rules: String::new() }
    }

    pub fn has_tools(&self) -> bool {
        !self.tools.is_empty()
    }

    pub fn has_budget(&self) -> bool {
        self.constraint.budget
    }

    pub fn is_loose(&self, tool: &Tool) -> bool {
        (self.among_text || self.constraint.loose) && !tool.strict
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

    /// The marker that begins calls.
    pub fn open(&mut self, marker: &str) -> String {
        if !self.among_text {
            return self.marker(marker);
        }
        self.opener = Some(marker.to_owned());
        String::new()
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
            let schema = if self.is_loose(tool) { json!({"type": "object"}) } else { object_schema(tool) };
            let arguments = self.schema(&format!("arguments_{number}"), &schema);
            let body = call(self, &tool.name, &arguments);
            self.rule(&format!("call_{number}"), &body);
        }
        self.any_call()
    }

    /// As [`Lark::each`], argument by argument.
    pub fn each_with_properties(&mut self, mut call: impl FnMut(&mut Self, usize, &Tool, &[Property]) -> String) -> String {
        for (number, tool) in self.tools.clone().into_iter().enumerate() {
            let properties = if self.is_loose(tool) { Vec::new() } else { properties(tool) };
            let body = call(self, number, tool, &properties);
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

    /// As [`Lark::repeated`], of calls that begin with the opening marker: in text, the rule of the text repeats them.
    pub fn row(&mut self, rule: &str, separator: &str) -> String {
        if self.among_text { rule.to_owned() } else { self.repeated(rule, separator) }
    }

    /// Arguments as bare texts: `open(name)`, the value, `close`.
    pub fn texts(&mut self, number: usize, tool: &Tool, properties: &[Property], open: impl Fn(&str) -> String, close: &str) -> String {
        if self.is_loose(tool) {
            let (rule, name) = (format!("p_{number}"), open("\0"));
            let (before, after) = name.split_once('\0').unwrap_or_default();
            self.rule(&format!("v_{number}[lazy]"), &format!("/(?s:.*){}/", pattern(close)));
            // Terminals are greedy: what follows the name must not be part of it.
            let quote = if after.starts_with('"') { "\"" } else { "" };
            self.rule(&rule, &format!("{} /[^<>{quote}\\n]{{1,256}}/ {} v_{number}", Self::text(before), Self::text(after)));
            return format!("{rule}*");
        }
        let tool = number;
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

    /// A rule for reasoning up to and with the marker that ends it. A call would end it too, so that none begins in it.
    pub fn reasoning(&mut self, name: &str, format: Format, marker: &str) {
        if self.constraint.tools.all().is_empty() || format.openers().is_empty() {
            return self.through(name, marker);
        }
        self.text_without("THOUGHT", format, &[]);
        if self.is_control(marker) {
            let marker = self.marker(marker);
            self.rule(name, &format!("THOUGHT {marker}"));
        } else {
            self.rule(&format!("{name}[lazy]"), &format!("THOUGHT {}", Self::text(marker)));
        }
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

    /// A terminal of text in which nothing begins a call, without `others`.
    pub fn text_without(&mut self, name: &str, format: Format, others: &[&str]) {
        let all = self.text_parts(format, others);
        self.rule(name, &all.join(" & "));
    }

    fn text_parts(&self, format: Format, others: &[&str]) -> Vec<String> {
        let mut all = vec!["/(?s:.*)/".to_owned()];
        for marker in format.openers().iter().chain(others).filter(|marker| !self.is_control(marker)) {
            // The word "Action:" alone is text.
            let rest = if *marker == "Action:" { "\\s*(```(json)?)?\\s*[\\[{]" } else { "" };
            all.push(format!("~/(?s:.*){}{rest}(?s:.*)/", pattern(marker)));
        }
        all
    }

    /// As [`Lark::text_without`]; at its beginning nothing begins a call that only counts there.
    fn plain_text(&mut self, name: &str, format: Format) {
        let mut all = self.text_parts(format, &[]);
        match format {
            Format::Llama3 => all.push("~/\\s*\\{(?s:.*)/".to_owned()),
            Format::Pythonic => {
                let names: Vec<String> = self.tools.iter().map(|tool| pattern(&tool.name)).collect();
                all.push(format!("~/\\s*\\[\\s*({})\\s*\\((?s:.*)/", names.join("|")));
            }
            _ => {}
        }
        self.rule(name, &all.join(" & "));
    }

    /// The grammar of text with calls, each of which is `calls` after its opener.
    pub fn finish_among_text(mut self, format: Format, calls: &str) -> String {
        self.plain_text("TEXT", format);
        let mut items = Vec::new();
        if let Some(opener) = self.opener.take() {
            if self.is_control(&opener) {
                items.push(format!("TEXT {} {calls}", self.marker(&opener)));
            } else {
                self.rule("before[lazy]", &format!("TEXT {}", Self::text(&opener)));
                items.push(format!("before {calls}"));
            }
        }
        items.extend(format.silent().iter().filter(|m| self.is_control(m)).map(|m| format!("TEXT {}", self.marker(m))));
        if items.is_empty() {
            return self.text_of("TEXT");
        }
        self.rule("item", &items.join(" | "));
        self.text_of("item* TEXT")
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
