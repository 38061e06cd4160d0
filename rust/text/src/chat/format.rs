//! `%` formatting and `str.format`.

use minijinja::{Error, State, Value};

use super::args::int;
use super::error::fail;
use super::ops::get_item;
use super::text::Text;
use super::value::{Kind, kind, type_name};

/// How one value is laid out.
#[derive(Debug, Default, Clone)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    plus: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    conversion: char,
}

/// More digits than this are no number that anyone prints.
const MAX_PRECISION: usize = 350;

/// `template % value`; a safe template makes a safe string, with escapes in what it shows.
pub(super) fn percent(state: &State, template: &str, value: &Value, safe: bool) -> Result<Value, Error> {
    let positional: Vec<Value> = match kind(value) {
        Kind::Tuple(items) => items.to_vec(),
        _ => vec![value.clone()],
    };
    let mut next = positional.iter();
    let mut out = Text::new(state);
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some(tail) = rest.strip_prefix('(') {
            let (name, tail) = tail.split_once(')').ok_or_else(|| fail("incomplete format key"))?;
            named = Some(get_item(state, value, &Value::from(name))?);
            rest = tail;
        }
        let mut spec = Spec::default();
        rest = flags(rest, &mut spec);
        let mut take = || named.clone().or_else(|| next.next().cloned()).ok_or_else(|| fail("not enough arguments for format string"));
        if let Some(tail) = rest.strip_prefix('*') {
            spec.width = usize::try_from(int(&take()?)?).unwrap_or(0);
            rest = tail;
        } else {
            (spec.width, rest) = digits(rest);
        }
        if let Some(tail) = rest.strip_prefix('.') {
            let (precision, tail) = digits(tail);
            spec.precision = Some(precision);
            rest = tail;
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let conversion = rest.chars().next().ok_or_else(|| fail("incomplete format"))?;
        rest = &rest[conversion.len_utf8()..];
        if conversion == '%' {
            out.push("%")?;
            continue;
        }
        spec.conversion = conversion;
        let mut shown = take()?;
        if safe && matches!(conversion, 's' | 'r' | 'a') {
            let mut escaped = Text::new(state);
            escaped.markup(&shown)?;
            shown = Value::from(escaped.finish());
        }
        write(&mut out, state, &shown, &spec)?;
    }
    out.push(rest)?;
    if next.next().is_some() && !matches!(kind(value), Kind::Dict(_)) {
        return Err(fail("not all arguments converted during string formatting"));
    }
    Ok(super::value::text(out.finish(), safe))
}

fn flags<'s>(mut rest: &'s str, spec: &mut Spec) -> &'s str {
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => spec.align = Some('<'),
            '0' => spec.zero = true,
            '+' => spec.plus = Some('+'),
            ' ' => spec.plus = spec.plus.or(Some(' ')),
            '#' => spec.alternate = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    rest
}

fn digits(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let value = if end == 0 { 0 } else { text[..end].parse().unwrap_or(usize::MAX) };
    (value, &text[end..])
}

/// `template.format(*args, **kwargs)`.
pub(super) fn braces(state: &State, template: &str, args: &super::args::Args<'_>) -> Result<Value, Error> {
    let mut out = Text::new(state);
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix(brace) {
            out.push(brace)?;
            rest = tail;
            continue;
        }
        if brace == "}" {
            return Err(fail("Single '}' encountered in format string"));
        }
        let (field, tail) = rest.split_once('}').ok_or_else(|| fail("expected '}' before end of string"))?;
        rest = tail;
        if field.contains('{') {
            return Err(fail("nested fields in a format string are not supported"));
        }
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
        let value = field_value(state, name, args, &mut next)?;
        let mut spec = parse_spec(spec)?;
        if matches!(conversion, "r" | "a") {
            spec.conversion = 'r';
            spec.align = spec.align.or(Some('<'));
        }
        write(&mut out, state, &value, &spec)?;
    }
    out.push(rest)?;
    Ok(Value::from(out.finish()))
}

/// The value of `name`, `0`, or the next one, with `.attribute` and `[item]` after it.
fn field_value(state: &State, path: &str, args: &super::args::Args<'_>, next: &mut usize) -> Result<Value, Error> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, mut rest) = path.split_at(end);
    let mut value = if name.is_empty() {
        *next += 1;
        args.get(*next - 1, "")
    } else if let Ok(index) = name.parse::<usize>() {
        args.get(index, "")
    } else {
        args.get(usize::MAX, name)
    }
    .ok_or_else(|| fail(format!("no argument for the field {{{name}}}")))?;
    while !rest.is_empty() {
        let key;
        (key, rest) = if let Some(tail) = rest.strip_prefix('[') {
            tail.split_once(']').ok_or_else(|| fail("missing ']' in format string"))?
        } else {
            let tail = &rest[1..];
            tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()))
        };
        let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
        value = get_item(state, &value, &key)?;
    }
    Ok(value)
}

fn parse_spec(text: &str) -> Result<Spec, Error> {
    let mut spec = Spec::default();
    let mut rest = text;
    let mut chars = text.chars();
    let (first, second) = (chars.next(), chars.next());
    if let (Some(fill), Some(align @ ('<' | '>' | '^' | '='))) = (first, second) {
        (spec.fill, spec.align) = (Some(fill), Some(align));
        rest = &rest[fill.len_utf8() + 1..];
    } else if let Some(align @ ('<' | '>' | '^' | '=')) = first {
        spec.align = Some(align);
        rest = &rest[1..];
    }
    if let Some(sign @ ('+' | '-' | ' ')) = rest.chars().next() {
        spec.plus = (sign != '-').then_some(sign);
        rest = &rest[1..];
    }
    if let Some(tail) = rest.strip_prefix('#') {
        (spec.alternate, rest) = (true, tail);
    }
    if let Some(tail) = rest.strip_prefix('0') {
        (spec.zero, rest) = (true, tail);
    }
    (spec.width, rest) = digits(rest);
    if let Some(tail) = rest.strip_prefix(',') {
        (spec.comma, rest) = (true, tail);
    }
    if let Some(tail) = rest.strip_prefix('.') {
        let (precision, tail) = digits(tail);
        (spec.precision, rest) = (Some(precision), tail);
    }
    let mut chars = rest.chars();
    spec.conversion = chars.next().filter(|c| *c != 's').unwrap_or('\0');
    if chars.next().is_some() { Err(fail(format!("invalid format specifier '{text}'"))) } else { Ok(spec) }
}

/// Lays out one value; padding is charged before it is written.
fn write(out: &mut Text<'_, '_, '_>, state: &State, value: &Value, spec: &Spec) -> Result<(), Error> {
    let numeric = matches!(spec.conversion, 'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'b' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G')
        || (spec.conversion == '\0' && matches!(kind(value), Kind::Int(_) | Kind::Float(_)));
    let (sign, body) = if numeric { number(value, spec)? } else { (String::new(), text(state, value, spec)?) };
    let pad = spec.width.saturating_sub(sign.chars().count() + body.chars().count());
    let zero = spec.zero && spec.align.is_none();
    let fill = spec.fill.unwrap_or(if zero { '0' } else { ' ' });
    // `%5s` puts text at the right, `{:5}` at the left: `format` passes no conversion.
    let align = spec.align.unwrap_or(match spec.conversion {
        _ if zero && numeric => '=',
        '\0' if !numeric => '<',
        _ => '>',
    });
    let (left, middle, right) = match align {
        '<' => (0, 0, pad),
        '^' => (pad / 2, 0, pad - pad / 2),
        '=' => (0, pad, 0),
        _ => (pad, 0, 0),
    };
    let fill = fill.to_string();
    out.repeat(&fill, left)?;
    out.push(&sign)?;
    out.repeat(&fill, middle)?;
    out.push(&body)?;
    out.repeat(&fill, right)
}

fn text(state: &State, value: &Value, spec: &Spec) -> Result<String, Error> {
    let mut text = Text::new(state);
    match spec.conversion {
        's' | '\0' => text.str(value)?,
        'r' | 'a' => text.repr(value)?,
        'c' => match kind(value) {
            Kind::Int(code) => text.push(
                u32::try_from(code).ok().and_then(char::from_u32).map(String::from).ok_or_else(|| fail("%c arg not in range"))?.as_str(),
            )?,
            _ => text.str(value)?,
        },
        other => return Err(fail(format!("unsupported format character '{other}'"))),
    }
    let text = text.finish();
    Ok(match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    })
}

/// Sign and digits of a number.
fn number(value: &Value, spec: &Spec) -> Result<(String, String), Error> {
    let precision = spec.precision.unwrap_or(6);
    if precision > MAX_PRECISION {
        return Err(fail("precision too large"));
    }
    let (int, float) = match kind(value) {
        Kind::Bool(flag) => (i128::from(flag), f64::from(u8::from(flag))),
        Kind::Int(int) => (int, int as f64),
        Kind::Float(float) => (float as i128, float),
        _ => return Err(fail(format!("%{} format: a number is required, not {}", spec.conversion, type_name(value)))),
    };
    let plain_float = spec.conversion == '\0' && matches!(kind(value), Kind::Float(_));
    let negative = if matches!(kind(value), Kind::Float(_)) { float < 0.0 } else { int < 0 };
    let magnitude = float.abs();
    let body = match spec.conversion {
        'x' => format!("{}{:x}", if spec.alternate { "0x" } else { "" }, int.unsigned_abs()),
        'X' => format!("{}{:X}", if spec.alternate { "0X" } else { "" }, int.unsigned_abs()),
        'o' => format!("{}{:o}", if spec.alternate { "0o" } else { "" }, int.unsigned_abs()),
        'b' => format!("{}{:b}", if spec.alternate { "0b" } else { "" }, int.unsigned_abs()),
        'f' | 'F' => format!("{magnitude:.precision$}"),
        'e' => exponent(magnitude, precision),
        'E' => exponent(magnitude, precision).to_uppercase(),
        'g' | 'G' => general(magnitude, precision.max(1)),
        _ if plain_float && spec.precision.is_some() => general(magnitude, precision.max(1)),
        _ if plain_float => super::text::float_repr(magnitude),
        _ => int.unsigned_abs().to_string(),
    };
    let body = if spec.comma { group(&body) } else { body };
    let sign = if negative { "-".to_owned() } else { spec.plus.map(String::from).unwrap_or_default() };
    Ok((sign, body))
}

fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

fn general(value: f64, precision: usize) -> String {
    let scientific = exponent(value, precision - 1);
    let Some((digits, power)) = scientific.split_once('e') else { return scientific };
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() };
    if power < -4 || power >= precision as i32 {
        format!("{}e{}{:02}", trim(digits), if power < 0 { '-' } else { '+' }, power.unsigned_abs())
    } else {
        let decimals = usize::try_from(precision as i32 - 1 - power).unwrap_or(0);
        trim(&format!("{value:.decimals$}"))
    }
}

/// Commas between thousands.
fn group(body: &str) -> String {
    let end = body.find('.').unwrap_or(body.len());
    let mut out = String::new();
    for (i, c) in body[..end].chars().enumerate() {
        if i > 0 && (end - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + &body[end..]
}
