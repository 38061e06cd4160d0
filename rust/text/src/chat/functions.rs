//! Functions that every template has.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::args::{Args, int};
use super::error::{Limit, fail, limit, raised};
use super::objects::{Cycler, Joiner};
use super::text::to_str;
use super::value::{ITEM, Kind, charge, check_data, items, kind, list, new_dict};

/// A filter, helper or method: the subject comes first.
pub(super) type Func = fn(&State, &[Value]) -> Result<Value, Error>;

/// Longest `range`, as in Jinja2's sandbox.
const MAX_RANGE: i128 = 100_000;

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_function("range", |state: &State, args: Rest<ValueOrKwargs>| range(state, &args.into_values()));
    env.add_function("raise_exception", |state: &State, message: Value| -> Result<Value, Error> { Err(raised(to_str(state, &message)?)) });
    env.add_function("dict", |state: &State, args: Rest<ValueOrKwargs>| dict(state, &args.into_values()));
    env.add_function("joiner", |args: Rest<ValueOrKwargs>| Joiner::value(&args.into_values()));
    env.add_function("cycler", |args: Rest<ValueOrKwargs>| Cycler::value(&args.into_values()));
    env.add_function("namespace", |state: &State, args: Rest<ValueOrKwargs>| namespace(state, &args.into_values()));
}

fn range(state: &State, args: &[Value]) -> Result<Value, Error> {
    let numbers = args.iter().map(int).collect::<Result<Vec<_>, _>>()?;
    let (start, stop, step) = match *numbers.as_slice() {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        [_, _, _] => return Err(fail("range() arg 3 must not be zero")),
        _ => return Err(fail("range expects one to three arguments")),
    };
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = if step > 0 { stop - start } else { start - stop };
    let len = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    if len > MAX_RANGE {
        return Err(limit(Limit::Range));
    }
    charge(state, len as usize * ITEM)?;
    Ok(list((0..len).map(|i| Value::from((start + i * step) as i64)).collect()))
}

/// The pairs of `dict(…)` and `namespace(…)`: those of a mapping or of a list of pairs, then the named ones.
fn pairs(state: &State, args: &[Value]) -> Result<Vec<(Value, Value)>, Error> {
    let args = Args::new(args);
    let mut pairs = Vec::new();
    if let Some(base) = args.get(0, "") {
        if let Kind::Dict(dict) = kind(&base) {
            charge(state, dict.len() * 2 * ITEM)?;
            pairs = dict.pairs();
        } else {
            for pair in items(state, &base)? {
                match items(state, &pair)?.as_slice() {
                    [key, value] => pairs.push((key.clone(), value.clone())),
                    _ => return Err(fail("dict expects a mapping or pairs")),
                }
            }
        }
    }
    pairs.extend(args.named());
    Ok(pairs)
}

fn dict(state: &State, args: &[Value]) -> Result<Value, Error> {
    new_dict(state, pairs(state, args)?)
}

/// A namespace may hold data only: then none contains itself.
fn namespace(state: &State, args: &[Value]) -> Result<Value, Error> {
    let pairs = pairs(state, args)?;
    charge(state, pairs.len() * 2 * ITEM)?;
    pairs.iter().try_for_each(|(_, value)| check_data(state, value, 1))?;
    let values = Value::from_pairs(pairs);
    Value::from_function(minijinja::functions::namespace).call(&mut state.env().empty_state(), &[values])
}
