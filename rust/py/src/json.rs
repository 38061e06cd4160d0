//! Python objects become JSON values, for templates; and JSON texts are checked.
use fastllm_text::json::{JsonError, JsonLimits, check};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Deepest nesting: beyond it, a template would refuse the value anyway.
const MOST_DEPTH: usize = 128;

/// Checks an untrusted JSON text before anything is built from it, without the interpreter; a `ValueError` says what is wrong.
#[pyfunction]
pub fn check_json(py: Python<'_>, text: &[u8], depth: usize, values: usize, objects: usize) -> PyResult<()> {
    let checked = py.detach(|| check(text, JsonLimits { depth, values, objects }));
    checked.map_err(|error| match error {
        JsonError::Memory => PyMemoryError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    })
}

/// `None`, `bool`, `int`, `float`, `str`, lists, tuples and dicts with `str` keys, in their order.
pub fn from_python(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    convert(object, MOST_DEPTH)
}

/// The items of a dict with `str` keys.
pub fn map_from_python(dict: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    map(dict, MOST_DEPTH)
}

fn convert(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth == 0 {
        return Err(PyValueError::new_err(format!("a value is nested more than {MOST_DEPTH} levels deep")));
    }
    if object.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = object.cast::<PyBool>() {
        Ok(Value::Bool(flag.is_true()))
    } else if let Ok(text) = object.cast::<PyString>() {
        Ok(Value::String(owned(text)?))
    } else if let Ok(integer) = object.cast::<PyInt>() {
        match (integer.extract::<i64>(), integer.extract::<u64>()) {
            (Ok(x), _) => Ok(x.into()),
            (_, Ok(x)) => Ok(x.into()),
            (Err(error), Err(_)) => Err(error),
        }
    } else if let Ok(float) = object.cast::<PyFloat>() {
        let number = Number::from_f64(float.value());
        number.map(Value::Number).ok_or_else(|| PyValueError::new_err("NaN and infinity have no JSON form"))
    } else if let Ok(dict) = object.cast::<PyDict>() {
        Ok(Value::Object(map(dict, depth)?))
    } else if let Ok(list) = object.cast::<PyList>() {
        list.iter().map(|item| convert(&item, depth - 1)).collect()
    } else if let Ok(tuple) = object.cast::<PyTuple>() {
        tuple.iter().map(|item| convert(&item, depth - 1)).collect()
    } else {
        let kind = object.get_type().name()?;
        Err(PyTypeError::new_err(format!("a {kind} has no JSON form: use dict, list, str, int, float, bool or None")))
    }
}

fn map(dict: &Bound<'_, PyDict>, depth: usize) -> PyResult<Map<String, Value>> {
    let mut items = Map::new();
    for (key, value) in dict {
        let Ok(key) = key.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!("the key {} is not a str", key.repr()?)));
        };
        items.insert(owned(key)?, convert(&value, depth - 1)?);
    }
    Ok(items)
}

/// A copy of a string; strings may be as long as a request.
fn owned(text: &Bound<'_, PyString>) -> PyResult<String> {
    let text = text.to_str()?;
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| PyMemoryError::new_err("not enough memory for a string"))?;
    copy.push_str(text);
    Ok(copy)
}
