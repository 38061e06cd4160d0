use super::*;

fn prepared(schema: &Value) -> Value {
    let mut prepared = prepare_value(schema).unwrap();
    prepared.as_object_mut().unwrap().remove("x-guidance");
    prepared
}

#[track_caller]
fn fails(schema: &Value, part: &str) {
    match prepare_value(schema) {
        Err(error) => assert!(error.to_string().contains(part), "{schema}: {error}"),
        Ok(prepared) => panic!("{schema} became {prepared}"),
    }
}

#[test]
fn references_become_definitions() {
    let schema = json!({
        "title": "t",
        "properties": {"a": {"$ref": "#/$defs/x~1y"}, "b": {"$ref": "#/properties/c"}, "c": {"type": "null"}, "d": {"$ref": "#/$defs/alias"}, "e": {"$ref": "#"}},
        "$defs": {"x/y": {"type": "string", "description": "d"}, "alias": {"$ref": "#/%24defs/x~1y"}, "unused": {"not": {}}},
    });
    let expected = json!({
        "properties": {"a": {"$ref": "#/$defs/0"}, "b": {"$ref": "#/$defs/1"}, "c": {"type": "null"}, "d": {"$ref": "#/$defs/0"}, "e": {"$ref": "#"}},
        "$defs": {"1": {"type": "null"}, "0": {"type": "string"}},
    });
    assert_eq!(prepared(&schema), expected);
}

#[test]
fn branches_that_exclude_each_other_are_any_of_them() {
    let schema = json!({
        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}, {"$ref": "#/$defs/b"}],
        "$defs": {
            "a": {"type": "object", "properties": {"kind": {"const": "a"}, "next": {"$ref": "#"}}, "required": ["kind"]},
            "b": {"allOf": [{"type": "object"}, {"properties": {"kind": {"enum": ["b", "c"]}}}]},
        },
    });
    let prepared = prepared(&schema);
    assert_eq!(prepared["allOf"][0]["anyOf"].as_array().unwrap().len(), 3);
    assert_eq!(prepared["allOf"][0]["anyOf"][1], json!({"type": "null"}));
    let unclear = json!({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]});
    assert_eq!(prepare_value(&unclear).unwrap()["oneOf"].as_array().unwrap().len(), 2);
}

#[test]
fn lists_of_items_are_written_as_today() {
    let old = json!({"items": [{"type": "null"}], "additionalItems": false});
    assert_eq!(prepared(&old), json!({"prefixItems": [{"type": "null"}], "items": false, "$defs": {}}));
    // Without a list of items it says nothing.
    assert_eq!(prepared(&json!({"additionalItems": false, "items": true})), json!({"items": true, "$defs": {}}));
    fails(&json!({"items": [true], "prefixItems": [true]}), "prefixItems");
}

#[test]
fn unknown_keywords_and_formats_are_annotations() {
    let schema = json!({"type": "string", "x-order": 1, "x-guidance": {"lenient": true}, "nullable": true, "readonly": true, "_comment": "x",
        "enumNames": ["A"], "format": "int32", "contentEncoding": "base64", "tpye": 1, "": 2, "$vocabulary": {}, "$anchor": "a"});
    assert_eq!(prepared(&schema), json!({"type": "string", "$defs": {}}));
    assert_eq!(prepared(&json!({"type": "integer", "format": "date"})), json!({"type": "integer", "$defs": {}}));
    assert_eq!(prepared(&json!({"type": "array", "maxItems": 2.0})), json!({"type": "array", "maxItems": 2, "$defs": {}}));
    assert_eq!(prepared(&json!({"uniqueItems": false, "$id": "x"})), json!({"$defs": {}}));
    assert_eq!(prepared(&json!({"items": {"$id": "x"}})), json!({"items": {}, "$defs": {}}));
}

#[test]
fn what_cannot_be_exact_is_refused_by_name() {
    for (keyword, value) in [
        ("not", json!({"type": "integer"})),
        ("not", json!({"pattern": "a"})),
        ("not", json!({"const": {"a": 1}})),
        ("if", json!({"multipleOf": 3})),
        ("contains", json!({"type": "null"})),
        ("propertyNames", json!({"anyOf": []})),
        ("propertyNames", json!({"minLength": 1, "pattern": "a"})),
        ("uniqueItems", json!(true)),
        ("dependentRequired", json!({"a": 1})),
        ("$dynamicRef", json!("#a")),
        ("$recursiveRef", json!("#")),
    ] {
        let then = if keyword == "if" { json!(false) } else { json!(true) };
        fails(&json!({"properties": {"a/b": {keyword: value, "then": then}}}), &format!("{keyword:?} at #/properties/a~1b"));
    }
    fails(&json!({"unevaluatedProperties": false, "allOf": [true]}), "unevaluatedProperties");
    fails(&json!({"contains": true, "minContains": 2, "maxItems": 3}), "minContains");
    fails(&json!({"contains": true, "maxContains": 2, "maxItems": 3}), "maxContains");
    fails(&json!({"propertyNames": {"pattern": "a"}, "patternProperties": {"b": true}}), "propertyNames");
}

#[test]
fn references_to_identifiers_become_pointers() {
    let schema = json!({
        "$id": "http://x.test/root/main.json",
        "properties": {
            "a": {"$ref": "part.json"}, "b": {"$ref": "#anchored"}, "c": {"$ref": "http://x.test/root/part.json#/$defs/in"},
            "d": {"$ref": "main.json#/properties/e"}, "e": {"type": "null"}, "const": {"$ref": "/other#in"},
        },
        "$defs": {
            "part": {"$id": "part.json", "$ref": "#/$defs/in", "$defs": {"in": {"type": "string"}}},
            "x": {"$anchor": "anchored", "type": "boolean"},
            "y": {"$id": "http://x.test/other", "$defs": {"z": {"$anchor": "in", "type": "integer"}}},
            "data": {"enum": [{"$id": "part.json"}]},
        },
    });
    let prepared = prepared(&schema);
    let kind = |name: &str| {
        let target = prepared["properties"][name]["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
        prepared.pointer(target).unwrap()["type"].clone()
    };
    assert_eq!(["a", "b", "c", "d", "const"].map(kind), ["string", "boolean", "string", "null", "integer"]);
    fails(&json!({"$id": "http://x.test/a", "$ref": "b.json"}), "other documents");
}

#[test]
fn values_of_keywords_are_checked() {
    for (schema, part) in [
        (json!({"type": "strin"}), "strin"),
        (json!({"type": []}), "empty"),
        (json!({"enum": []}), "enum"),
        (json!({"enum": [9_007_199_254_740_993_u64]}), "exact"),
        (json!({"const": {"a": [-9_007_199_254_740_993_i64]}}), "exact"),
        (json!({"required": [1]}), "strings"),
        (json!({"minLength": -1}), "integer"),
        (json!({"maxItems": 1.5}), "integer"),
        (json!({"minimum": "1"}), "number"),
        (json!({"maximum": 1e300}), "exact"),
        (json!({"multipleOf": 0}), "above 0"),
        (json!({"pattern": "(a"}), "unclosed"),
        (json!({"patternProperties": {"(a": true}}), "unclosed"),
        (json!({"format": 1}), "format"),
        (json!({"properties": []}), "object"),
        (json!({"anyOf": []}), "list"),
        (json!({"oneOf": {}}), "list"),
        (json!({"items": 1}), "schema is"),
        (json!({"$ref": 1}), "string"),
        (json!({"$ref": "#/%zz"}), "percent"),
        (json!({"$ref": "other.json#/a"}), "other documents"),
        (json!({"anyOf": [{"$ref": "#/anyOf/0"}]}), "itself"),
        (json!(false), "false"),
        (json!(null), "schema is"),
    ] {
        fails(&schema, part);
    }
    assert!(matches!(prepare("{\"a\": }"), Err(GrammarError::Json(_))));
    assert!(matches!(prepare(&"[".repeat(200)), Err(GrammarError::Json(_))));
}
