//! `$ref`: JSON pointers (RFC 6901) into the schema itself. No other document is ever looked for.

use std::collections::HashSet;

use serde_json::Value;

use super::keywords;

/// The pointer of a reference, without percent escapes.
pub fn pointer(reference: &str) -> Result<String, String> {
    let refused = |why: &str| format!("$ref {:?}: {why}", reference.chars().take(100).collect::<String>());
    let fragment = reference.strip_prefix('#').ok_or_else(|| refused("other documents are not looked for"))?;
    let fragment = unescape_percent(fragment).ok_or_else(|| refused("no valid percent escapes"))?;
    match fragment.as_str() {
        "" => Ok("#".to_owned()),
        path if path.starts_with('/') => Ok(format!("#{path}")),
        _ => Err(refused("anchors are not supported, only pointers such as #/$defs/name")),
    }
}

/// The target of a pointer.
pub fn resolve<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    root.pointer(pointer.strip_prefix('#')?)
}

/// Where a pointer leads when schemas that are nothing but a reference are followed.
pub fn follow(root: &Value, pointer: &str) -> Result<String, String> {
    let mut seen = HashSet::new();
    let mut at = pointer.to_owned();
    loop {
        let target = resolve(root, &at).ok_or_else(|| format!("$ref: there is nothing at {at}"))?;
        let Some(next) = alone(target) else { return Ok(at) };
        if !seen.insert(at) {
            return Err(format!("$ref: {pointer} refers to nothing but itself"));
        }
        at = self::pointer(next)?;
    }
}

/// The reference that a schema consists of.
pub fn alone(schema: &Value) -> Option<&str> {
    let schema = schema.as_object()?;
    let silent = |name: &String| name == "$ref" || keywords::is_annotation(name);
    schema.get("$ref").and_then(Value::as_str).filter(|_| schema.keys().all(silent))
}

/// A name as a part of a pointer.
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

pub fn unescape_percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let value = digits.map(|digit| char::from(digit).to_digit(16));
            bytes.push((value[0]? * 16 + value[1]?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
