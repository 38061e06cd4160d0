//! Keywords that llguidance does not know, written with those that it knows.
//!
//! Each rewriting is exact: the same values are valid before and after. Where there is none, the keyword is refused by name.

use serde_json::{Map, Value, json};

use super::{disjoint, formats, names, negate, reference, unique};

/// Keywords that are rewritten.
const REWRITTEN: [&str; 17] = [
    "format",
    "not",
    "if",
    "then",
    "else",
    "oneOf",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "patternProperties",
];
/// Keywords of which another place may evaluate properties or items.
const APPLICATORS: [&str; 12] =
    ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "contains"];
/// Maximum number of places that the item which `contains` asks for may have.
const MAX_CONTAINS: u64 = 64;

/// Why a keyword is refused: the keyword, and what about it is not supported; with an empty text, all of it.
pub struct Refused(pub &'static str, pub String);

/// `schema` without the keywords above; `None` if it has none of them.
///
/// # Errors
/// A keyword that cannot be rewritten exactly.
pub fn rewrite(root: &Value, schema: &Map<String, Value>) -> Result<Option<Map<String, Value>>, Refused> {
    let counted = ["minProperties", "maxProperties"].iter().any(|name| schema.contains_key(*name));
    if !counted && !REWRITTEN.iter().any(|name| schema.contains_key(*name)) {
        return Ok(None);
    }
    let kept =
        schema.iter().filter(|(name, _)| !REWRITTEN.contains(&name.as_str()) || matches!(name.as_str(), "oneOf" | "patternProperties"));
    let out = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut rewriter = Rewriter { root, schema, out, all: Vec::new() };
    rewriter.strings()?;
    rewriter.logic()?;
    rewriter.arrays()?;
    rewriter.objects()?;
    Ok(Some(rewriter.finish()))
}

struct Rewriter<'a> {
    root: &'a Value,
    schema: &'a Map<String, Value>,
    out: Map<String, Value>,
    /// What must hold besides.
    all: Vec<Value>,
}

impl Rewriter<'_> {
    fn finish(mut self) -> Map<String, Value> {
        if !self.all.is_empty() {
            match self.out.get_mut("allOf").and_then(Value::as_array_mut) {
                Some(all) => all.append(&mut self.all),
                None => drop(self.out.insert("allOf".to_owned(), Value::Array(self.all))),
            }
        }
        self.out
    }

    /// Whether values of this type may be valid, by the keyword `type`.
    fn may_be(&self, kind: &str) -> bool {
        match self.schema.get("type") {
            Some(Value::String(name)) => name == kind,
            Some(Value::Array(names)) => names.iter().any(|name| name == kind),
            _ => true,
        }
    }

    fn strings(&mut self) -> Result<(), Refused> {
        let Some(format) = self.schema.get("format") else { return Ok(()) };
        let name = format.as_str().ok_or_else(|| Refused("format", "is not a string".to_owned()))?;
        if !self.may_be("string") {
            return Ok(());
        }
        if let Some(most) = formats::max_length(name) {
            let most = self.schema.get("maxLength").and_then(whole).map_or(most, |given| given.min(most));
            self.out.insert("maxLength".to_owned(), most.into());
        }
        for regex in formats::regexes(name, self.out.get("maxLength").and_then(whole)).unwrap_or_default() {
            if self.out.contains_key("pattern") {
                self.all.push(json!({"type": "string", "pattern": regex}));
                if self.schema.get("type").is_none_or(|kind| kind != "string") {
                    let all = self.all.pop().unwrap_or_default();
                    self.all.push(json!({"anyOf": [all, {"type": ["null", "boolean", "number", "array", "object"]}]}));
                }
            } else {
                self.out.insert("pattern".to_owned(), Value::String(regex));
            }
        }
        Ok(())
    }

    fn logic(&mut self) -> Result<(), Refused> {
        if let Some(schema) = self.schema.get("not") {
            self.all.push(self.negate("not", schema)?);
        }
        if let Some(condition) = self.schema.get("if") {
            let branch = |name: &str| self.schema.get(name).cloned().unwrap_or(Value::Bool(true));
            let (then, other) = (branch("then"), branch("else"));
            if then != Value::Bool(true) || other != Value::Bool(true) {
                let not = self.negate("if", condition)?;
                self.all.push(json!({"anyOf": [{"allOf": [condition, then]}, {"allOf": [not, other]}]}));
            }
        }
        if let Some(Value::Array(branches)) = self.schema.get("oneOf")
            && let Some(any) = self.exclusive(branches)
        {
            self.out.remove("oneOf");
            self.all.push(json!({"anyOf": any}));
        }
        Ok(())
    }

    fn negate(&self, keyword: &'static str, schema: &Value) -> Result<Value, Refused> {
        let what = "with a schema whose opposite JSON Schema has no keywords for";
        negate::negate(self.root, schema, self.schema.get("type")).ok_or_else(|| Refused(keyword, what.to_owned()))
    }

    /// The branches of `oneOf`, each without the values of the others that it may share values with.
    fn exclusive(&self, branches: &[Value]) -> Option<Vec<Value>> {
        if branches.len() > 100 {
            return None;
        }
        let mut any = Vec::with_capacity(branches.len());
        for (index, branch) in branches.iter().enumerate() {
            let others =
                branches.iter().enumerate().filter(|(other, schema)| *other != index && !disjoint::are_disjoint(self.root, branch, schema));
            let known = target(self.root, branch).and_then(|branch| branch.get("type")).or_else(|| self.schema.get("type"));
            let opposites: Vec<Value> = others.map(|(_, other)| negate::negate(self.root, other, known)).collect::<Option<_>>()?;
            let all: Vec<Value> = std::iter::once(branch.clone()).chain(opposites).collect();
            any.push(if all.len() == 1 { branch.clone() } else { json!({"allOf": all}) });
        }
        Some(any)
    }

    fn arrays(&mut self) -> Result<(), Refused> {
        if !self.may_be("array") {
            return Ok(());
        }
        if let Some(contained) = self.schema.get("contains") {
            self.contains(contained)?;
        }
        match self.schema.get("uniqueItems") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => self.all.extend(unique::items(self.root, self.schema).map_err(|what| Refused("uniqueItems", what))?),
            Some(_) => return Err(Refused("uniqueItems", "is not true or false".to_owned())),
        }
        if let Some(schema) = self.schema.get("unevaluatedItems") {
            self.unevaluated("unevaluatedItems", "items", schema)?;
        }
        Ok(())
    }

    /// One of the first places has what is asked for: as many as there may be items.
    fn contains(&mut self, contained: &Value) -> Result<(), Refused> {
        let count = |name: &str| self.schema.get(name).map(|value| whole(value).ok_or(()));
        let bad = |name: &'static str| move |()| Refused(name, "is not an integer from 0".to_owned());
        let least = count("minContains").transpose().map_err(bad("minContains"))?.unwrap_or(1);
        let most = count("maxContains").transpose().map_err(bad("maxContains"))?;
        let items = count("maxItems").transpose().ok().flatten();
        if most.is_some_and(|most| items.is_none_or(|items| items > most)) {
            return Err(Refused("maxContains", "without maxItems of at most that number".to_owned()));
        }
        match least {
            0 => return Ok(()),
            1 => {}
            _ => return Err(Refused("minContains", format!("of {least}: only 0 and 1 are supported"))),
        }
        let items = items.filter(|items| *items <= MAX_CONTAINS);
        let items = items.ok_or_else(|| Refused("contains", format!("without maxItems of at most {MAX_CONTAINS}")))?;
        let place = |at: u64| {
            let mut prefix = vec![Value::Bool(true); at as usize];
            prefix.push(contained.clone());
            json!({"type": "array", "prefixItems": prefix, "minItems": at + 1})
        };
        let other = json!({"type": ["null", "boolean", "number", "string", "object"]});
        self.all.push(json!({"anyOf": (0..items).map(place).chain([other]).collect::<Vec<_>>()}));
        Ok(())
    }

    /// Where nothing but the schema itself evaluates anything, what is not evaluated is what is additional.
    fn unevaluated(&mut self, keyword: &'static str, plain: &str, schema: &Value) -> Result<(), Refused> {
        if schema == &Value::Bool(true) || self.schema.contains_key(plain) {
            return Ok(());
        }
        if APPLICATORS.iter().any(|name| self.schema.contains_key(*name)) {
            return Err(Refused(keyword, "next to keywords that combine schemas".to_owned()));
        }
        self.out.insert(plain.to_owned(), schema.clone());
        Ok(())
    }

    fn objects(&mut self) -> Result<(), Refused> {
        if !self.may_be("object") {
            return Ok(());
        }
        if let Some(schema) = self.schema.get("propertyNames") {
            let has_patterns = self.schema.contains_key("patternProperties");
            self.all.extend(names::property_names(self.root, schema, has_patterns).map_err(|what| Refused("propertyNames", what))?);
        }
        if let Some(schema) = self.schema.get("unevaluatedProperties") {
            self.unevaluated("unevaluatedProperties", "additionalProperties", schema)?;
        }
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            if let Some(value) = self.schema.get(keyword) {
                self.dependent(keyword, value)?;
            }
        }
        names::name_patterns(&mut self.out);
        self.all.extend(names::counted(&self.out));
        Ok(())
    }

    /// Either a property is missing, or what depends on it holds.
    fn dependent(&mut self, keyword: &'static str, value: &Value) -> Result<(), Refused> {
        let dependencies = value.as_object().ok_or_else(|| Refused(keyword, "is not an object".to_owned()))?;
        for (name, dependency) in dependencies {
            let follows = match dependency {
                Value::Array(names) if keyword != "dependentSchemas" => {
                    let mut required = vec![json!(name)];
                    required.extend(names.iter().filter(|other| *other != name).cloned());
                    json!({"required": required})
                }
                Value::Array(_) => return Err(Refused(keyword, "with a list".to_owned())),
                _ if keyword == "dependentRequired" => return Err(Refused(keyword, "without a list of names".to_owned())),
                schema => json!({"allOf": [{"required": [name]}, schema]}),
            };
            self.all.push(json!({"anyOf": [{"type": "object", "properties": {name: false}}, follows, {"type": ["null", "boolean", "number", "string", "array"]}]}));
        }
        Ok(())
    }
}

/// An integer from 0, which JSON may write as 2.0.
pub fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=9e15).contains(x)).map(|x| x as u64))
}

/// What a schema that is nothing but a reference leads to.
pub fn target<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    let Some(target) = reference::alone(schema) else { return Some(schema) };
    let pointer = reference::follow(root, &reference::pointer(target).ok()?).ok()?;
    reference::resolve(root, &pointer)
}
