//! Operators, subscripts and literals with Python's rules. Whatever they make is charged before it is made.

use std::cmp::Ordering;

use minijinja::{Error, ErrorKind, State, Value};

use super::args::{Args, int};
use super::error::fail;
use super::objects::Variadic;
use super::text::Text;
use super::value::{
    self, ITEM, Kind, MAX_DEPTH, charge, charge_key, items, kind, list, new_dict, new_list, new_tuple, position, type_name,
};
use super::{format, functions::Func};

/// The helpers that rewritten expressions call.
pub(super) const OPERATORS: &[(&str, Func)] = &[
    ("_op_add", |state, v| add(state, &v[0], arg(v, 1)?)),
    ("_op_sub", |_, v| arithmetic("-", &v[0], arg(v, 1)?)),
    ("_op_mul", |state, v| multiply(state, &v[0], arg(v, 1)?)),
    ("_op_div", |_, v| arithmetic("/", &v[0], arg(v, 1)?)),
    ("_op_intdiv", |_, v| arithmetic("//", &v[0], arg(v, 1)?)),
    ("_op_mod", |state, v| match kind(&v[0]) {
        Kind::Str(template) => format::percent(state, template, arg(v, 1)?, v[0].is_safe()),
        _ => arithmetic("%", &v[0], arg(v, 1)?),
    }),
    ("_op_pow", |_, v| arithmetic("**", &v[0], arg(v, 1)?)),
    ("_op_neg", |_, v| match kind(&v[0]) {
        Kind::Float(float) => Ok(Value::from(-float)),
        _ => arithmetic("-", &Value::from(0), &v[0]),
    }),
    ("_op_pos", |_, v| arithmetic("+", &Value::from(0), &v[0])),
    ("_op_concat", |state, v| {
        let mut text = Text::new(state);
        v.iter().try_for_each(|part| text.str(part))?;
        Ok(Value::from(text.finish()))
    }),
    ("_op_compare", compare_chain),
    ("_op_list", |state, v| new_list(state, v[1..].to_vec())),
    ("_op_tuple", |state, v| new_tuple(state, v[1..].to_vec())),
    ("_op_dict", |state, v| new_dict(state, v[1..].chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())),
    ("_op_get", |state, v| get_item(state, &v[0], arg(v, 1)?)),
    ("_op_slice", |state, v| slice(state, &v[0], &v[1..])),
    ("_op_iter", |state, v| Ok(list(items(state, &v[0])?))),
    ("_op_store", |state, v| {
        value::check_data(state, &v[0], 1)?;
        Ok(v[0].clone())
    }),
    ("_op_float", |_, v| Ok(Value::from(v[0].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN)))),
    ("_op_variadic", |_, v| Variadic::value(v)),
    ("_op_repr", |state, v| {
        let mut text = Text::new(state);
        text.repr(&v[0])?;
        Ok(Value::from(text.finish()))
    }),
];

fn arg(values: &[Value], index: usize) -> Result<&Value, Error> {
    values.get(index).ok_or_else(|| fail("missing operand"))
}

/// A number: booleans count.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Number> {
        match kind(value) {
            Kind::Bool(flag) => Some(Number::Int(i128::from(flag))),
            Kind::Int(int) => Some(Number::Int(int)),
            Kind::Float(float) => Some(Number::Float(float)),
            _ => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

/// An integer value; those beyond 64 bits keep their exact value up to 128 bits.
pub(super) fn integer(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn operand_error(op: &str, a: &Value, b: &Value) -> Error {
    for value in [a, b] {
        if value.is_undefined() {
            return Error::new(ErrorKind::UndefinedError, format!("operand of {op} is undefined"));
        }
    }
    fail(format!("unsupported operand type(s) for {op}: '{}' and '{}'", type_name(a), type_name(b)))
}

fn arithmetic(op: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) else { return Err(operand_error(op, a, b)) };
    if matches!(op, "/" | "//" | "%") && y.float() == 0.0 {
        return Err(fail("division by zero"));
    }
    if let (Number::Int(x), Number::Int(y)) = (x, y)
        && op != "/"
        && !(op == "**" && y < 0)
    {
        let result = match op {
            "+" => x.checked_add(y),
            "-" => x.checked_sub(y),
            "*" => x.checked_mul(y),
            "//" => x.checked_div_euclid(y).map(|q| if y < 0 && x.rem_euclid(y) != 0 { q - 1 } else { q }),
            "%" => x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
            _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        };
        return result.map(integer).ok_or_else(|| fail(format!("the result of {op} is too large for an integer")));
    }
    let (x, y) = (x.float(), y.float());
    Ok(Value::from(match op {
        "+" => x + y,
        "-" => x - y,
        "*" => x * y,
        "/" => x / y,
        "//" => (x / y).floor(),
        "%" => x - y * (x / y).floor(),
        _ => x.powf(y),
    }))
}

/// `a + b`.
pub(super) fn add(state: &State, a: &Value, b: &Value) -> Result<Value, Error> {
    match (kind(a), kind(b)) {
        (Kind::Str(_), Kind::Str(_)) if a.is_safe() || b.is_safe() => {
            let mut out = Text::new(state);
            out.markup(a)?;
            out.markup(b)?;
            Ok(Value::from_safe_string(out.finish()))
        }
        (Kind::Str(x), Kind::Str(y)) => {
            charge(state, x.len() + y.len())?;
            Ok(Value::from([x, y].concat()))
        }
        (Kind::List(_), Kind::List(_)) => {
            let mut all = items(state, a)?;
            all.extend(items(state, b)?);
            Ok(list(all))
        }
        (Kind::Tuple(x), Kind::Tuple(y)) => {
            charge(state, (x.len() + y.len()) * ITEM)?;
            Ok(Value::from(minijinja::value::Tuple::new(x.iter().chain(y.iter()).cloned().collect())))
        }
        (Kind::Str(_), other) if !matches!(other, Kind::Undefined) => {
            Err(fail(format!("can only concatenate str (not \"{}\") to str", type_name(b))))
        }
        _ => arithmetic("+", a, b),
    }
}

fn multiply(state: &State, a: &Value, b: &Value) -> Result<Value, Error> {
    let (sequence, count) = if Number::of(a).is_some() { (b, a) } else { (a, b) };
    let repeats = || int(count).map(|n| usize::try_from(n).unwrap_or(0));
    match kind(sequence) {
        Kind::Str(text) => {
            let mut out = Text::new(state);
            out.repeat(text, repeats()?)?;
            Ok(value::text(out.finish(), sequence.is_safe()))
        }
        Kind::List(_) | Kind::Tuple(_) => {
            let base = items(state, sequence)?;
            let count = repeats()?;
            charge(state, base.len().saturating_mul(count).saturating_mul(ITEM))?;
            let all: Vec<Value> = if base.is_empty() { Vec::new() } else { std::iter::repeat_n(base, count).flatten().collect() };
            Ok(if matches!(kind(sequence), Kind::List(_)) { list(all) } else { Value::from(minijinja::value::Tuple::new(all)) })
        }
        _ => arithmetic("*", a, b),
    }
}

/// `a < b == c …`: operators and operands in turn.
fn compare_chain(state: &State, values: &[Value]) -> Result<Value, Error> {
    let mut left = &values[0];
    for pair in values[1..].chunks_exact(2) {
        if !compare(state, left, pair[0].as_str().unwrap_or_default(), &pair[1])? {
            return Ok(Value::from(false));
        }
        left = &pair[1];
    }
    Ok(Value::from(true))
}

/// One comparison.
pub(super) fn compare(state: &State, a: &Value, op: &str, b: &Value) -> Result<bool, Error> {
    Ok(match op {
        "==" => equal(state, a, b, 0)?,
        "!=" => !equal(state, a, b, 0)?,
        "in" => contains(state, b, a)?,
        "not in" => !contains(state, b, a)?,
        _ => {
            let order = order(state, a, b, 0)?;
            match op {
                "<" => order == Some(Ordering::Less),
                "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                ">" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
        }
    })
}

/// Python's `==`.
pub(super) fn equal(state: &State, a: &Value, b: &Value, depth: usize) -> Result<bool, Error> {
    if depth > 2 * MAX_DEPTH {
        return Err(super::error::limit(super::error::Limit::ValueDepth));
    }
    charge(state, 0)?;
    if let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) {
        return Ok(match (x, y) {
            (Number::Int(x), Number::Int(y)) => x == y,
            _ => x.float() == y.float(),
        });
    }
    let all = |x: &[Value], y: &[Value]| -> Result<bool, Error> {
        if x.len() != y.len() {
            return Ok(false);
        }
        for (x, y) in x.iter().zip(y) {
            if !equal(state, x, y, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match (kind(a), kind(b)) {
        (Kind::Undefined, Kind::Undefined) | (Kind::None, Kind::None) => Ok(true),
        (Kind::Str(x), Kind::Str(y)) => {
            charge(state, if x.len() == y.len() { x.len() } else { 0 })?;
            Ok(x == y)
        }
        (Kind::List(_), Kind::List(_)) => all(&items(state, a)?, &items(state, b)?),
        (Kind::Tuple(x), Kind::Tuple(y)) => all(x, y),
        (Kind::Dict(x), Kind::Dict(y)) => {
            charge(state, (x.len() + y.len()) * ITEM)?;
            if x.len() != y.len() {
                return Ok(false);
            }
            for (key, value) in x.pairs() {
                match y.get(&key) {
                    Some(other) if equal(state, &value, &other, depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Python's order of numbers, strings, lists and tuples; `None` where a NaN is compared.
pub(super) fn order(state: &State, a: &Value, b: &Value, depth: usize) -> Result<Option<Ordering>, Error> {
    if depth > 2 * MAX_DEPTH {
        return Err(super::error::limit(super::error::Limit::ValueDepth));
    }
    charge(state, 0)?;
    if let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) {
        return Ok(match (x, y) {
            (Number::Int(x), Number::Int(y)) => Some(x.cmp(&y)),
            _ => x.float().partial_cmp(&y.float()),
        });
    }
    match (kind(a), kind(b)) {
        (Kind::Str(x), Kind::Str(y)) => {
            charge(state, x.len().min(y.len()))?;
            Ok(Some(x.cmp(y)))
        }
        (Kind::List(_), Kind::List(_)) | (Kind::Tuple(_), Kind::Tuple(_)) => {
            let (x, y) = (items(state, a)?, items(state, b)?);
            for (x, y) in x.iter().zip(&y) {
                if !equal(state, x, y, depth + 1)? {
                    return order(state, x, y, depth + 1);
                }
            }
            Ok(Some(x.len().cmp(&y.len())))
        }
        _ => {
            let (a, b) = (type_name(a), type_name(b));
            Err(fail(format!("values of type '{a}' and '{b}' have no order")))
        }
    }
}

/// `item in container`.
pub(super) fn contains(state: &State, container: &Value, item: &Value) -> Result<bool, Error> {
    match kind(container) {
        Kind::Undefined => Ok(false),
        Kind::Str(text) => match kind(item) {
            Kind::Str(part) => {
                charge(state, text.len())?;
                Ok(text.contains(part))
            }
            _ => Err(fail(format!("'in <string>' requires string as left operand, not {}", type_name(item)))),
        },
        Kind::Dict(_) => {
            charge_key(state, item)?;
            Ok(container.as_object().is_some_and(|map| map.get_value(item).is_some()))
        }
        Kind::List(_) | Kind::Tuple(_) => {
            for other in items(state, container)? {
                if equal(state, &other, item, 0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::Other if item.as_str().is_some() => Ok(container.get_item(item).is_ok_and(|value| !value.is_undefined())),
        _ => Err(fail(format!("argument of type '{}' is not iterable", type_name(container)))),
    }
}

/// `value[key]`, undefined where there is none.
pub(super) fn get_item(state: &State, value: &Value, key: &Value) -> Result<Value, Error> {
    charge_key(state, key)?;
    match kind(value) {
        Kind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "subscript of an undefined value")),
        Kind::Str(text) => {
            let Kind::Int(_) = kind(key) else { return Ok(Value::UNDEFINED) };
            let index = int(key)?;
            charge(state, text.len().min(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)))?;
            let found = if index < 0 {
                usize::try_from(index.unsigned_abs() - 1).ok().and_then(|back| text.chars().rev().nth(back))
            } else {
                usize::try_from(index).ok().and_then(|at| text.chars().nth(at))
            };
            Ok(found.map_or(Value::UNDEFINED, |c| value::text(c.to_string(), value.is_safe())))
        }
        Kind::List(list) => {
            let Kind::Int(_) = kind(key) else { return Ok(Value::UNDEFINED) };
            let items = list.lock();
            Ok(position(int(key)?, items.len()).and_then(|at| items.get(at).cloned()).unwrap_or_default())
        }
        Kind::Tuple(items) => {
            let Kind::Int(_) = kind(key) else { return Ok(Value::UNDEFINED) };
            Ok(position(int(key)?, items.len()).and_then(|at| items.get(at).cloned()).unwrap_or_default())
        }
        Kind::Dict(_) => Ok(value.as_object().and_then(|map| map.get_value(key)).unwrap_or_default()),
        Kind::Other if key.as_str().is_some() => value.get_item(key),
        _ => Ok(Value::UNDEFINED),
    }
}

/// `value[start:stop:step]`.
fn slice(state: &State, value: &Value, parts: &[Value]) -> Result<Value, Error> {
    let args = Args::new(parts);
    let (start, stop, step) = (args.int(0, "start")?, args.int(1, "stop")?, args.int(2, "step")?.unwrap_or(1));
    if step == 0 {
        return Err(fail("slice step cannot be zero"));
    }
    if !matches!(kind(value), Kind::Str(_) | Kind::List(_) | Kind::Tuple(_)) {
        return Err(fail(format!("'{}' object is not subscriptable with a slice", type_name(value))));
    }
    if let (Kind::Str(text), 1) = (kind(value), step) {
        charge(state, text.len())?;
        let len = if text.is_ascii() { text.len() } else { text.chars().count() };
        let (start, stop) = (bound(start, 0, 0, len, 0), bound(stop, len as i64, 0, len, 0));
        let part = text.chars().skip(start as usize).take((stop - start).max(0) as usize).collect();
        return Ok(value::text(part, value.is_safe()));
    }
    let all = items(state, value)?;
    let len = all.len();
    let picked: Vec<Value> = indices(start, stop, step, len).filter_map(|at| all.get(at).cloned()).collect();
    match kind(value) {
        Kind::Str(_) => Ok(value::text(picked.iter().filter_map(Value::as_str).collect(), value.is_safe())),
        Kind::Tuple(_) => Ok(Value::from(minijinja::value::Tuple::new(picked))),
        _ => Ok(list(picked)),
    }
}

/// A bound of a slice: negative ones count from the end, then it is clamped to `low..=len - short`.
fn bound(value: Option<i64>, default: i64, low: i64, len: usize, short: i64) -> i64 {
    let len = len as i64;
    let Some(value) = value else { return default };
    let value = if value < 0 { value.saturating_add(len) } else { value };
    value.clamp(low, (len - short).max(low))
}

fn indices(start: Option<i64>, stop: Option<i64>, step: i64, len: usize) -> impl Iterator<Item = usize> {
    let last = len as i64 - 1;
    let (mut at, stop) = if step > 0 {
        (bound(start, 0, 0, len, 0), bound(stop, last + 1, 0, len, 0))
    } else {
        (bound(start, last, -1, len, 1), bound(stop, -1, -1, len, 1))
    };
    std::iter::from_fn(move || {
        let more = if step > 0 { at < stop } else { at > stop };
        let index = more.then_some(at).and_then(|at| usize::try_from(at).ok());
        at = at.saturating_add(step);
        index
    })
}
