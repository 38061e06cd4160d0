//! Keywords about the names and the number of properties.

use llguidance::regex_to_lark;
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::{Map, Value, json};

use super::rewrite::{target, whole};
use super::{formats, keywords};

/// Maximum number of names that a pattern is written as.
const MAX_NAMES: usize = 64;
/// Maximum number of optional properties whose combinations are listed, and of these combinations.
const MAX_OPTIONAL: usize = 12;
const MAX_COMBINATIONS: usize = 500;

/// What `propertyNames` asks for, as constraints on an object.
pub fn property_names(root: &Value, schema: &Value, has_patterns: bool) -> Result<Vec<Value>, String> {
    let schema = target(root, schema).ok_or_else(|| "with a reference that leads nowhere".to_owned())?;
    let schema = match schema {
        Value::Bool(true) => return Ok(Vec::new()),
        Value::Bool(false) => return Ok(vec![json!({"maxProperties": 0})]),
        Value::Object(schema) => schema,
        _ => return Err("that is not a schema".to_owned()),
    };
    let mut patterns = Vec::new();
    let mut all = Vec::new();
    let listed = |names: &[Value]| {
        let open: Map<String, Value> = names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), Value::Bool(true))).collect();
        json!({"properties": open, "additionalProperties": false})
    };
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("type", value) if value == "string" || value.as_array().is_some_and(|types| types.iter().any(|name| name == "string")) => {}
            ("type", _) => all.push(json!({"maxProperties": 0})),
            ("enum", Value::Array(names)) => all.push(listed(names)),
            ("const", name) => all.push(listed(std::slice::from_ref(name))),
            ("pattern", Value::String(regex)) => patterns.push(regex.clone()),
            ("format", Value::String(name)) => patterns.extend(formats::regexes(name, None).unwrap_or_default()),
            ("minLength" | "maxLength", _) => {}
            ("not", Value::Object(not)) if not.len() == 1 => {
                let names = match (not.get("enum"), not.get("const")) {
                    (Some(Value::Array(names)), _) => names.as_slice(),
                    (_, Some(name)) => std::slice::from_ref(name),
                    _ => return Err("with \"not\" of more than names".to_owned()),
                };
                let shut: Map<String, Value> =
                    names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), Value::Bool(false))).collect();
                all.push(json!({"properties": shut}));
            }
            (name, _) if keywords::is_annotation(name) => {}
            (name, _) => return Err(format!("with {name:?}")),
        }
    }
    let length = |name: &str| {
        schema.get(name).map(|value| whole(value).ok_or_else(|| format!("with {name} that is not an integer from 0"))).transpose()
    };
    let of_format = schema.get("format").and_then(Value::as_str).and_then(formats::max_length);
    let (least, most) = (length("minLength")?.unwrap_or(0), length("maxLength")?.or(of_format));
    if least > 0 || most.is_some() {
        patterns.push(format!("^(?s:.{{{least},{}}})$", most.map_or(String::new(), |most| most.to_string())));
    }
    if !patterns.is_empty() && has_patterns {
        return Err("with a pattern, next to patternProperties".to_owned());
    }
    if patterns.len() > 1 {
        return Err("with more than one of pattern, format and length".to_owned());
    }
    all.extend(patterns.iter().map(|regex| json!({"patternProperties": {regex: true}, "additionalProperties": false})));
    Ok(all)
}

/// Writes patterns that only a few names match as properties with these names: a declared property then has both schemas, and no
/// pattern is left that no other name matches.
pub fn name_patterns(schema: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = schema.get("patternProperties") else { return };
    let found: Vec<(String, Vec<String>)> = patterns
        .keys()
        .filter_map(|regex| Some((regex.clone(), matching_names(regex).filter(|names| names.len() <= MAX_NAMES)?)))
        .collect();
    for (regex, names) in found {
        let Some(Value::Object(patterns)) = schema.get_mut("patternProperties") else { return };
        let Some(value) = patterns.shift_remove(&regex) else { continue };
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        let Value::Object(properties) = properties else { continue };
        for name in names {
            let both = match properties.get(&name) {
                Some(declared) => json!({"allOf": [declared, value]}),
                None => value.clone(),
            };
            properties.insert(name, both);
        }
    }
    if schema.get("patternProperties").is_some_and(|patterns| patterns.as_object().is_some_and(Map::is_empty)) {
        schema.shift_remove("patternProperties");
    }
}

/// All names that a pattern matches, if they are few.
fn matching_names(regex: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(&regex_to_lark(regex, "dw")).ok()?;
    let mut names = anchored(&hir)?;
    names.sort();
    names.dedup();
    Some(names)
}

/// The texts of a regex with both anchors.
fn anchored(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Capture(capture) => anchored(&capture.sub),
        HirKind::Alternation(options) => join(options.iter().map(anchored)),
        HirKind::Concat(parts) => {
            let (first, rest) = parts.split_first()?;
            let (last, inner) = rest.split_last()?;
            let is = |hir: &Hir, look: Look| matches!(hir.kind(), HirKind::Look(found) if *found == look);
            if is(first, Look::Start) && is(last, Look::End) { sequence(inner) } else { None }
        }
        _ => None,
    }
}

fn join(options: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for texts in options {
        all.extend(texts?);
        if all.len() > MAX_NAMES {
            return None;
        }
    }
    Some(all)
}

fn sequence(parts: &[Hir]) -> Option<Vec<String>> {
    parts.iter().try_fold(vec![String::new()], |texts, part| product(&texts, &texts_of(part)?))
}

fn product(firsts: &[String], seconds: &[String]) -> Option<Vec<String>> {
    if firsts.len() * seconds.len() > MAX_NAMES {
        return None;
    }
    Some(firsts.iter().flat_map(|first| seconds.iter().map(move |second| format!("{first}{second}"))).collect())
}

fn texts_of(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|range| range.end() as usize - range.start() as usize + 1).sum();
            let chars = || class.ranges().iter().flat_map(|range| range.start()..=range.end());
            (count <= MAX_NAMES).then(|| chars().map(String::from).collect())
        }
        HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => {
            let ascii = class.ranges().iter().all(|range| range.end() < 128);
            let bytes: Vec<u8> = class.ranges().iter().flat_map(|range| range.start()..=range.end()).collect();
            (ascii && bytes.len() <= MAX_NAMES).then(|| bytes.into_iter().map(|b| char::from(b).to_string()).collect())
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.filter(|most| *most <= MAX_NAMES as u32)?;
            let part = texts_of(&repetition.sub)?;
            let mut all = Vec::new();
            let mut texts = vec![String::new()];
            for times in 0..=most {
                if times >= repetition.min {
                    all.extend(texts.iter().cloned());
                }
                if all.len() > MAX_NAMES {
                    return None;
                }
                if times < most {
                    texts = product(&texts, &part)?;
                }
            }
            Some(all)
        }
        HirKind::Capture(capture) => texts_of(&capture.sub),
        HirKind::Concat(parts) => sequence(parts),
        HirKind::Alternation(options) => join(options.iter().map(texts_of)),
        HirKind::Look(_) => None,
    }
}

/// For a closed object with optional properties and a bound on their number: the combinations of properties that keep it.
pub fn counted(schema: &Map<String, Value>) -> Option<Value> {
    let bound = |name: &str| schema.get(name).and_then(whole);
    let (least, most) = (bound("minProperties").unwrap_or(0), bound("maxProperties").unwrap_or(u64::MAX));
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties");
    let properties = schema.get("properties")?.as_object()?;
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let optional: Vec<&String> = properties.keys().filter(|name| !required.contains(&name.as_str())).collect();
    let given = schema.contains_key("minProperties") || schema.contains_key("maxProperties");
    if !closed || !given || optional.is_empty() || optional.len() > MAX_OPTIONAL {
        return None;
    }
    let count = |set: &u32| required.len() as u64 + u64::from(set.count_ones());
    let sets: Vec<u32> = (0u32..1 << optional.len()).filter(|set| (least..=most).contains(&count(set))).collect();
    if sets.len() > MAX_COMBINATIONS {
        return None;
    }
    let combination = |set: u32| {
        let there = |index: usize| set >> index & 1 == 1;
        let names: Vec<&String> = optional.iter().enumerate().filter(|(index, _)| there(*index)).map(|(_, name)| *name).collect();
        let shut: Map<String, Value> = optional
            .iter()
            .enumerate()
            .filter(|(index, _)| !there(*index))
            .map(|(_, name)| ((*name).clone(), Value::Bool(false)))
            .collect();
        json!({"type": "object", "properties": shut, "required": names})
    };
    let other = json!({"type": ["null", "boolean", "number", "string", "array"]});
    Some(json!({"anyOf": sets.into_iter().map(combination).chain([other]).collect::<Vec<_>>()}))
}
