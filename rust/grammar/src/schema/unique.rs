//! `uniqueItems`, where the values that items may have are few.

use serde_json::{Map, Value, json};

use super::rewrite::{target, whole};

/// Maximum number of arrays that are listed.
const MAX_ARRAYS: usize = 2_000;

/// What holds for an array of different items; `None` where that is nothing more than the schema says already.
///
/// # Errors
/// The items may have many values, so that it cannot be seen which array has two that are equal.
pub fn items(root: &Value, schema: &Map<String, Value>) -> Result<Option<Value>, String> {
    let bound = |name: &str| schema.get(name).and_then(whole);
    let most = bound("maxItems").unwrap_or(u64::MAX);
    if most <= 1 {
        return Ok(None);
    }
    let items = schema.get("items").filter(|items| !items.is_array() && !schema.contains_key("prefixItems"));
    let values = items.and_then(|items| values(root, items)).ok_or_else(|| "unless maxItems is 1 or items is an enum".to_owned())?;
    let least = bound("minItems").unwrap_or(0);
    let mut arrays = vec![Vec::new()];
    let mut last = arrays.clone();
    for _ in 0..values.len().min(usize::try_from(most).unwrap_or(usize::MAX)) {
        let longer = |array: &Vec<usize>| {
            let free = (0..values.len()).filter(|value| !array.contains(value));
            free.map(|value| [&array[..], &[value]].concat()).collect::<Vec<_>>()
        };
        last = last.iter().flat_map(longer).collect();
        arrays.extend(last.iter().cloned());
        if arrays.len() > MAX_ARRAYS {
            return Err(format!("with an enum that allows more than {MAX_ARRAYS} arrays"));
        }
    }
    let list = |array: &Vec<usize>| {
        let items: Vec<Value> = array.iter().map(|index| json!({"const": values[*index]})).collect();
        if items.is_empty() {
            json!({"type": "array", "maxItems": 0})
        } else {
            json!({"type": "array", "prefixItems": items, "minItems": array.len(), "maxItems": array.len()})
        }
    };
    let other = json!({"type": ["null", "boolean", "number", "string", "object"]});
    Ok(Some(json!({"anyOf": arrays.iter().filter(|array| array.len() as u64 >= least).map(list).chain([other]).collect::<Vec<_>>()})))
}

/// The different values of a schema, if it lists them.
fn values(root: &Value, schema: &Value) -> Option<Vec<Value>> {
    let schema = target(root, schema)?.as_object()?;
    let listed = match (schema.get("enum"), schema.get("const"), schema.get("type")) {
        (Some(Value::Array(values)), _, _) => values.clone(),
        (_, Some(value), _) => vec![value.clone()],
        (_, _, Some(Value::String(name))) if name == "boolean" => vec![Value::Bool(false), Value::Bool(true)],
        (_, _, Some(Value::String(name))) if name == "null" => vec![Value::Null],
        _ => return None,
    };
    let same = |a: &Value, b: &Value| a == b || (a.is_number() && a.as_f64() == b.as_f64());
    let mut values: Vec<Value> = Vec::new();
    for value in listed {
        if !values.iter().any(|other| same(other, &value)) {
            values.push(value);
        }
    }
    values.iter().all(|value| !value.is_array() && !value.is_object()).then_some(values)
}
