//! JSON schemas before llguidance reads them: every keyword is well formed, every reference points into the schema.
//!
//! llguidance does not know every keyword, and reads references literally. Here a keyword of JSON Schema is honoured, is written with
//! those that llguidance knows, or is refused by name; all others are annotations. The targets of references are collected under
//! `$defs`, so that escapes and places do not matter.

mod disjoint;
mod formats;
mod keywords;
mod names;
mod negate;
mod reference;
mod resources;
mod rewrite;
mod unique;

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::error::{GrammarError, limit};
use crate::limits;
use keywords::Keyword;

/// The schema of a text, as llguidance reads it.
///
/// # Errors
/// The text is not JSON; a keyword that is not supported; a value that a keyword does not take; a reference to nowhere; a limit.
pub fn prepare(text: &str) -> Result<Value, GrammarError> {
    prepare_value(&serde_json::from_str(text).map_err(|error| GrammarError::Json(error.to_string()))?)
}

/// As [`prepare`].
///
/// # Errors
/// As [`prepare`], but for the text.
pub fn prepare_value(schema: &Value) -> Result<Value, GrammarError> {
    let schema = &resources::local(schema);
    let mut preparer = Preparer { root: schema, values: 0, numbers: HashMap::new(), pending: Vec::new() };
    let prepared = preparer.schema(schema, "#")?;
    let mut definitions = Map::new();
    while let Some((number, pointer)) = preparer.pending.pop() {
        let target = reference::resolve(schema, &pointer).ok_or_else(|| error(&pointer, "there is nothing"))?;
        definitions.insert(number.to_string(), preparer.schema(target, &pointer)?);
    }
    let mut root = match prepared {
        Value::Object(root) => root,
        Value::Bool(true) => Map::new(),
        _ => return Err(error("#", "the schema is false: nothing is valid")),
    };
    root.insert("$defs".to_owned(), Value::Object(definitions));
    // One way to lay out a value: as Python's json.dumps does it. Free white space would let a model write it without end.
    root.insert("x-guidance".to_owned(), json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}));
    Ok(Value::Object(root))
}

/// Whether an object of a prepared schema may have names that it does not declare.
pub fn has_open_objects(schema: &Value) -> bool {
    let Value::Object(object) = schema else { return schema == &Value::Bool(true) };
    let kind = object.get("type");
    let may_be_object = object
        .get("type")
        .is_none_or(|kind| kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object")));
    let closed = object.get("additionalProperties") == Some(&Value::Bool(false)) && !object.contains_key("patternProperties");
    let says_elsewhere =
        kind.is_none() && ["$ref", "const", "enum", "anyOf", "allOf", "oneOf"].iter().any(|name| object.contains_key(*name));
    (may_be_object && !closed && !says_elsewhere) || schemas_within(object).any(has_open_objects)
}

/// Whether a prepared schema limits the names of an object by a pattern.
pub fn limits_names(schema: &Value) -> bool {
    let Value::Object(object) = schema else { return false };
    object.contains_key("patternProperties") || schemas_within(object).any(limits_names)
}

/// Checks a prepared schema of a value within a longer text, where names of objects are not kept apart: an undeclared name that comes
/// twice follows its schema both times, but counts once.
///
/// # Errors
/// A minimum number of properties that repeated names could seem to reach.
pub fn check_counts(schema: &Value) -> Result<(), GrammarError> {
    let Value::Object(object) = schema else { return Ok(()) };
    let least = object.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    // Required names are declared, so that each comes once, and beside them a single one is different.
    let apart = object.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64 + 1;
    let closed = object.get("additionalProperties") == Some(&Value::Bool(false)) && !object.contains_key("patternProperties");
    if least > apart && !closed {
        return Err(GrammarError::Keyword {
            keyword: "minProperties".to_owned(),
            place: "%json".to_owned(),
            what: format!(
                "of {least} in a grammar or in arguments of a tool; list the names in required, or set additionalProperties to false"
            ),
        });
    }
    schemas_within(object).try_for_each(check_counts)
}

fn schemas_within(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let inner = object.iter().filter(|(name, _)| !matches!(name.as_str(), "const" | "enum" | "required" | "type" | "x-guidance"));
    inner.flat_map(|(name, value)| -> Vec<&Value> {
        match value {
            Value::Object(named) if matches!(name.as_str(), "properties" | "patternProperties" | "$defs") => named.values().collect(),
            Value::Array(list) => list.iter().collect(),
            Value::Object(_) | Value::Bool(_) => vec![value],
            _ => Vec::new(),
        }
    })
}

fn error(place: &str, what: impl Into<String>) -> GrammarError {
    GrammarError::Schema { place: place.to_owned(), what: what.into() }
}

struct Preparer<'a> {
    root: &'a Value,
    /// Values that were copied so far.
    values: usize,
    /// The definition of every pointer that is referred to.
    numbers: HashMap<String, usize>,
    /// Definitions that are not prepared yet.
    pending: Vec<(usize, String)>,
}

impl Preparer<'_> {
    /// A schema at `place`, prepared.
    fn schema(&mut self, schema: &Value, place: &str) -> Result<Value, GrammarError> {
        self.count(1)?;
        let schema = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(schema) => schema,
            _ => return Err(error(place, "a schema is an object, true or false")),
        };
        let rewritten = rewrite::rewrite(self.root, schema).map_err(|rewrite::Refused(keyword, what)| GrammarError::Keyword {
            keyword: keyword.to_owned(),
            place: place.to_owned(),
            what,
        })?;
        let mut out = Map::new();
        for (keyword, value) in rewritten.as_ref().unwrap_or(schema) {
            self.count(1)?;
            let here = || format!("{place}/{}", reference::escape(keyword));
            let prepared = match keywords::of(keyword) {
                Keyword::Annotation => continue,
                Keyword::Refused => {
                    return Err(GrammarError::Keyword { keyword: keyword.clone(), place: place.to_owned(), what: String::new() });
                }
                Keyword::Checked(check) => {
                    self.count(keywords::size(value))?;
                    check(value).map_err(|what| error(place, format!("{keyword}: {what}")))?;
                    value.clone()
                }
                Keyword::Count => keywords::count(value).map_err(|what| error(place, format!("{keyword}: {what}")))?,
                Keyword::Schemas => self.schemas(value, &here())?,
                Keyword::Patterns => {
                    let mut patterns = value.as_object().into_iter().flat_map(Map::keys);
                    patterns.try_for_each(|regex| keywords::pattern(regex)).map_err(|what| error(&here(), what))?;
                    self.properties(value, &here())?
                }
                Keyword::Properties => self.properties(value, &here())?,
                Keyword::Items if value.as_array().is_some_and(Vec::is_empty) => value.clone(),
                Keyword::Items if value.is_array() => self.schemas(value, &here())?,
                Keyword::Schema | Keyword::Items => self.schema(value, &here())?,
                Keyword::Reference => self.reference(value, place)?,
            };
            out.insert(keyword.clone(), prepared);
        }
        keywords::modernize(&mut out).map_err(|what| error(place, what))?;
        Ok(Value::Object(out))
    }

    fn schemas(&mut self, value: &Value, place: &str) -> Result<Value, GrammarError> {
        let schemas = value.as_array().filter(|schemas| !schemas.is_empty()).ok_or_else(|| error(place, "not a list of schemas"))?;
        schemas.iter().enumerate().map(|(index, schema)| self.schema(schema, &format!("{place}/{index}"))).collect()
    }

    fn properties(&mut self, value: &Value, place: &str) -> Result<Value, GrammarError> {
        let properties = value.as_object().ok_or_else(|| error(place, "not an object of schemas"))?;
        limit("properties of one object", properties.len(), limits::SCHEMA_PROPERTIES)?;
        let prepare =
            |(name, schema): (&String, &Value)| Ok((name.clone(), self.schema(schema, &format!("{place}/{}", reference::escape(name)))?));
        Ok(Value::Object(properties.iter().map(prepare).collect::<Result<_, _>>()?))
    }

    fn reference(&mut self, value: &Value, place: &str) -> Result<Value, GrammarError> {
        let target = value.as_str().ok_or_else(|| error(place, "$ref: not a string"))?;
        let pointer = reference::pointer(target).map_err(|what| error(place, what))?;
        let pointer = reference::follow(self.root, &pointer).map_err(|what| error(place, what))?;
        match self.refer(&pointer)? {
            Value::Object(mut reference) => Ok(reference.remove("$ref").unwrap_or_default()),
            other => Ok(other),
        }
    }

    /// A reference to the definition that `pointer` becomes.
    fn refer(&mut self, pointer: &str) -> Result<Value, GrammarError> {
        if pointer == "#" {
            return Ok(json!({"$ref": "#"}));
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry(pointer.to_owned()).or_insert_with(|| {
            self.pending.push((next, pointer.to_owned()));
            next
        });
        limit("references", self.numbers.len(), limits::SCHEMA_REFERENCES)?;
        Ok(json!({"$ref": format!("#/$defs/{number}")}))
    }

    fn count(&mut self, values: usize) -> Result<(), GrammarError> {
        self.values += values;
        limit("values in a schema", self.values, limits::SCHEMA_VALUES)
    }
}

#[cfg(test)]
mod tests;
