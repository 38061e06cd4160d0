//! The values of a template: Python's lists, tuples and dictionaries on top of the interpreter's values.
//!
//! Every container is made by this module's constructors, which keep two promises: containers hold data only (no namespaces, so no
//! value contains itself), and no value is deeper than [`MAX_DEPTH`], so walking and dropping one needs little stack.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::error::{Limit, fail, limit};

/// Deepest list or mapping, counted in containers.
pub(super) const MAX_DEPTH: usize = 128;

/// Bytes that one item of a container is charged at.
pub(super) const ITEM: usize = 64;

/// A Python list. It can grow and shrink through `append` and `pop`, as in Python everyone who holds it sees that.
#[derive(Debug, Default)]
pub(super) struct List(Mutex<Vec<Value>>);

impl List {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let items = self.lock();
        position(key.as_i64()?, items.len()).and_then(|i| items.get(i).cloned())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.lock().clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.lock().len())
    }
}

/// A Python dictionary: keys are strings, numbers, booleans, none or tuples of these, in insertion order.
#[derive(Debug)]
pub(super) struct Dict(Value);

impl Dict {
    /// A dictionary of pairs that came out of another one.
    pub(super) fn copy(pairs: Vec<(Value, Value)>) -> Value {
        Value::from_object(Dict(Value::from_pairs(pairs)))
    }

    pub(super) fn pairs(&self) -> Vec<(Value, Value)> {
        self.0.as_object().and_then(DynObject::try_iter_pairs).map(Iterator::collect).unwrap_or_default()
    }

    pub(super) fn keys(&self) -> Vec<Value> {
        self.pairs().into_iter().map(|(key, _)| key).collect()
    }

    pub(super) fn get(&self, key: &Value) -> Option<Value> {
        is_key(key).then(|| self.0.as_object()?.get_value(key)).flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len().unwrap_or(0)
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.get_attr(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len())
    }
}

/// A value by its Python type.
pub(super) enum Kind<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    List(&'a List),
    Tuple(&'a Tuple),
    Dict(&'a Dict),
    /// A namespace, macro, loop or another object that is not data.
    Other,
}

/// The Python type of a value.
pub(super) fn kind(value: &Value) -> Kind<'_> {
    match value.kind() {
        ValueKind::Undefined => Kind::Undefined,
        ValueKind::None => Kind::None,
        ValueKind::Bool => Kind::Bool(value.is_true()),
        ValueKind::Number => match i128::try_from(value.clone()) {
            Ok(int) if value.is_integer() => Kind::Int(int),
            _ => f64::try_from(value.clone()).map_or(Kind::Other, Kind::Float),
        },
        ValueKind::String => value.as_str().map_or(Kind::Other, Kind::Str),
        _ => {
            if let Some(list) = value.downcast_object_ref::<List>() {
                Kind::List(list)
            } else if let Some(dict) = value.downcast_object_ref::<Dict>() {
                Kind::Dict(dict)
            } else if let Some(tuple) = value.downcast_object_ref::<Tuple>() {
                Kind::Tuple(tuple)
            } else {
                Kind::Other
            }
        }
    }
}

/// The name that Python's messages give to the type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match kind(value) {
        Kind::Undefined => "Undefined",
        Kind::None => "NoneType",
        Kind::Bool(_) => "bool",
        Kind::Int(_) => "int",
        Kind::Float(_) => "float",
        Kind::Str(_) => "str",
        Kind::List(_) => "list",
        Kind::Tuple(_) => "tuple",
        Kind::Dict(_) => "dict",
        Kind::Other => "object",
    }
}

/// Charges the render for `bytes` of data made or looked at.
pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + bytes as u64 / 64)
}

/// Charges the render for the text that is hashed, compared or searched.
pub(super) fn charge_key(state: &State, key: &Value) -> Result<(), Error> {
    match kind(key) {
        Kind::Str(text) => charge(state, text.len()),
        Kind::Tuple(items) => items.iter().try_for_each(|item| charge_key(state, item)),
        _ => charge(state, 0),
    }
}

/// An index as Python counts it, from the end where it is negative.
pub(super) fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|&i| i < len)
}

fn is_key(value: &Value) -> bool {
    match kind(value) {
        Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) => true,
        Kind::Tuple(items) => items.iter().all(is_key),
        _ => false,
    }
}

/// Refuses what may not be put into a container: objects that are not data, and values that are too deep. The walk is charged.
pub(super) fn check_data(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(limit(Limit::ValueDepth));
    }
    let check = |item: &Value| check_data(state, item, depth + 1);
    match kind(value) {
        Kind::Other => Err(fail("a list, mapping or namespace can hold data only, not a namespace, macro or loop")),
        Kind::List(list) => {
            charge(state, list.lock().len() * ITEM)?;
            let items = list.lock().clone();
            items.iter().try_for_each(check)
        }
        Kind::Tuple(tuple) => {
            charge(state, tuple.len() * ITEM)?;
            tuple.iter().try_for_each(check)
        }
        Kind::Dict(dict) => {
            charge(state, dict.len() * 2 * ITEM)?;
            dict.pairs().iter().try_for_each(|(_, item)| check(item))
        }
        _ => Ok(()),
    }
}

/// A list of items that are known to be data of allowed depth.
pub(super) fn list(items: Vec<Value>) -> Value {
    Value::from_object(List(Mutex::new(items)))
}

/// A new list of any items.
pub(super) fn new_list(state: &State, items: Vec<Value>) -> Result<Value, Error> {
    check_items(state, &items)?;
    Ok(list(items))
}

/// A new tuple of any items.
pub(super) fn new_tuple(state: &State, items: Vec<Value>) -> Result<Value, Error> {
    check_items(state, &items)?;
    Ok(Value::from(Tuple::new(items)))
}

/// A new dictionary of any items.
pub(super) fn new_dict(state: &State, pairs: Vec<(Value, Value)>) -> Result<Value, Error> {
    charge(state, pairs.len() * 2 * ITEM)?;
    for (key, value) in &pairs {
        if !is_key(key) {
            return Err(fail(format!("unhashable type: '{}'", type_name(key))));
        }
        charge_key(state, key)?;
        check_data(state, value, 1)?;
    }
    Ok(Value::from_object(Dict(Value::from_pairs(pairs))))
}

fn check_items(state: &State, items: &[Value]) -> Result<(), Error> {
    charge(state, items.len() * ITEM)?;
    items.iter().try_for_each(|item| check_data(state, item, 1))
}

/// A string, which is `safe` (`Markup` in Python) or not.
pub(super) fn text(text: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(text) } else { Value::from(text) }
}

/// What Python's `iter(value)` yields: items, keys or characters. The copy is charged.
pub(super) fn items(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    match kind(value) {
        Kind::Undefined => Ok(Vec::new()),
        Kind::Str(text) => {
            charge(state, text.len() * ITEM)?;
            let mut buffer = [0; 4];
            Ok(text.chars().map(|c| Value::from(&*c.encode_utf8(&mut buffer))).collect())
        }
        Kind::List(list) => {
            charge(state, list.lock().len() * ITEM)?;
            Ok(list.lock().clone())
        }
        Kind::Tuple(tuple) => {
            charge(state, tuple.len() * ITEM)?;
            Ok(tuple.to_vec())
        }
        Kind::Dict(dict) => {
            charge(state, dict.len() * 2 * ITEM)?;
            Ok(dict.keys())
        }
        _ => Err(fail(format!("'{}' object is not iterable", type_name(value)))),
    }
}

/// The value of a JSON document, and how many nodes and bytes it has. `None` where it is deeper than allowed.
pub(super) fn from_json(json: &serde_json::Value, depth: usize, size: &mut Size) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    size.nodes += 1;
    Some(match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::from)
            .or_else(|| number.as_u64().map(Value::from))
            .unwrap_or_else(|| Value::from(number.as_f64().unwrap_or(f64::NAN))),
        serde_json::Value::String(text) => {
            size.bytes += text.len();
            Value::from(text.as_str())
        }
        serde_json::Value::Array(items) => list(items.iter().map(|item| from_json(item, depth + 1, size)).collect::<Option<_>>()?),
        serde_json::Value::Object(map) => {
            let mut pairs = Vec::with_capacity(map.len());
            for (key, item) in map {
                size.bytes += key.len();
                pairs.push((Value::from(key.as_str()), from_json(item, depth + 1, size)?));
            }
            Value::from_object(Dict(Value::from_pairs(pairs)))
        }
    })
}

/// How large an input is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) nodes: usize,
    pub(super) bytes: usize,
}
