//! Identifiers within a schema: every reference becomes a JSON pointer from the root.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::reference;

/// Keywords whose values are no schemas, and hold data.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];
/// Keywords whose values are objects of schemas by name.
const BY_NAME: [&str; 6] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// A copy of `root` in which references to an `$id` or an `$anchor`, and those that are relative to an inner `$id`, are pointers.
pub fn local(root: &Value) -> Value {
    let old = root.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04") || draft.contains("draft-03"));
    let mut resources = Resources { identifier: if old { "id" } else { "$id" }, names: HashMap::new(), inner: false };
    resources.collect(root, "#", "#", "");
    let mut root = root.clone();
    if resources.inner || !resources.names.is_empty() {
        resources.replace(&mut root, "#", "#", "");
    }
    root
}

struct Resources {
    identifier: &'static str,
    /// The pointer of every identifier, and of every anchor with its resource before it.
    names: HashMap<String, String>,
    /// Whether there is an identifier below the root.
    inner: bool,
}

impl Resources {
    /// The pointer and the URI of the resource that begins with this schema, if one does.
    fn resource<'a>(&self, schema: &'a Map<String, Value>) -> Option<&'a str> {
        schema.get(self.identifier).and_then(Value::as_str).filter(|id| !id.is_empty() && !id.starts_with('#'))
    }

    fn collect(&mut self, schema: &Value, place: &str, base: &str, uri: &str) {
        let Value::Object(object) = schema else { return };
        let (mut base, mut uri) = (base.to_owned(), uri.to_owned());
        if let Some(id) = self.resource(object) {
            self.inner |= place != "#";
            uri = resolve(&uri, id.trim_end_matches('#'));
            place.clone_into(&mut base);
            self.names.entry(uri.clone()).or_insert_with(|| place.to_owned());
        }
        let anchors = ["$anchor", "$dynamicAnchor"].into_iter().filter_map(|name| object.get(name)?.as_str());
        let old = object.get(self.identifier).and_then(Value::as_str).and_then(|id| id.strip_prefix('#'));
        for anchor in anchors.chain(old).filter(|anchor| !anchor.is_empty()) {
            self.names.entry(format!("{base} {anchor}")).or_insert_with(|| place.to_owned());
        }
        for_each_schema(object, place, &mut |inner, place| self.collect(inner, place, &base, &uri));
    }

    fn replace(&self, schema: &mut Value, place: &str, base: &str, uri: &str) {
        let Value::Object(object) = schema else { return };
        let (mut base, mut uri) = (base.to_owned(), uri.to_owned());
        if let Some(id) = self.resource(object) {
            uri = resolve(&uri, id.trim_end_matches('#'));
            place.clone_into(&mut base);
        }
        if let Some(Value::String(target)) = object.get_mut("$ref")
            && let Some(pointer) = self.pointer(target, &base, &uri)
        {
            *target = pointer.replace('%', "%25");
        }
        for_each_schema_mut(object, place, &mut |inner, place| self.replace(inner, place, &base, &uri));
    }

    /// The pointer of a reference; `None` if it is one already, or leads out of the schema.
    fn pointer(&self, target: &str, base: &str, uri: &str) -> Option<String> {
        let (document, fragment) = target.split_once('#').unwrap_or((target, ""));
        let start = if document.is_empty() { base } else { self.names.get(&resolve(uri, document))? };
        if fragment.is_empty() {
            return Some(start.to_owned());
        }
        if fragment.starts_with('/') {
            return Some(format!("{start}{}", reference::unescape_percent(fragment)?));
        }
        self.names.get(&format!("{start} {fragment}")).cloned()
    }
}

/// An identifier relative to the URI of what it is in.
fn resolve(base: &str, id: &str) -> String {
    let has_scheme = id.split_once(':').is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains('/'));
    let authority = base.find("://").map_or(0, |at| at + 3);
    if has_scheme || base.is_empty() {
        id.to_owned()
    } else if id.starts_with('/') {
        let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
        format!("{}{id}", &base[..end])
    } else {
        base[authority..].rfind('/').map_or_else(|| format!("{base}/{id}"), |at| format!("{}{id}", &base[..=authority + at]))
    }
}

fn for_each_schema(object: &Map<String, Value>, place: &str, visit: &mut dyn FnMut(&Value, &str)) {
    for (keyword, value) in object.iter().filter(|(keyword, _)| !DATA.contains(&keyword.as_str())) {
        let place = format!("{place}/{}", reference::escape(keyword));
        match value {
            Value::Object(named) if BY_NAME.contains(&keyword.as_str()) => {
                named.iter().for_each(|(name, inner)| visit(inner, &format!("{place}/{}", reference::escape(name))));
            }
            Value::Array(list) => list.iter().enumerate().for_each(|(index, inner)| visit(inner, &format!("{place}/{index}"))),
            inner => visit(inner, &place),
        }
    }
}

fn for_each_schema_mut(object: &mut Map<String, Value>, place: &str, visit: &mut dyn FnMut(&mut Value, &str)) {
    for (keyword, value) in object.iter_mut().filter(|(keyword, _)| !DATA.contains(&keyword.as_str())) {
        let place = format!("{place}/{}", reference::escape(keyword));
        match value {
            Value::Object(named) if BY_NAME.contains(&keyword.as_str()) => {
                named.iter_mut().for_each(|(name, inner)| visit(inner, &format!("{place}/{}", reference::escape(name))));
            }
            Value::Array(list) => list.iter_mut().enumerate().for_each(|(index, inner)| visit(inner, &format!("{place}/{index}"))),
            inner => visit(inner, &place),
        }
    }
}
