//! Filters over sequences.

use std::cmp::Ordering;

use minijinja::value::Tuple;
use minijinja::{Error, State, Value};

use super::args::{Args, int};
use super::error::fail;
use super::ops::{self, equal, get_item, order};
use super::value::{ITEM, Kind, charge, charge_key, items, kind, list, new_list, type_name};
use super::{filters, tests};

/// `item.a.b.0`: undefined, or `default`, where a part is missing.
fn attribute(state: &State, item: &Value, path: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let mut found = item.clone();
    if let Kind::Str(path) = kind(path) {
        for part in path.split('.') {
            let key = part.parse::<i64>().map_or_else(|_| Value::from(part), Value::from);
            found = get_item(state, &found, &key)?;
            if found.is_undefined() {
                break;
            }
        }
    } else {
        found = get_item(state, &found, path)?;
    }
    Ok(if found.is_undefined() { default.cloned().unwrap_or_default() } else { found })
}

/// The attribute `path` of every item.
pub(super) fn attributes(state: &State, items: &[Value], path: &Value, default: Option<&Value>) -> Result<Vec<Value>, Error> {
    items.iter().map(|item| attribute(state, item, path, default)).collect()
}

/// What `map`, `select` and their like go through: nothing where the subject is none, or false in another way.
fn subjects(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_true() { items(state, value) } else { Ok(Vec::new()) }
}

/// `map(attribute=…, default=…)` and `map('filter', …)`.
pub(super) fn map(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let subjects = subjects(state, &values[0])?;
    if subjects.is_empty() {
        return Ok(list(subjects));
    }
    if args.positional().is_empty() {
        let path = args.required(usize::MAX, "attribute")?;
        return Ok(list(attributes(state, &subjects, &path, args.get(usize::MAX, "default").as_ref())?));
    }
    let name = args.required_string(0, "filter")?;
    let filter = filters::find(&name).ok_or_else(|| fail(format!("no filter named '{name}'")))?;
    let mut call = vec![Value::UNDEFINED];
    call.extend_from_slice(&values[2..]);
    let mut out = Vec::with_capacity(subjects.len());
    for subject in subjects {
        charge(state, ITEM)?;
        call.iter().try_for_each(|arg| charge_key(state, arg))?;
        call[0] = subject;
        let value = filter(state, &call)?;
        if let Some(text) = value.as_str() {
            charge(state, text.len())?;
        }
        out.push(value);
    }
    new_list(state, out)
}

/// `select`, `reject` and, with `by_attribute`, `selectattr` and `rejectattr`.
pub(super) fn select(state: &State, values: &[Value], by_attribute: bool, wanted: bool) -> Result<Value, Error> {
    let subjects = subjects(state, &values[0])?;
    if subjects.is_empty() {
        return Ok(list(subjects));
    }
    let args = Args::new(&values[1..]);
    let mut rest = args.positional();
    let mut path = None;
    if by_attribute {
        let (first, others) = rest.split_first().ok_or_else(|| fail("missing the name of the attribute"))?;
        (path, rest) = (Some(first), others);
    }
    let test = match rest.split_first() {
        None => None,
        Some((name, args)) => Some((name.as_str().ok_or_else(|| fail("the name of a test must be a string"))?, args)),
    };
    let mut out = Vec::new();
    for item in subjects {
        charge(state, 0)?;
        let subject = path.map_or_else(|| Ok(item.clone()), |path| attribute(state, &item, path, None))?;
        charge_key(state, &subject)?;
        let holds = match test {
            None => subject.is_true(),
            Some((name, args)) => tests::holds(state, name, &subject, args)?,
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(list(out))
}

/// What an item is sorted or compared by.
fn key(state: &State, item: &Value, path: Option<&Value>, case_sensitive: bool) -> Result<Value, Error> {
    let value = path.map_or_else(|| Ok(item.clone()), |path| attribute(state, item, path, None))?;
    Ok(match kind(&value) {
        Kind::Str(text) if !case_sensitive => {
            charge(state, text.len())?;
            Value::from(text.to_lowercase())
        }
        _ => value,
    })
}

fn keyed(state: &State, items: Vec<Value>, path: Option<&Value>, case_sensitive: bool) -> Result<Vec<(Value, Value)>, Error> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        charge(state, ITEM + item.as_str().map_or(0, str::len))?;
        out.push((key(state, &item, path, case_sensitive)?, item));
    }
    Ok(out)
}

/// A stable merge sort by key whose comparisons can fail.
fn sort_pairs(state: &State, pairs: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut runs: Vec<Vec<(Value, Value)>> = pairs.into_iter().map(|pair| vec![pair]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut queue = runs.into_iter();
        while let Some(left) = queue.next() {
            merged.push(match queue.next() {
                Some(right) => merge(state, left, right, reverse)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default().into_iter().map(|(_, item)| item).collect())
}

type Run = Vec<(Value, Value)>;

fn merge(state: &State, left: Run, right: Run, reverse: bool) -> Result<Run, Error> {
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let order = order(state, &b.0, &a.0, 0)?;
        let take_right = order == Some(if reverse { Ordering::Greater } else { Ordering::Less });
        out.extend(if take_right { right.next() } else { left.next() });
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}

pub(super) fn sort(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let (reverse, case_sensitive) = (args.flag(0, "reverse", false), args.flag(1, "case_sensitive", false));
    let path = args.get(2, "attribute");
    let pairs = keyed(state, items(state, &values[0])?, path.as_ref(), case_sensitive)?;
    Ok(list(sort_pairs(state, pairs, reverse)?))
}

pub(super) fn dictsort(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let Kind::Dict(dict) = kind(&values[0]) else { return Err(fail(format!("'{}' object has no items", type_name(&values[0])))) };
    charge(state, dict.len() * 4 * ITEM)?;
    let by = match args.string(1, "by")?.as_deref() {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return Err(fail("You can only sort by either \"key\" or \"value\"")),
    };
    let pairs = dict.pairs().into_iter().map(|(key, value)| Value::from(Tuple::from([key, value]))).collect();
    let pairs = keyed(state, pairs, Some(&Value::from(by)), args.flag(0, "case_sensitive", false))?;
    Ok(list(sort_pairs(state, pairs, args.flag(2, "reverse", false))?))
}

pub(super) fn unique(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let path = args.get(1, "attribute");
    let mut seen: Vec<Value> = Vec::new();
    let mut out = Vec::new();
    'items: for (key, item) in keyed(state, items(state, &values[0])?, path.as_ref(), args.flag(0, "case_sensitive", false))? {
        for other in &seen {
            if equal(state, other, &key, 0)? {
                continue 'items;
            }
        }
        seen.push(key);
        out.push(item);
    }
    Ok(list(out))
}

pub(super) fn extreme(state: &State, values: &[Value], wanted: Ordering) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let path = args.get(1, "attribute");
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(state, items(state, &values[0])?, path.as_ref(), args.flag(0, "case_sensitive", false))? {
        let better = match &best {
            None => true,
            Some((other, _)) => order(state, &key, other, 0)? == Some(wanted),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

/// Groups of items with one attribute, as pairs of the attribute and a list.
pub(super) fn groupby(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let path = args.required(0, "attribute")?;
    let case_sensitive = args.flag(2, "case_sensitive", false);
    let default = args.get(1, "default");
    let pairs = keyed(state, items(state, &values[0])?, Some(&path), case_sensitive)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    let mut last: Option<Value> = None;
    for item in sort_pairs(state, pairs, false)? {
        let key = key(state, &item, Some(&path), case_sensitive)?;
        let same = match &last {
            Some(last) => equal(state, last, &key, 0)?,
            None => false,
        };
        match groups.last_mut() {
            Some((_, group)) if same => group.push(item),
            _ => groups.push((attribute(state, &item, &path, default.as_ref())?, vec![item])),
        }
        last = Some(key);
    }
    new_list(state, groups.into_iter().map(|(key, group)| Value::from(Tuple::from([key, list(group)]))).collect())
}

pub(super) fn first(state: &State, values: &[Value]) -> Result<Value, Error> {
    match kind(&values[0]) {
        Kind::Str(_) | Kind::List(_) | Kind::Tuple(_) => get_item(state, &values[0], &Value::from(0)),
        _ => Ok(items(state, &values[0])?.first().cloned().unwrap_or_default()),
    }
}

pub(super) fn last(state: &State, values: &[Value]) -> Result<Value, Error> {
    match kind(&values[0]) {
        Kind::Str(_) | Kind::List(_) | Kind::Tuple(_) => get_item(state, &values[0], &Value::from(-1)),
        _ => Ok(items(state, &values[0])?.last().cloned().unwrap_or_default()),
    }
}

pub(super) fn sum(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let mut terms = items(state, &values[0])?;
    if let Some(path) = args.get(0, "attribute").filter(|path| !path.is_none()) {
        terms = attributes(state, &terms, &path, None)?;
    }
    let mut total = args.get(1, "start").unwrap_or_else(|| Value::from(0));
    for term in &terms {
        charge(state, 0)?;
        total = ops::add(state, &total, term)?;
    }
    Ok(total)
}

/// `batch(n, fill)`: rows of `n` items.
pub(super) fn batch(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let width = usize::try_from(int(&args.required(0, "linecount")?)?)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| fail("batch needs a positive size"))?;
    let fill = args.get(1, "fill_with").filter(|fill| !fill.is_none());
    let mut rows: Vec<Vec<Value>> = items(state, &values[0])?.chunks(width).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill, rows.last_mut()) {
        charge(state, width.saturating_mul(ITEM))?;
        last.resize(width, fill);
    }
    new_list(state, rows.into_iter().map(list).collect())
}

/// `slice(n, fill)`: `n` columns whose lengths differ by one at most.
pub(super) fn slice(state: &State, values: &[Value]) -> Result<Value, Error> {
    let args = Args::new(&values[1..]);
    let count =
        usize::try_from(int(&args.required(0, "slices")?)?).ok().filter(|n| *n > 0).ok_or_else(|| fail("slice needs a positive count"))?;
    charge(state, count.saturating_mul(2 * ITEM))?;
    let all = items(state, &values[0])?;
    let fill = args.get(1, "fill_with").filter(|fill| !fill.is_none());
    let (base, extra) = (all.len() / count, all.len() % count);
    let mut rest = all.as_slice();
    let mut columns = Vec::with_capacity(count);
    for column in 0..count {
        let (head, tail) = rest.split_at((base + usize::from(column < extra)).min(rest.len()));
        rest = tail;
        let mut head = head.to_vec();
        if column >= extra && extra > 0 {
            head.extend(fill.clone());
        }
        columns.push(list(head));
    }
    new_list(state, columns)
}
