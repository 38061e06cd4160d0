//! JSON schemas before llguidance reads them: every keyword is known and well formed, every reference points into the schema.
//!
//! llguidance ignores keywords that it does not know, and reads references literally. Here a keyword is honoured, is an annotation, or
//! is refused by name. The targets of references are collected under `$defs`, so that escapes and places do not matter.

mod keywords;
mod reference;

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
        let mut out = Map::new();
        for (keyword, value) in schema {
            self.count(1)?;
            let here = || format!("{place}/{}", reference::escape(keyword));
            let prepared = match keywords::of(keyword) {
                Some(Keyword::Annotation) => continue,
                Some(Keyword::Identifier) if place == "#" => continue,
                Some(Keyword::False) if value == &Value::Bool(false) => continue,
                Some(Keyword::Identifier | Keyword::False) | None => {
                    return Err(GrammarError::Keyword { keyword: keyword.clone(), place: place.to_owned() });
                }
                Some(Keyword::Checked(check)) => {
                    self.count(keywords::size(value))?;
                    check(value).map_err(|what| error(place, format!("{keyword}: {what}")))?;
                    value.clone()
                }
                Some(Keyword::Schemas) => self.schemas(value, &here())?,
                Some(Keyword::Branches) => self.branches(value, &here())?,
                Some(Keyword::Patterns) => {
                    let mut patterns = value.as_object().into_iter().flat_map(Map::keys);
                    patterns.try_for_each(|regex| keywords::pattern(regex)).map_err(|what| error(&here(), what))?;
                    self.properties(value, &here())?
                }
                Some(Keyword::Properties) => self.properties(value, &here())?,
                Some(Keyword::Items) if value.is_array() => self.schemas(value, &here())?,
                Some(Keyword::Schema | Keyword::Items) => self.schema(value, &here())?,
                Some(Keyword::Reference) => self.reference(value, place)?,
            };
            out.insert(keyword.clone(), prepared);
        }
        keywords::modernise(&mut out).map_err(|what| error(place, what))?;
        Ok(Value::Object(out))
    }

    fn schemas(&mut self, value: &Value, place: &str) -> Result<Value, GrammarError> {
        let schemas = value.as_array().filter(|schemas| !schemas.is_empty()).ok_or_else(|| error(place, "not a list of schemas"))?;
        schemas.iter().enumerate().map(|(index, schema)| self.schema(schema, &format!("{place}/{index}"))).collect()
    }

    /// As `schemas`, for `oneOf`: exactly one of the branches may hold, which can only be relied on where they exclude each other. To see
    /// that, what a branch refers to is put in its place.
    fn branches(&mut self, value: &Value, place: &str) -> Result<Value, GrammarError> {
        let Value::Array(mut branches) = self.schemas(value, place)? else { return Err(error(place, "not a list of schemas")) };
        for (index, branch) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(pointer) = reference::alone(branch).and_then(|target| reference::pointer(target).ok()) {
                let pointer = reference::follow(self.root, &pointer).map_err(|what| error(place, what))?;
                if let Some(shown) =
                    reference::resolve(self.root, &pointer).map(|target| self.shallow(target, &pointer)).transpose()?.flatten()
                {
                    branches[index] = shown;
                }
            }
        }
        Ok(Value::Array(branches))
    }

    /// A copy of an object schema in which properties that are not plain values are references; `None` for other schemas.
    fn shallow(&mut self, target: &Value, pointer: &str) -> Result<Option<Value>, GrammarError> {
        let Some(Value::Object(properties)) = target.get("properties") else { return Ok(None) };
        let mut outer = target.as_object().cloned().unwrap_or_default();
        outer.remove("properties");
        let mut shown = Map::new();
        for (name, property) in properties {
            let place = format!("{pointer}/properties/{}", reference::escape(name));
            let plain = keywords::is_plain(property);
            shown.insert(name.clone(), if plain { self.schema(property, &place)? } else { self.refer(&place)? });
        }
        let Value::Object(mut copy) = self.schema(&Value::Object(outer), pointer)? else { return Ok(None) };
        copy.insert("properties".to_owned(), Value::Object(shown));
        Ok(Some(Value::Object(copy)))
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
