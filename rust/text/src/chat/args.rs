//! Arguments of filters, tests, methods and functions, by position or by name.

use minijinja::value::DynObject;
use minijinja::{Error, Value};

use super::error::fail;
use super::value::{Kind, kind, type_name};

/// The arguments of one call.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    positional: &'a [Value],
    named: Option<&'a Value>,
}

impl<'a> Args<'a> {
    pub(super) fn new(values: &'a [Value]) -> Self {
        match values.split_last() {
            Some((last, rest)) if last.is_kwargs() => Args { positional: rest, named: Some(last) },
            _ => Args { positional: values, named: None },
        }
    }

    pub(super) fn positional(&self) -> &'a [Value] {
        self.positional
    }

    /// The pairs given by name.
    pub(super) fn named(&self) -> Vec<(Value, Value)> {
        self.named.and_then(Value::as_object).and_then(DynObject::try_iter_pairs).map(Iterator::collect).unwrap_or_default()
    }

    /// An argument by position, or else by name.
    pub(super) fn get(&self, index: usize, name: &str) -> Option<Value> {
        self.positional.get(index).cloned().or_else(|| self.named?.get_attr(name).ok()).filter(|value| !value.is_undefined())
    }

    pub(super) fn required(&self, index: usize, name: &str) -> Result<Value, Error> {
        self.get(index, name).ok_or_else(|| fail(format!("missing argument '{name}'")))
    }

    pub(super) fn flag(&self, index: usize, name: &str, default: bool) -> bool {
        self.get(index, name).map_or(default, |value| value.is_true())
    }

    /// An integer argument; none counts as absent.
    pub(super) fn int(&self, index: usize, name: &str) -> Result<Option<i64>, Error> {
        match self.get(index, name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => int(&value).map(Some),
        }
    }

    /// A string argument; none counts as absent.
    pub(super) fn string(&self, index: usize, name: &str) -> Result<Option<String>, Error> {
        match self.get(index, name) {
            None => Ok(None),
            Some(value) => match kind(&value) {
                Kind::None => Ok(None),
                Kind::Str(text) => Ok(Some(text.to_owned())),
                _ => Err(fail(format!("argument '{name}' must be str, not {}", type_name(&value)))),
            },
        }
    }

    pub(super) fn required_string(&self, index: usize, name: &str) -> Result<String, Error> {
        self.string(index, name)?.ok_or_else(|| fail(format!("missing argument '{name}'")))
    }
}

/// An integer, clamped to 64 bits.
pub(super) fn int(value: &Value) -> Result<i64, Error> {
    match kind(value) {
        Kind::Bool(flag) => Ok(i64::from(flag)),
        Kind::Int(int) => Ok(i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX })),
        _ => Err(fail(format!("'{}' object cannot be interpreted as an integer", type_name(value)))),
    }
}
