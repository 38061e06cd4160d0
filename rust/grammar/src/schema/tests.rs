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
fn branches_show_what_they_refer_to() {
    let schema = json!({
        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}],
        "$defs": {"a": {"type": "object", "properties": {"kind": {"const": "a"}, "next": {"$ref": "#"}, "list": {"items": {"$ref": "#"}}}, "required": ["kind"]}},
    });
    let prepared = prepared(&schema);
    assert_eq!(prepared["oneOf"][0]["properties"]["kind"], json!({"const": "a"}));
    assert_eq!(prepared["oneOf"][0]["required"], json!(["kind"]));
    let list = prepared["oneOf"][0]["properties"]["list"]["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
    assert_eq!(prepared.pointer(list).unwrap(), &json!({"items": {"$ref": "#"}}));
}

#[test]
fn lists_of_items_are_written_as_today() {
    let old = json!({"items": [{"type": "null"}], "additionalItems": false});
    assert_eq!(prepared(&old), json!({"prefixItems": [{"type": "null"}], "items": false, "$defs": {}}));
    fails(&json!({"additionalItems": false}), "additionalItems");
    fails(&json!({"items": [true], "prefixItems": [true]}), "prefixItems");
}

#[test]
fn what_is_not_honoured_is_refused() {
    for keyword in [
        "not",
        "if",
        "then",
        "else",
        "contains",
        "minContains",
        "maxContains",
        "propertyNames",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedItems",
        "unevaluatedProperties",
        "$dynamicRef",
        "$dynamicAnchor",
        "$recursiveRef",
        "nullable",
        "x-guidance",
        "",
    ] {
        fails(&json!({"properties": {"a/b": {keyword: true}}}), &format!("{keyword:?} at #/properties/a~1b"));
    }
    fails(&json!({"uniqueItems": true}), "uniqueItems");
    assert_eq!(prepared(&json!({"uniqueItems": false})), json!({"$defs": {}}));
    fails(&json!({"items": {"$id": "x"}}), "$id");
    assert_eq!(prepared(&json!({"$id": "x"})), json!({"$defs": {}}));
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
        (json!({"format": "unknown"}), "unknown"),
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
