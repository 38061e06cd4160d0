//! Filters: Jinja2's, as far as chat templates can use them, `tojson` of Hugging Face, and `from_json`.

use minijinja::value::Tuple;
use minijinja::{Error, State, Value};

use super::args::{Args, int};
use super::error::fail;
use super::functions::Func;
use super::sequences as seq;
use super::strings::{self, Ends};
use super::text::{JsonStyle, Text, to_str};
use super::value::{Kind, MAX_DEPTH, Size, charge, from_json, items, kind, list, type_name};
use super::{format, methods};

const FILTERS: &[(&str, Func)] = &[
    ("abs", |_, v| match kind(&v[0]) {
        Kind::Bool(flag) => Ok(Value::from(i64::from(flag))),
        Kind::Int(int) => Ok(super::ops::integer(int.saturating_abs())),
        Kind::Float(float) => Ok(Value::from(float.abs())),
        _ => Err(fail(format!("bad operand type for abs(): '{}'", type_name(&v[0])))),
    }),
    ("attr", |_, v| v[0].get_attr(&Args::new(&v[1..]).required_string(0, "name")?)),
    ("batch", seq::batch),
    ("capitalize", |state, v| on_text(state, v, |text, _| Ok(strings::capitalize(text)))),
    ("center", |state, v| on_text(state, v, |text, args| strings::pad(state, text, args.int(0, "width")?.unwrap_or(80), " ", Ends::Both))),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", seq::dictsort),
    ("e", escape),
    ("escape", escape),
    ("first", seq::first),
    ("forceescape", |state, v| {
        let mut out = Text::new(state);
        out.escaped(&to_str(state, &v[0])?)?;
        Ok(Value::from_safe_string(out.finish()))
    }),
    ("float", to_float),
    ("format", |state, v| format::percent(state, &to_str(state, &v[0])?, &Value::from(Tuple::new(v[1..].to_vec())), v[0].is_safe())),
    ("from_json", parse_json),
    ("fromjson", parse_json),
    ("groupby", seq::groupby),
    ("indent", indent),
    ("int", to_int),
    ("items", |state, v| match kind(&v[0]) {
        Kind::Undefined => Ok(list(Vec::new())),
        Kind::Dict(dict) => {
            charge(state, dict.len() * 256)?;
            Ok(methods::dict_items(dict))
        }
        _ => Err(fail("Can only get item pairs from a mapping.")),
    }),
    ("join", |state, v| {
        let args = Args::new(&v[1..]);
        let separator = args.get(0, "d").map_or_else(|| Ok(String::new()), |d| to_str(state, &d))?;
        let values = match args.get(1, "attribute") {
            Some(path) => list(seq::attributes(state, &items(state, &v[0])?, &path, None)?),
            None => v[0].clone(),
        };
        join(state, &values, &separator, false).map(Value::from)
    }),
    ("last", seq::last),
    ("length", length),
    ("list", |state, v| Ok(list(items(state, &v[0])?))),
    ("lower", |state, v| on_text(state, v, |text, _| Ok(text.to_lowercase()))),
    ("map", seq::map),
    ("max", |state, v| seq::extreme(state, v, std::cmp::Ordering::Greater)),
    ("min", |state, v| seq::extreme(state, v, std::cmp::Ordering::Less)),
    ("pprint", |state, v| methods::repr(state, &v[0]).map(Value::from)),
    ("reject", |state, v| seq::select(state, v, false, false)),
    ("rejectattr", |state, v| seq::select(state, v, true, false)),
    ("replace", |state, v| {
        let (text, args) = (to_str(state, &v[0])?, Args::new(&v[1..]));
        let (old, new) = (to_str(state, &args.required(0, "old")?)?, to_str(state, &args.required(1, "new")?)?);
        strings::replace(state, &text, &old, &new, args.int(2, "count")?.unwrap_or(-1)).map(Value::from)
    }),
    ("reverse", |state, v| {
        let all: Vec<Value> = items(state, &v[0])?.into_iter().rev().collect();
        Ok(if v[0].as_str().is_some() { Value::from(all.iter().filter_map(Value::as_str).collect::<String>()) } else { list(all) })
    }),
    ("round", round),
    ("safe", |state, v| Ok(Value::from_safe_string(to_str(state, &v[0])?))),
    ("select", |state, v| seq::select(state, v, false, true)),
    ("selectattr", |state, v| seq::select(state, v, true, true)),
    ("slice", seq::slice),
    ("sort", seq::sort),
    ("string", |state, v| on_text(state, v, |text, _| Ok(text.to_owned()))),
    ("sum", seq::sum),
    ("title", |state, v| Ok(Value::from(strings::title_words(&to_str(state, &v[0])?)))),
    ("tojson", tojson),
    ("trim", |state, v| {
        on_text(state, v, |text, args| Ok(strings::strip(text, args.string(0, "chars")?.as_deref(), Ends::Both).to_owned()))
    }),
    ("truncate", truncate),
    ("unique", seq::unique),
    ("upper", |state, v| on_text(state, v, |text, _| Ok(text.to_uppercase()))),
    ("wordcount", |state, v| {
        let text = to_str(state, &v[0])?;
        Ok(Value::from(text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()))
    }),
];

/// All filters by name.
pub(super) fn all() -> &'static [(&'static str, Func)] {
    FILTERS
}

pub(super) fn exists(name: &str) -> bool {
    find(name).is_some()
}

pub(super) fn find(name: &str) -> Option<Func> {
    FILTERS.iter().find(|(known, _)| *known == name).map(|(_, filter)| *filter)
}

/// Applies `make` to the subject as a string; of a safe string it makes a safe string.
fn on_text(state: &State, values: &[Value], make: impl FnOnce(&str, &Args<'_>) -> Result<String, Error>) -> Result<Value, Error> {
    let text = to_str(state, &values[0])?;
    make(&text, &Args::new(&values[1..])).map(|text| super::value::text(text, values[0].is_safe()))
}

/// The items as text with `separator` between them; `strict` takes strings only, as `str.join` does.
pub(super) fn join(state: &State, values: &Value, separator: &str, strict: bool) -> Result<String, Error> {
    let mut out = Text::new(state);
    for (i, item) in items(state, values)?.iter().enumerate() {
        if strict && item.as_str().is_none() {
            return Err(fail(format!("sequence item {i}: expected str instance, {} found", type_name(item))));
        }
        if i > 0 {
            out.push(separator)?;
        }
        out.str(item)?;
    }
    Ok(out.finish())
}

fn length(state: &State, values: &[Value]) -> Result<Value, Error> {
    length_of(state, &values[0]).map(Value::from)
}

/// Python's `len`.
fn length_of(state: &State, value: &Value) -> Result<usize, Error> {
    Ok(match kind(value) {
        Kind::Undefined => 0,
        Kind::Str(text) => {
            charge(state, text.len())?;
            text.chars().count()
        }
        Kind::List(list) => list.lock().len(),
        Kind::Tuple(items) => items.len(),
        Kind::Dict(dict) => dict.len(),
        _ => return Err(fail(format!("object of type '{}' has no len()", type_name(value)))),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a filter")]
fn default(_: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let absent = values[0].is_undefined() || (args.flag(1, "boolean", false) && !values[0].is_true());
    Ok(if absent { args.get(0, "default_value").unwrap_or_else(|| Value::from("")) } else { values[0].clone() })
}

fn escape(state: &State, values: &[Value]) -> Result<Value, Error> {
    let mut out = Text::new(state);
    out.markup(&values[0])?;
    Ok(Value::from_safe_string(out.finish()))
}

/// `truncate(length, killwords, end, leeway)`: cut after a word, or anywhere.
fn truncate(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let (length, leeway) = (args.int(0, "length")?.unwrap_or(255), args.int(3, "leeway")?.unwrap_or(5));
    let end = args.get(2, "end").unwrap_or_else(|| Value::from("..."));
    let Kind::Str(end_text) = kind(&end) else { return Err(fail("the end must be a string")) };
    let end_length = end_text.chars().count() as i64;
    if length < end_length {
        return Err(fail(format!("expected length >= {end_length}, got {length}")));
    }
    if leeway < 0 {
        return Err(fail(format!("expected leeway >= 0, got {leeway}")));
    }
    let Kind::Str(text) = kind(&values[0]) else {
        let fits = length_of(state, &values[0])? as i64 <= length.saturating_add(leeway);
        return if fits { Ok(values[0].clone()) } else { Err(fail(format!("'{}' object has no words", type_name(&values[0])))) };
    };
    charge(state, text.len() + end_text.len())?;
    if text.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(values[0].clone());
    }
    let cut = text.char_indices().nth((length - end_length) as usize).map_or(text.len(), |(at, _)| at);
    let kept = text[..cut].rfind(' ').filter(|_| !args.flag(1, "killwords", false)).unwrap_or(cut);
    super::ops::add(state, &super::value::text(text[..kept].to_owned(), values[0].is_safe()), &end)
}

fn indent(state: &State, values: &[Value]) -> Result<Value, Error> {
    if values[0].as_str().is_none() {
        return Err(fail(format!("'{}' object has no lines", type_name(&values[0]))));
    }
    on_text(state, values, |text, args| {
        let (first, blank) = (args.flag(1, "first", false), args.flag(2, "blank", false));
        let width = match args.get(0, "width") {
            None => " ".repeat(4),
            Some(width) => spaces(state, &width)?,
        };
        strings::indent(state, text, &width, first, blank)
    })
}

/// An indentation: a text, or a number of spaces.
fn spaces(state: &State, indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let mut text = Text::new(state);
    text.repeat(" ", usize::try_from(int(indent)?).unwrap_or(0))?;
    Ok(text.finish())
}

fn to_int(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let default = || args.get(0, "default").unwrap_or_else(|| Value::from(0));
    let base = args.int(1, "base")?.and_then(|base| u32::try_from(base).ok()).unwrap_or(10);
    Ok(match kind(&values[0]) {
        Kind::Undefined => return Err(undefined("int")),
        Kind::Bool(flag) => Value::from(i64::from(flag)),
        Kind::Int(_) => values[0].clone(),
        Kind::Float(float) if float.is_finite() => super::ops::integer(float as i128),
        Kind::Str(text) => {
            charge(state, text.len())?;
            let text = text.trim().replace('_', "");
            let digits = text.trim_start_matches("0x").trim_start_matches("0b").trim_start_matches("0o");
            let parsed = match base {
                10 => text.parse::<i128>().ok().or_else(|| text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f as i128)),
                2..=36 => i128::from_str_radix(digits, base).ok(),
                _ => None,
            };
            parsed.map_or_else(default, super::ops::integer)
        }
        _ => default(),
    })
}

fn undefined(filter: &str) -> Error {
    Error::new(minijinja::ErrorKind::UndefinedError, format!("{filter} of an undefined value"))
}

fn to_float(_: &State, values: &[Value]) -> Result<Value, Error> {
    let default = || Args::new(&values[1..]).get(0, "default").unwrap_or_else(|| Value::from(0.0));
    Ok(match kind(&values[0]) {
        Kind::Undefined => return Err(undefined("float")),
        Kind::Bool(flag) => Value::from(f64::from(u8::from(flag))),
        Kind::Int(int) => Value::from(int as f64),
        Kind::Float(_) => values[0].clone(),
        Kind::Str(text) => text.trim().parse::<f64>().map_or_else(|_| default(), Value::from),
        _ => default(),
    })
}

fn round(_: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let precision = args.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let method = args.string(1, "method")?;
    let value = match kind(&values[0]) {
        Kind::Bool(flag) if precision >= 0 && matches!(method.as_deref(), None | Some("common")) => {
            return Ok(Value::from(i64::from(flag)));
        }
        Kind::Int(_) if precision >= 0 && matches!(method.as_deref(), None | Some("common")) => return Ok(values[0].clone()),
        Kind::Bool(_) | Kind::Int(_) => int(&values[0])? as f64,
        Kind::Float(float) => float,
        _ => return Err(fail(format!("type {} doesn't define __round__ method", type_name(&values[0])))),
    };
    let scale = 10f64.powi(precision);
    let rounded = match method.as_deref() {
        None | Some("common") if precision >= 0 => format!("{value:.*}", precision as usize).parse().unwrap_or(value),
        None | Some("common") => (value * scale).round_ties_even() / scale,
        Some("ceil") => (value * scale).ceil() / scale,
        Some("floor") => (value * scale).floor() / scale,
        Some(_) => return Err(fail("method must be common, ceil or floor")),
    };
    Ok(Value::from(rounded))
}

/// Hugging Face's `tojson`: `json.dumps` with its arguments, and no HTML escapes.
fn tojson(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let indent = args.get(1, "indent").filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| spaces(state, &indent)).transpose()?;
    let (mut item_separator, mut key_separator) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = args.get(2, "separators").filter(|value| !value.is_none()) {
        let [item, key] = items(state, &separators)?.try_into().map_err(|_| fail("separators must be a pair"))?;
        (item_separator, key_separator) = (to_str(state, &item)?, to_str(state, &key)?);
    }
    let style = JsonStyle {
        ensure_ascii: args.flag(0, "ensure_ascii", false),
        sort_keys: args.flag(3, "sort_keys", false),
        indent,
        item_separator,
        key_separator,
    };
    let mut out = Text::new(state);
    out.json(&values[0], &style, 0)?;
    Ok(Value::from(out.finish()))
}

fn parse_json(state: &State, values: &[Value]) -> Result<Value, Error> {
    let Kind::Str(text) = kind(&values[0]) else {
        return Err(fail(format!("the JSON object must be str, not {}", type_name(&values[0]))));
    };
    // One byte of JSON can become a whole value.
    charge(state, text.len() * 128)?;
    let json = serde_json::from_str(text).map_err(|error| fail(format!("not valid JSON: {error}")))?;
    from_json(&json, 0, &mut Size::default()).ok_or_else(|| fail(format!("JSON is deeper than {MAX_DEPTH}")))
}
