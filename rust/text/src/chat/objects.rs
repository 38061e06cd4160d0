//! Objects that templates call: `joiner`, `cycler`, and macros that take any arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{Kwargs, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State, Value};

use super::args::Args;
use super::error::fail;
use super::value::{new_dict, new_tuple};

/// `joiner(separator)`: nothing at the first call, and the separator at all others.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Joiner {
    pub(super) fn value(args: &[Value]) -> Value {
        let separator = Args::new(args).get(0, "sep").unwrap_or_else(|| Value::from(", "));
        Value::from_object(Joiner { separator, used: AtomicBool::new(false) })
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        Ok(if self.used.swap(true, Ordering::Relaxed) { self.separator.clone() } else { Value::from("") })
    }
}

/// `cycler(a, b, …)`: its items in turn.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    pub(super) fn value(args: &[Value]) -> Result<Value, Error> {
        let items = Args::new(args).positional().to_vec();
        if items.is_empty() {
            return Err(fail("at least one item has to be provided"));
        }
        Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) }))
    }

    fn current(&self) -> Value {
        self.items.get(self.at.load(Ordering::Relaxed)).cloned().unwrap_or_default()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        match method {
            "next" => {
                let current = self.current();
                self.at.store((self.at.load(Ordering::Relaxed) + 1) % self.items.len().max(1), Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// A macro whose body reads `varargs` or `kwargs`: they are its last parameters, and this gives them what is left over.
#[derive(Debug)]
pub(super) struct Variadic {
    inner: Value,
    parameters: Vec<String>,
    varargs: bool,
    kwargs: bool,
}

impl Variadic {
    /// From the macro, whether it reads `varargs`, whether it reads `kwargs`, and the names of its parameters.
    pub(super) fn value(values: &[Value]) -> Result<Value, Error> {
        let [inner, varargs, kwargs, parameters @ ..] = values else { return Err(fail("a macro needs its parameters")) };
        let parameters = parameters.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let (varargs, kwargs) = (varargs.is_true(), kwargs.is_true());
        Ok(Value::from_object(Variadic { inner: inner.clone(), parameters, varargs, kwargs }))
    }
}

impl Object for Variadic {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let args = Args::new(args);
        let (head, rest) = args.positional().split_at(self.parameters.len().min(args.positional().len()));
        if !rest.is_empty() && !self.varargs {
            return Err(Error::new(ErrorKind::TooManyArguments, "the macro takes fewer arguments"));
        }
        let is_known = |name: &Value| name.as_str().is_some_and(|name| name == "caller" || self.parameters.iter().any(|p| p == name));
        let (known, unknown): (Vec<_>, Vec<_>) = args.named().into_iter().partition(|(name, _)| is_known(name) || !self.kwargs);
        let mut named: Vec<(String, Value)> =
            known.into_iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value))).collect();
        if self.varargs {
            named.push(("varargs".to_owned(), new_tuple(state, rest.to_vec())?));
        }
        if self.kwargs {
            named.push(("kwargs".to_owned(), new_dict(state, unknown)?));
        }
        let mut values = head.to_vec();
        values.push(Value::from(Kwargs::from_iter(named)));
        self.inner.call(state, &values)
    }
}
