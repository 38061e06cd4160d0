//! Tests: what stands after `is`.

use minijinja::{Error, State, Value};

use super::args::int;
use super::error::fail;
use super::ops;
use super::value::{Kind, kind};
use super::{filters, functions, methods};

const NAMES: [&str; 40] = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "true",
    "false",
    "integer",
    "float",
    "number",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "callable",
    "odd",
    "even",
    "divisibleby",
    "lower",
    "upper",
    "escaped",
    "safe",
    "sameas",
    "in",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "filter",
    "test",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The helper of a rewritten `value is name(args)`: value, name, arguments.
pub(super) const IS: functions::Func = |state, values| match values {
    [value, name, args @ ..] => holds(state, name.as_str().unwrap_or_default(), value, args).map(Value::from),
    _ => Err(fail("a test needs a value and a name")),
};

/// The helper of a rewritten `base.attribute is name`: base, attribute, name.
pub(super) const IS_ATTRIBUTE: functions::Func = |state, values| match values {
    [base, attribute, name] => {
        let (attribute, name) = (attribute.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
        let value = base.get_attr(attribute)?;
        // The interpreter knows methods only where they are called.
        if value.is_undefined() && methods::has(base, attribute) {
            return Ok(Value::from(name != "undefined"));
        }
        holds(state, name, &value, &[]).map(Value::from)
    }
    _ => Err(fail("a test needs a value and a name")),
};

/// `value is name(args)`.
pub(super) fn holds(state: &State, name: &str, value: &Value, args: &[Value]) -> Result<bool, Error> {
    let argument = || args.first().ok_or_else(|| fail(format!("test '{name}' needs an argument")));
    let compare = |op: &str| ops::compare(state, value, op, argument()?);
    let value_kind = kind(value);
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => value.is_none(),
        "boolean" => matches!(value_kind, Kind::Bool(_)),
        "true" => matches!(value_kind, Kind::Bool(true)),
        "false" => matches!(value_kind, Kind::Bool(false)),
        "integer" => matches!(value_kind, Kind::Int(_)),
        "float" => matches!(value_kind, Kind::Float(_)),
        "number" => matches!(value_kind, Kind::Int(_) | Kind::Float(_) | Kind::Bool(_)),
        "string" => matches!(value_kind, Kind::Str(_)),
        "mapping" => matches!(value_kind, Kind::Dict(_)),
        // Python iterates over an undefined value, not over none.
        "iterable" | "sequence" => {
            matches!(value_kind, Kind::Undefined | Kind::Str(_) | Kind::List(_) | Kind::Tuple(_) | Kind::Dict(_))
        }
        // Undefined values can be called, which then fails.
        "callable" => match value_kind {
            Kind::Undefined => true,
            Kind::Other => is_callable(value),
            _ => false,
        },
        "odd" => int(value)?.rem_euclid(2) == 1,
        "even" => int(value)?.rem_euclid(2) == 0,
        "divisibleby" => match int(argument()?)? {
            0 => return Err(fail("division by zero")),
            divisor => int(value)?.checked_rem(divisor).unwrap_or(0) == 0,
        },
        "lower" => case(value, char::is_lowercase, char::is_uppercase),
        "upper" => case(value, char::is_uppercase, char::is_lowercase),
        "escaped" | "safe" => value.is_safe(),
        "sameas" => same(state, value, argument()?)?,
        "in" => compare("in")?,
        "eq" | "equalto" | "==" => compare("==")?,
        "ne" | "!=" => compare("!=")?,
        "lt" | "lessthan" | "<" => compare("<")?,
        "le" | "<=" => compare("<=")?,
        "gt" | "greaterthan" | ">" => compare(">")?,
        "ge" | ">=" => compare(">=")?,
        "filter" => value.as_str().is_some_and(filters::exists),
        "test" => value.as_str().is_some_and(exists),
        _ => return Err(fail(format!("no test named '{name}'"))),
    })
}

/// Whether an object that is not data is a function, macro or joiner.
fn is_callable(value: &Value) -> bool {
    let is_macro =
        || value.len() == Some(3) && ["name", "arguments", "caller"].iter().all(|key| value.get_attr(key).is_ok_and(|v| !v.is_undefined()));
    match value.kind() {
        minijinja::value::ValueKind::Plain => value.downcast_object_ref::<super::objects::Cycler>().is_none(),
        _ => is_macro(),
    }
}

fn case(value: &Value, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    value.as_str().is_some_and(|text| text.chars().any(wanted) && !text.chars().any(other))
}

/// Python's `is`: one object, or equal scalars of one type.
fn same(state: &State, a: &Value, b: &Value) -> Result<bool, Error> {
    match (kind(a), kind(b)) {
        (Kind::List(x), Kind::List(y)) => Ok(std::ptr::eq(x, y)),
        (Kind::Tuple(x), Kind::Tuple(y)) => Ok(std::ptr::eq(x, y)),
        (Kind::Dict(x), Kind::Dict(y)) => Ok(std::ptr::eq(x, y)),
        (x, y) if std::mem::discriminant(&x) == std::mem::discriminant(&y) => ops::equal(state, a, b, 0),
        _ => Ok(false),
    }
}
