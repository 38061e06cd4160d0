//! Methods of strings, lists and mappings.

use minijinja::{Error, ErrorKind, State, Value};

use super::args::{Args, int};
use super::error::fail;
use super::strings::{self, Ends};
use super::text::{Text, to_str};
use super::value::{Dict, ITEM, Kind, List, charge, charge_key, check_data, items, kind, list, new_tuple, position, type_name};
use super::{filters, format, ops};

/// `value.name(args)`, where the interpreter knows no such method.
pub(super) fn call(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    args.iter().try_for_each(|arg| charge_key(state, arg))?;
    let args = Args::new(args);
    let found = match kind(value) {
        Kind::Str(text) => {
            charge(state, text.len())?;
            let found = if value.is_safe() { markup(state, text, name, &args)? } else { None };
            found.map_or_else(|| string(state, text, name, &args), |found| Ok(Some(found)))?
        }
        Kind::List(items) => sequence(state, value, name, &args)?.map_or_else(|| mutate(state, items, name, &args), |v| Ok(Some(v)))?,
        Kind::Tuple(_) => sequence(state, value, name, &args)?,
        Kind::Dict(dict) => mapping(state, dict, name, &args)?,
        Kind::Undefined => return Err(Error::new(ErrorKind::UndefinedError, format!("method '{name}' of an undefined value"))),
        _ => None,
    };
    found.ok_or_else(|| Error::new(ErrorKind::UnknownMethod, format!("'{}' object has no method '{name}'", type_name(value))))
}

/// Methods of a safe string that make a safe string. Their arguments are escaped.
fn markup(state: &State, text: &str, name: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    let escaped = |value: &Value| {
        let mut out = Text::new(state);
        out.markup(value)?;
        Ok::<_, Error>(out.finish())
    };
    let made = match name {
        "replace" => {
            let (old, new) = (escaped(&args.required(0, "old")?)?, escaped(&args.required(1, "new")?)?);
            strings::replace(state, text, &old, &new, args.int(2, "count")?.unwrap_or(-1))?
        }
        "join" => {
            let mut out = Text::new(state);
            for (i, item) in items(state, &args.required(0, "iterable")?)?.iter().enumerate() {
                if i > 0 {
                    out.push(text)?;
                }
                out.markup(item)?;
            }
            out.finish()
        }
        "strip" | "lstrip" | "rstrip" | "removeprefix" | "removesuffix" | "upper" | "lower" | "casefold" | "title" | "capitalize"
        | "swapcase" | "zfill" | "ljust" | "rjust" | "center" => match string(state, text, name, args)? {
            Some(made) => to_str(state, &made)?,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(Value::from_safe_string(made)))
}

/// Whether Jinja2's sandbox lets a template use a method of this name.
pub(super) fn has(value: &Value, name: &str) -> bool {
    let names: &[&str] = match kind(value) {
        Kind::Str(_) => &STRING_METHODS,
        Kind::List(_) => &["copy", "count", "index"],
        Kind::Tuple(_) => &["count", "index"],
        Kind::Dict(_) => &["copy", "fromkeys", "get", "items", "keys", "values"],
        _ => &[],
    };
    names.contains(&name)
}

const STRING_METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

fn string(state: &State, text: &str, name: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    let strip = |ends| args.string(0, "chars").map(|chars| Value::from(strings::strip(text, chars.as_deref(), ends)));
    let pad = |ends| {
        let fill = args.string(1, "fillchar")?.unwrap_or_else(|| " ".into());
        strings::pad(state, text, int(&args.required(0, "width")?)?, &fill, ends).map(Value::from)
    };
    let affix = |test: fn(&str, &str) -> bool| -> Result<Value, Error> {
        let affixes = match args.required(0, "prefix")? {
            tuple if matches!(kind(&tuple), Kind::Tuple(_)) => items(state, &tuple)?,
            other => vec![other],
        };
        let mut found = false;
        for affix in &affixes {
            let Kind::Str(affix) = kind(affix) else { return Err(fail(format!("{name} first arg must be str or a tuple of str"))) };
            charge(state, text.len().min(affix.len()))?;
            found |= test(text, affix);
        }
        Ok(Value::from(found))
    };
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    Ok(Some(match name {
        "strip" => strip(Ends::Both)?,
        "lstrip" => strip(Ends::Left)?,
        "rstrip" => strip(Ends::Right)?,
        "split" => strings::split(state, text, args, false)?,
        "rsplit" => strings::split(state, text, args, true)?,
        "splitlines" => {
            charge(state, text.len() * ITEM)?;
            list(strings::lines(text, args.flag(0, "keepends", false)).into_iter().map(Value::from).collect())
        }
        "startswith" => affix(|text, affix| text.starts_with(affix))?,
        "endswith" => affix(|text, affix| text.ends_with(affix))?,
        "removeprefix" => {
            let affix = args.required_string(0, "prefix")?;
            Value::from(text.strip_prefix(affix.as_str()).unwrap_or(text))
        }
        "removesuffix" => {
            let affix = args.required_string(0, "suffix")?;
            Value::from(text.strip_suffix(affix.as_str()).unwrap_or(text))
        }
        "replace" => {
            let (old, new) = (args.required_string(0, "old")?, args.required_string(1, "new")?);
            Value::from(strings::replace(state, text, &old, &new, args.int(2, "count")?.unwrap_or(-1))?)
        }
        "partition" | "rpartition" => partition(state, text, &args.required_string(0, "sep")?, name == "rpartition")?,
        "upper" => Value::from(text.to_uppercase()),
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "title" => Value::from(strings::title(text)),
        "capitalize" => Value::from(strings::capitalize(text)),
        "swapcase" => Value::from(
            text.chars()
                .map(|c| if c.is_uppercase() { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() })
                .collect::<String>(),
        ),
        "zfill" => zfill(state, text, int(&args.required(0, "width")?)?)?,
        "ljust" => pad(Ends::Right)?,
        "rjust" => pad(Ends::Left)?,
        "center" => pad(Ends::Both)?,
        "join" => Value::from(filters::join(state, &args.required(0, "iterable")?, text, true)?),
        "format" => format::braces(state, text, args)?,
        "find" | "rfind" | "index" | "rindex" => find(text, name, &args.required_string(0, "sub")?)?,
        "count" => {
            let part = args.required_string(0, "sub")?;
            Value::from(text.matches(part.as_str()).count())
        }
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(strings::is_space),
        "isupper" => Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)),
        "islower" => Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)),
        "isascii" => Value::from(text.is_ascii()),
        _ => return Ok(None),
    }))
}

fn partition(state: &State, text: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(fail("empty separator"));
    }
    let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    new_tuple(state, parts.map(Value::from).to_vec())
}

fn zfill(state: &State, text: &str, width: i64) -> Result<Value, Error> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let padded = strings::pad(state, digits, width.saturating_sub(sign.len() as i64), "0", Ends::Left)?;
    Ok(Value::from(format!("{sign}{padded}")))
}

fn find(text: &str, name: &str, part: &str) -> Result<Value, Error> {
    let at = if name.starts_with('r') { text.rfind(part) } else { text.find(part) };
    match at {
        Some(at) => Ok(Value::from(text[..at].chars().count())),
        None if name.ends_with("index") => Err(fail("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn sequence(state: &State, value: &Value, name: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    if !matches!(name, "count" | "index") {
        return Ok(None);
    }
    let wanted = args.required(0, "value")?;
    let mut count = 0;
    for (at, item) in items(state, value)?.iter().enumerate() {
        if ops::equal(state, item, &wanted, 0)? {
            if name == "index" {
                return Ok(Some(Value::from(at)));
            }
            count += 1;
        }
    }
    if name == "index" {
        return Err(fail(format!("{} is not in the list", to_str(state, &wanted)?)));
    }
    Ok(Some(Value::from(count)))
}

/// Methods that change a list. What is put in is copied, so that lists which change never contain each other.
fn mutate(state: &State, target: &List, name: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    let frozen = |value: &Value| {
        check_data(state, value, 1)?;
        freeze(value)
    };
    match name {
        "append" => {
            let value = frozen(&args.required(0, "object")?)?;
            target.lock().push(value);
        }
        "insert" => {
            let at = int(&args.required(0, "index")?)?;
            let value = frozen(&args.required(1, "object")?)?;
            let mut items = target.lock();
            charge(state, items.len() * 8)?;
            let len = items.len();
            let at = if at < 0 { position(at, len).unwrap_or(0) } else { usize::try_from(at).unwrap_or(len).min(len) };
            items.insert(at, value);
        }
        "extend" => {
            let more = items(state, &args.required(0, "iterable")?)?.iter().map(frozen).collect::<Result<Vec<_>, _>>()?;
            target.lock().extend(more);
        }
        "pop" => {
            let mut items = target.lock();
            charge(state, items.len() * 8)?;
            let at = args.int(0, "index")?.unwrap_or(-1);
            let at = position(at, items.len()).ok_or_else(|| fail("pop index out of range"))?;
            return Ok(Some(items.remove(at)));
        }
        _ => return Ok(None),
    }
    Ok(Some(Value::from(())))
}

/// A copy in which no list can be changed through another name. `check_data` has bounded and charged it.
fn freeze(value: &Value) -> Result<Value, Error> {
    Ok(match kind(value) {
        Kind::List(items) => {
            let items = items.lock().clone();
            list(items.iter().map(freeze).collect::<Result<_, _>>()?)
        }
        Kind::Tuple(items) => Value::from(minijinja::value::Tuple::new(items.iter().map(freeze).collect::<Result<_, _>>()?)),
        Kind::Dict(dict) => {
            Dict::copy(dict.pairs().into_iter().map(|(key, item)| Ok((key, freeze(&item)?))).collect::<Result<_, Error>>()?)
        }
        _ => value.clone(),
    })
}

fn mapping(state: &State, dict: &Dict, name: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    charge(state, dict.len() * ITEM)?;
    Ok(Some(match name {
        "items" => dict_items(dict),
        "keys" => list(dict.keys()),
        "values" => list(dict.pairs().into_iter().map(|(_, value)| value).collect()),
        "get" => {
            let default = args.get(1, "default").unwrap_or_else(|| Value::from(()));
            let key = args.required(0, "key")?;
            charge_key(state, &key)?;
            dict.get(&key).unwrap_or(default)
        }
        "copy" => Dict::copy(dict.pairs()),
        _ => return Ok(None),
    }))
}

/// The pairs of a mapping as a list of tuples.
pub(super) fn dict_items(dict: &Dict) -> Value {
    list(dict.pairs().into_iter().map(|(key, value)| Value::from(minijinja::value::Tuple::from([key, value]))).collect())
}

/// `repr(value)` as a value.
pub(super) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    let mut text = Text::new(state);
    text.repr(value)?;
    Ok(text.finish())
}
