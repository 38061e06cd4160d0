//! Values that models write as bare text, and the declared schema says what they are.

use serde_json::Value;

use super::{Tool, json, python};

/// The text of a JSON value. A text whose declared type it does not fit stays a string.
pub(super) fn value(text: &str, schema: Option<&Value>) -> String {
    let types = schema.map(types).unwrap_or_default();
    if types == ["string"] {
        return json::quoted(text);
    }
    match literal(text.trim()) {
        Some(literal) if fits(kind(&literal), &types) => literal,
        _ => json::quoted(text),
    }
}

/// The schema of an argument.
pub(super) fn schema<'a>(tool: Option<&'a Tool>, argument: &str) -> Option<&'a Value> {
    tool?.parameters.get("properties")?.get(argument)
}

/// JSON, or a Python literal as JSON; strings are none of it: their quotes may be meant.
fn literal(text: &str) -> Option<String> {
    let found = json::whole(text).ok().or_else(|| python::literal(text).ok())?;
    (!found.starts_with('"')).then_some(found)
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ if json.contains(['.', 'e', 'E']) => "number",
        _ => "integer",
    }
}

fn fits(kind: &str, types: &[&str]) -> bool {
    types.is_empty() || types.contains(&kind) || (kind == "integer" && types.contains(&"number"))
}

/// The types that a schema allows; none where it does not say.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => return vec![one],
        Some(Value::Array(several)) => return several.iter().filter_map(Value::as_str).collect(),
        _ => {}
    }
    if let Some(Value::Array(options)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        let each: Vec<Option<&str>> = options.iter().map(|option| option.get("type").and_then(Value::as_str)).collect();
        return each.into_iter().collect::<Option<_>>().unwrap_or_default();
    }
    match schema.get("enum") {
        Some(Value::Array(values)) if values.iter().all(Value::is_string) => vec!["string"],
        _ => Vec::new(),
    }
}
