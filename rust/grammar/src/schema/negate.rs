//! The schema of all values that a schema does not allow, where JSON Schema can write it.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::keywords::TYPES;
use super::reference;

/// Maximum number of schemas and values of one negation, with those that references lead to.
const MAX_VALUES: usize = 5_000;
/// Maximum number of characters of the strings that are excluded from a set of strings.
const MAX_EXCLUDED: usize = 2_000;

/// The complement of `schema`, among the values that have one of the types `known` (a value of the keyword `type`) if there are any;
/// `None` where no keywords express it.
pub fn negate(root: &Value, schema: &Value, known: Option<&Value>) -> Option<Value> {
    Negation { root, left: MAX_VALUES, known: known.and_then(listed).unwrap_or_default() }.schema(schema)
}

struct Negation<'a> {
    root: &'a Value,
    left: usize,
    /// The types that the value has anyway; none if that is not known.
    known: Vec<&'a str>,
}

impl Negation<'_> {
    fn spend(&mut self, values: usize) -> Option<()> {
        self.left = self.left.checked_sub(values)?;
        Some(())
    }

    /// One of the keywords does not hold.
    fn schema(&mut self, schema: &Value) -> Option<Value> {
        self.spend(1)?;
        let schema = match schema {
            Value::Bool(allowed) => return Some(Value::Bool(!allowed)),
            Value::Object(schema) => schema,
            _ => return None,
        };
        let mut options = Vec::new();
        for (keyword, value) in schema {
            match self.keyword(schema, keyword, value)? {
                Value::Bool(false) => {}
                option => options.push(option),
            }
        }
        Some(match options.len() {
            0 => Value::Bool(false),
            1 => options.swap_remove(0),
            _ => json!({"anyOf": options}),
        })
    }

    /// The values for which a keyword does not hold: none of them, for an annotation.
    fn keyword(&mut self, schema: &Map<String, Value>, keyword: &str, value: &Value) -> Option<Value> {
        let number = |key: &str| Some(json!({"type": "number", key: value.as_f64()?}));
        let count = |kind: &str, key: &str, n: Option<u64>| n.map(|n| json!({"type": kind, key: n}));
        let below = || value.as_u64().map(|n| n.checked_sub(1));
        let at_least = |kind: &str, key: &str| Some(below()?.map_or(Value::Bool(false), |n| json!({"type": kind, key: n})));
        match keyword {
            "type" => self.types(value),
            "const" => other_than(std::slice::from_ref(value)),
            "enum" => other_than(value.as_array()?),
            "not" => {
                self.spend(super::keywords::size(value))?;
                Some(value.clone())
            }
            "anyOf" => Some(json!({"allOf": self.all(value)?})),
            "allOf" => Some(json!({"anyOf": self.all(value)?})),
            "$ref" => self.reference(value),
            "required" => {
                let names = value.as_array()?;
                self.spend(names.len())?;
                let missing = names.iter().map(|name| Some(json!({"type": "object", "properties": {name.as_str()?: false}})));
                Some(json!({"anyOf": missing.collect::<Option<Vec<_>>>()?})).filter(|_| !names.is_empty()).or(Some(Value::Bool(false)))
            }
            "properties" => self.properties(value),
            // Draft 4 has bounds that the other keyword makes exclusive.
            "minimum" | "maximum" if schema.get("exclusiveMinimum").or(schema.get("exclusiveMaximum")).is_some_and(Value::is_boolean) => {
                None
            }
            "minimum" => number("exclusiveMaximum"),
            "maximum" => number("exclusiveMinimum"),
            "exclusiveMinimum" => number("maximum"),
            "exclusiveMaximum" => number("minimum"),
            "minLength" => at_least("string", "maxLength"),
            "minItems" => at_least("array", "maxItems"),
            "minProperties" => at_least("object", "maxProperties"),
            "maxLength" => count("string", "minLength", value.as_u64()?.checked_add(1)),
            "maxItems" => count("array", "minItems", value.as_u64()?.checked_add(1)),
            "maxProperties" => count("object", "minProperties", value.as_u64()?.checked_add(1)),
            name if super::keywords::is_annotation(name) => Some(Value::Bool(false)),
            _ => None,
        }
    }

    /// The types that are not listed. The numbers that are no integers are no type.
    fn types(&self, value: &Value) -> Option<Value> {
        let listed = listed(value)?;
        let number = listed.contains(&"number");
        let is_listed = |name: &&str| listed.contains(name) || (*name == "integer" && number);
        if !self.known.is_empty() && self.known.iter().all(is_listed) {
            return Some(Value::Bool(false));
        }
        if listed.contains(&"integer") && !number {
            return None;
        }
        let rest: Vec<&str> = TYPES.iter().copied().filter(|name| *name != "integer" && !is_listed(name)).collect();
        Some(if rest.is_empty() { Value::Bool(false) } else { json!({"type": rest}) })
    }

    fn all(&mut self, schemas: &Value) -> Option<Vec<Value>> {
        schemas.as_array()?.iter().map(|schema| self.schema(schema)).collect()
    }

    fn reference(&mut self, target: &Value) -> Option<Value> {
        let pointer = reference::pointer(target.as_str()?).ok()?;
        let target = reference::resolve(self.root, &reference::follow(self.root, &pointer).ok()?)?;
        self.schema(target)
    }

    fn properties(&mut self, value: &Value) -> Option<Value> {
        let mut options = Vec::new();
        for (name, property) in value.as_object()? {
            let known = std::mem::take(&mut self.known);
            let other = self.schema(property)?;
            self.known = known;
            match other {
                Value::Bool(false) => {}
                other => options.push(json!({"type": "object", "properties": {name: other}, "required": [name]})),
            }
        }
        Some(if options.is_empty() { Value::Bool(false) } else { json!({"anyOf": options}) })
    }
}

/// The names of a value of the keyword `type`.
fn listed(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Everything but these values, which may not be arrays or objects.
fn other_than(values: &[Value]) -> Option<Value> {
    let mut options = vec![json!({"type": ["array", "object"]})];
    let (mut strings, mut numbers) = (Vec::new(), Vec::new());
    for value in values {
        match value {
            Value::String(text) => strings.push(text.as_str()),
            Value::Number(number) => numbers.push(number.as_f64()?),
            Value::Null | Value::Bool(_) => {}
            Value::Array(_) | Value::Object(_) => return None,
        }
    }
    options.extend(
        [Value::Null, Value::Bool(true), Value::Bool(false)].into_iter().filter(|v| !values.contains(v)).map(|v| json!({"const": v})),
    );
    options.push(if strings.is_empty() {
        json!({"type": "string"})
    } else {
        json!({"type": "string", "pattern": other_strings(&strings)?})
    });
    numbers.sort_by(f64::total_cmp);
    let bounds = std::iter::once(None).chain(numbers.iter().copied().map(Some)).zip(numbers.iter().copied().map(Some).chain([None]));
    for (low, high) in bounds.filter(|(low, high)| low.is_none() || low != high) {
        let mut range = json!({"type": "number"});
        let bounds = [("exclusiveMinimum", low), ("exclusiveMaximum", high)];
        bounds.into_iter().filter_map(|(key, bound)| Some((key, bound?))).for_each(|(key, bound)| range[key] = json!(bound));
        options.push(range);
    }
    Some(json!({"anyOf": options}))
}

/// A regex of all strings but these: for each beginning of one of them, the characters that lead away from it, and itself where it is
/// not one of them.
pub fn other_strings(strings: &[&str]) -> Option<String> {
    if strings.iter().map(|text| text.chars().count() + 1).sum::<usize>() > MAX_EXCLUDED {
        return None;
    }
    let mut prefixes: Vec<&str> = strings.iter().flat_map(|text| text.char_indices().map(|(at, _)| &text[..at]).chain([*text])).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut regex = "^(?:".to_owned();
    for (index, prefix) in prefixes.iter().enumerate() {
        let escaped = regex_syntax::escape(prefix);
        let next: Vec<char> = prefixes[index + 1..]
            .iter()
            .take_while(|longer| longer.starts_with(prefix))
            .filter(|longer| longer[prefix.len()..].chars().count() == 1)
            .filter_map(|longer| longer.chars().next_back())
            .collect();
        if index > 0 {
            regex.push('|');
        }
        if !strings.contains(prefix) {
            let _ = write!(regex, "{escaped}|");
        }
        regex.push_str(&escaped);
        if next.is_empty() {
            regex.push_str("(?s:.+)");
            continue;
        }
        regex.push_str("[^");
        for c in next {
            let _ = write!(regex, "\\x{{{:x}}}", c as u32);
        }
        regex.push_str("](?s:.*)");
    }
    Some(regex + ")$")
}
