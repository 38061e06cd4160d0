//! The keywords of JSON Schema (draft 2020-12, and what older drafts write differently).

use serde_json::{Map, Value};

use crate::limits;

/// What is done with a keyword.
#[derive(Clone, Copy)]
pub enum Keyword {
    /// Says nothing about what is valid.
    Annotation,
    /// Restricts what is valid, and is not supported.
    Refused,
    /// Has a value without schemas.
    Checked(fn(&Value) -> Result<(), String>),
    /// Has a number of something.
    Count,
    /// Has a schema.
    Schema,
    /// Has a list of schemas.
    Schemas,
    /// Has schemas by name.
    Properties,
    /// Has schemas by the regex of a name.
    Patterns,
    /// Has a schema or, in older drafts, a list.
    Items,
    /// Refers to another schema.
    Reference,
}

pub const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
/// Larger integers are not all doubles, which is what numbers are compared as.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What is done with the keyword `name`, after rewriting.
pub fn of(name: &str) -> Keyword {
    match name {
        "type" => Keyword::Checked(types),
        "const" => Keyword::Checked(literal),
        "enum" => Keyword::Checked(literals),
        "required" => Keyword::Checked(names),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => Keyword::Count,
        "minimum" | "maximum" => Keyword::Checked(number),
        "exclusiveMinimum" | "exclusiveMaximum" => Keyword::Checked(bound),
        "multipleOf" => Keyword::Checked(divisor),
        "pattern" => Keyword::Checked(regex),
        "additionalProperties" | "additionalItems" => Keyword::Schema,
        "prefixItems" | "allOf" | "anyOf" | "oneOf" => Keyword::Schemas,
        "properties" => Keyword::Properties,
        "patternProperties" => Keyword::Patterns,
        "items" => Keyword::Items,
        "$ref" => Keyword::Reference,
        "$dynamicRef" | "$recursiveRef" => Keyword::Refused,
        // JSON Schema: a keyword that is not known is an annotation.
        _ => Keyword::Annotation,
    }
}

/// Whether a keyword says nothing about what is valid.
pub fn is_annotation(name: &str) -> bool {
    const REWRITTEN: [&str; 16] = [
        "format",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "minContains",
        "maxContains",
        "uniqueItems",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$ref",
    ];
    matches!(of(name), Keyword::Annotation) && !REWRITTEN.contains(&name)
}

/// Values within a value.
pub fn size(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(|value| 1 + size(value)).sum(),
        Value::Object(values) => values.values().map(|value| 1 + size(value)).sum(),
        _ => 0,
    }
}

/// Writes lists of items as draft 2020-12 does. Next to a single schema of items, `additionalItems` says nothing.
pub fn modernize(schema: &mut Map<String, Value>) -> Result<(), String> {
    let additional = schema.shift_remove("additionalItems");
    if !schema.get("items").is_some_and(Value::is_array) {
        return Ok(());
    }
    if schema.contains_key("prefixItems") {
        return Err("items is a list and there is prefixItems too".to_owned());
    }
    if let Some(items) = schema.shift_remove("items").filter(|items| items.as_array().is_some_and(|list| !list.is_empty())) {
        schema.insert("prefixItems".to_owned(), items);
    }
    if let Some(additional) = additional {
        schema.insert("items".to_owned(), additional);
    }
    Ok(())
}

fn types(value: &Value) -> Result<(), String> {
    let known = |value: &Value| match value.as_str() {
        Some(name) if TYPES.contains(&name) => Ok(()),
        _ => Err(format!("{} is not one of {}", short(value), TYPES.join(", "))),
    };
    match value {
        Value::Array(types) if types.is_empty() => Err("an empty list".to_owned()),
        Value::Array(types) => types.iter().try_for_each(known),
        value => known(value),
    }
}

fn literal(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(n) if !n.is_f64() && n.as_i64().is_none_or(|n| n.unsigned_abs() > EXACT as u64) => {
            Err(format!("{n} is beyond the integers that are exact as doubles"))
        }
        Value::Array(values) => values.iter().try_for_each(literal),
        Value::Object(values) => values.values().try_for_each(literal),
        _ => Ok(()),
    }
}

fn literals(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().try_for_each(literal),
        _ => Err("not a list of values".to_owned()),
    }
}

fn names(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(names) if names.len() > limits::SCHEMA_PROPERTIES => {
            Err(format!("{} names, the most is {}", names.len(), limits::SCHEMA_PROPERTIES))
        }
        Value::Array(names) if names.iter().all(Value::is_string) => Ok(()),
        _ => Err("not a list of strings".to_owned()),
    }
}

/// A number of something, as an integer: JSON may write it as 2.0.
pub fn count(value: &Value) -> Result<Value, String> {
    let count = super::rewrite::whole(value).filter(|n| u32::try_from(*n).is_ok());
    count.map(Value::from).ok_or_else(|| format!("{} is not an integer from 0 to {}", short(value), u32::MAX))
}

fn number(value: &Value) -> Result<(), String> {
    match value.as_f64() {
        Some(x) if x.abs() <= EXACT => Ok(()),
        Some(_) => Err(format!("{value} is beyond the integers that are exact as doubles")),
        None => Err(format!("{} is not a number", short(value))),
    }
}

/// A number, or, in draft 4, whether the other bound is exclusive.
fn bound(value: &Value) -> Result<(), String> {
    if value.is_boolean() { Ok(()) } else { number(value) }
}

fn divisor(value: &Value) -> Result<(), String> {
    number(value)?;
    if value.as_f64().is_some_and(|x| x > 0.0) { Ok(()) } else { Err(format!("{value} is not above 0")) }
}

fn regex(value: &Value) -> Result<(), String> {
    pattern(value.as_str().ok_or_else(|| format!("{} is not a string", short(value)))?)
}

/// Checks a regex that is looked for anywhere in a string.
pub fn pattern(regex: &str) -> Result<(), String> {
    if regex.is_empty() { Ok(()) } else { crate::lark::check_regex(regex).map_err(|error| error.to_string()) }
}

/// The beginning of a value, for messages.
fn short(value: &Value) -> String {
    let text = value.to_string();
    text.char_indices().nth(60).map_or_else(|| text.clone(), |(at, _)| format!("{}...", &text[..at]))
}
