//! Whether two schemas can be seen to have no value in common.

use serde_json::{Map, Value};

use super::keywords::TYPES;
use super::reference;

/// Maximum number of schemas that are looked at for one answer; beyond it, the answer is no.
const MAX_STEPS: usize = 2_000;

/// Whether no value is valid for both. False where that cannot be seen.
pub fn are_disjoint(root: &Value, a: &Value, b: &Value) -> bool {
    Search { root, steps: 0 }.disjoint(a, b, 0)
}

struct Search<'a> {
    root: &'a Value,
    steps: usize,
}

impl<'a> Search<'a> {
    fn disjoint(&mut self, a: &'a Value, b: &'a Value, depth: usize) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS || depth > 16 {
            return false;
        }
        let (Some(x), Some(y)) = (self.target(a), self.target(b)) else { return false };
        let (x, y) = match (x, y) {
            (Value::Bool(false), _) | (_, Value::Bool(false)) => return true,
            (Value::Object(x), Value::Object(y)) => (x, y),
            _ => return false,
        };
        let (types_x, types_y) = (types(x), types(y));
        let common: Vec<&str> = types_x.iter().copied().filter(|name| types_y.contains(name)).collect();
        common.is_empty()
            || values_disjoint(x, y)
            || (common == ["object"] && self.objects_disjoint(x, y, depth))
            || (common.iter().all(|name| matches!(*name, "number" | "integer")) && ranges_disjoint(x, y))
            || self.parts_disjoint(x, b, depth)
            || self.parts_disjoint(y, a, depth)
    }

    /// What a schema that is nothing but a reference leads to.
    fn target(&self, schema: &'a Value) -> Option<&'a Value> {
        let Some(target) = reference::alone(schema) else { return Some(schema) };
        let pointer = reference::follow(self.root, &reference::pointer(target).ok()?).ok()?;
        reference::resolve(self.root, &pointer)
    }

    /// Whether a property that one of them requires excludes the other.
    fn objects_disjoint(&mut self, x: &'a Map<String, Value>, y: &'a Map<String, Value>, depth: usize) -> bool {
        let names = |schema: &'a Map<String, Value>| {
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        };
        names(x).chain(names(y)).any(|name| {
            let (p, q) = (property(x, name), property(y, name));
            match (p, q) {
                (Some(Value::Bool(false)), _) | (_, Some(Value::Bool(false))) => true,
                (Some(p), Some(q)) => self.disjoint(p, q, depth + 1),
                _ => false,
            }
        })
    }

    /// Whether something that `x` is made of excludes `other`.
    fn parts_disjoint(&mut self, x: &'a Map<String, Value>, other: &'a Value, depth: usize) -> bool {
        let list = |name: &str| x.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
        list("allOf").is_some_and(|all| all.iter().any(|part| self.disjoint(part, other, depth + 1)))
            || ["anyOf", "oneOf"]
                .into_iter()
                .any(|name| list(name).is_some_and(|any| any.iter().all(|part| self.disjoint(part, other, depth + 1))))
    }
}

/// The schema of a property; `None` where it depends on patterns or is anything.
fn property<'a>(schema: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    let has_patterns = schema.get("patternProperties").is_some();
    named.or_else(|| schema.get("additionalProperties").filter(|_| !has_patterns))
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    let mut types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => TYPES.to_vec(),
    };
    if types.contains(&"number") && !types.contains(&"integer") {
        types.push("integer");
    }
    if let Some(values) = values(schema) {
        let has = |name: &str| {
            values.iter().any(|value| match value {
                Value::Null => name == "null",
                Value::Bool(_) => name == "boolean",
                Value::Number(_) => matches!(name, "number" | "integer"),
                Value::String(_) => name == "string",
                Value::Array(_) => name == "array",
                Value::Object(_) => name == "object",
            })
        };
        types.retain(|name| has(name));
    }
    types
}

/// The values of `const` or `enum`.
fn values(schema: &Map<String, Value>) -> Option<&[Value]> {
    schema.get("const").map(std::slice::from_ref).or_else(|| schema.get("enum")?.as_array().map(Vec::as_slice))
}

fn values_disjoint(x: &Map<String, Value>, y: &Map<String, Value>) -> bool {
    let (Some(x), Some(y)) = (values(x), values(y)) else { return false };
    let scalar = |value: &Value| !value.is_array() && !value.is_object();
    let same = |a: &Value, b: &Value| a == b || (a.is_number() && a.as_f64() == b.as_f64());
    x.len() * y.len() <= 100_000 && x.iter().chain(y).all(scalar) && !x.iter().any(|a| y.iter().any(|b| same(a, b)))
}

fn ranges_disjoint(x: &Map<String, Value>, y: &Map<String, Value>) -> bool {
    let bound = |schema: &Map<String, Value>, name: &str| schema.get(name).and_then(Value::as_f64);
    let below = |x: &Map<String, Value>, y: &Map<String, Value>| {
        let pairs = [
            ("maximum", "minimum", false),
            ("maximum", "exclusiveMinimum", true),
            ("exclusiveMaximum", "minimum", true),
            ("exclusiveMaximum", "exclusiveMinimum", true),
        ];
        pairs.into_iter().any(|(high, low, or_equal)| match (bound(x, high), bound(y, low)) {
            (Some(high), Some(low)) => high < low || (or_equal && high <= low),
            _ => false,
        })
    };
    below(x, y) || below(y, x)
}
