//! Python's string operations, for filters and methods alike. Results that can be longer than the subject are charged as they grow.

use std::collections::BTreeSet;

use minijinja::{Error, State, Value};

use super::args::Args;
use super::error::fail;
use super::text::Text;
use super::value::{ITEM, charge, list};

/// `str.replace(old, new, count)`; a negative count is no limit.
pub(super) fn replace(state: &State, text: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let mut out = Text::new(state);
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    let mut last = 0;
    for (at, found) in text.match_indices(old) {
        if left == 0 {
            break;
        }
        left -= 1;
        charge(state, 0)?;
        out.push(&text[last..at])?;
        out.push(new)?;
        last = at + found.len();
    }
    out.push(&text[last..])?;
    Ok(out.finish())
}

/// `str.split(sep, maxsplit)` and `str.rsplit`; without a separator, runs of white space separate.
pub(super) fn split(state: &State, text: &str, args: &Args<'_>, from_right: bool) -> Result<Value, Error> {
    let separator = args.string(0, "sep")?;
    let max = args.int(1, "maxsplit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = Vec::new();
    charge(state, text.len())?;
    match separator.as_deref() {
        Some("") => return Err(fail("empty separator")),
        Some(separator) if from_right => {
            parts.extend(text.rsplitn(max.saturating_add(1), separator));
            parts.reverse();
        }
        Some(separator) => parts.extend(text.splitn(max.saturating_add(1), separator)),
        None => split_space(text, max, from_right, &mut parts),
    }
    charge(state, parts.len() * ITEM)?;
    Ok(list(parts.into_iter().map(Value::from).collect()))
}

fn split_space<'t>(text: &'t str, max: usize, from_right: bool, parts: &mut Vec<&'t str>) {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = cut.filter(|_| parts.len() < max) else {
            // What is left over keeps the white space at its far end, as in Python.
            let start = rest.as_ptr() as usize - text.as_ptr() as usize;
            parts.push(if from_right { text[..start + rest.len()].trim_end() } else { &text[start..] });
            break;
        };
        let width = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (head, tail) = (&rest[..at], &rest[at + width..]);
        if from_right {
            parts.push(tail);
            rest = head.trim_end();
        } else {
            parts.push(head);
            rest = tail.trim_start();
        }
    }
    // A tail of white space alone is no part.
    if !from_right
        && parts.len() <= max
        && let Some(last) = parts.last_mut()
    {
        *last = last.trim_end();
    }
    if from_right {
        parts.reverse();
    }
}

/// Which ends are stripped.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Both,
    Left,
    Right,
}

/// `str.strip(chars)` and its one-sided forms.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&str>, ends: Ends) -> &'t str {
    // A set, so that long lists of characters cost no more than short ones.
    let set: Option<BTreeSet<char>> = chars.map(|chars| chars.chars().collect());
    let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let text = if ends == Ends::Right { text } else { text.trim_start_matches(strips) };
    if ends == Ends::Left { text } else { text.trim_end_matches(strips) }
}

/// Python's white space: Unicode's and the four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.title()`: a capital wherever a letter follows something else.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// The filter `title`: a capital at the beginning of each word, after white space, hyphens and opening brackets.
pub(super) fn title_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = !(is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<'));
    }
    out
}

/// `str.capitalize()`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

/// `str.splitlines(keepends)`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep_ends { &rest[..end] } else { &rest[..at] });
        rest = &rest[end..];
    }
    lines
}

/// The parts of `str.ljust`, `rjust`, `center` and `zfill`: text and fill on both sides.
pub(super) fn pad(state: &State, text: &str, width: i64, fill: &str, ends: Ends) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(fail("the fill character must be exactly one character long"));
    }
    let width = usize::try_from(width).unwrap_or(0);
    let len = text.chars().count();
    let missing = width.saturating_sub(len);
    let left = match ends {
        Ends::Left => missing,
        Ends::Right => 0,
        Ends::Both => missing / 2 + (missing & width & 1),
    };
    let mut out = Text::new(state);
    out.repeat(fill, left)?;
    out.push(text)?;
    out.repeat(fill, missing - left)?;
    Ok(out.finish())
}

/// `filter indent`: every line but the first, and not the empty ones unless told.
pub(super) fn indent(state: &State, text: &str, indent: &str, first: bool, blank: bool) -> Result<String, Error> {
    let mut out = Text::new(state);
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push("\n")?;
        }
        if (i > 0 || first) && (blank || !line.is_empty()) {
            out.push(indent)?;
        }
        out.push(line)?;
    }
    Ok(out.finish())
}
