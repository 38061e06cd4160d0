//! Metadata values become Python objects.
use fastllm_gguf::Value;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// `int`, `float`, `bool`, `str` (`bytes` where a string is not UTF-8), or a list of these.
pub fn to_python<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::U8(x) => x.into_bound_py_any(py),
        Value::I8(x) => x.into_bound_py_any(py),
        Value::U16(x) => x.into_bound_py_any(py),
        Value::I16(x) => x.into_bound_py_any(py),
        Value::U32(x) => x.into_bound_py_any(py),
        Value::I32(x) => x.into_bound_py_any(py),
        Value::U64(x) => x.into_bound_py_any(py),
        Value::I64(x) => x.into_bound_py_any(py),
        Value::F32(x) => x.into_bound_py_any(py),
        Value::F64(x) => x.into_bound_py_any(py),
        Value::Bool(x) => x.into_bound_py_any(py),
        Value::String(bytes) => match value.as_str() {
            Some(text) => text.into_bound_py_any(py),
            None => Ok(PyBytes::new(py, bytes).into_any()),
        },
        // Arrays nest at most as deep as the reader allows.
        Value::Array(array) => {
            let list = PyList::empty(py);
            for element in array.iter() {
                list.append(to_python(py, element)?)?;
            }
            Ok(list.into_any())
        }
    }
}
