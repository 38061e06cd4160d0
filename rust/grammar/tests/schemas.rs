//! What JSON schemas allow: for each, texts that are valid and texts that are not.

mod common;

use common::*;

#[track_caller]
fn check(text: &str, valid: &[&str], invalid: &[&str]) {
    let source = schema(text);
    for value in valid {
        assert!(accepts(&source, value), "{text} does not allow {value}");
    }
    for value in invalid {
        assert!(!accepts(&source, value), "{text} allows {value}");
    }
}

#[test]
fn annotations_change_nothing() {
    check(r#"{"type":"integer","format":"uint32","minimum":0,"maximum":9}"#, &["0", "9"], &["10", "-1"]);
    check(r#"{"type":"string","format":"password","nullable":true,"maxLength":2}"#, &[r#""ab""#], &["null", r#""abc""#]);
    check(
        r#"{"type":"array","items":{"type":"boolean"},"additionalItems":false,"maxItems":2.0}"#,
        &["[true, false]"],
        &["[true, true, true]"],
    );
    check(r#"{"type":"boolean","x-order":1,"discriminator":{"propertyName":"a"},"unknown":[]}"#, &["true"], &["1"]);
    check(
        r#"{"type":"object","properties":{"a":{"$id":"http://a/c","type":"null"}},"additionalProperties":false}"#,
        &["{}", r#"{"a": null}"#],
        &[r#"{"a": 1}"#],
    );
    check(
        r#"{"type":"object","unevaluatedProperties":false,"properties":{"a":{"type":"null"}}}"#,
        &["{}", r#"{"a": null}"#],
        &[r#"{"b": 1}"#],
    );
    check(r#"{"type":"object","dependentRequired":{},"properties":{},"additionalProperties":false}"#, &["{}"], &[r#"{"b": 1}"#]);
}

#[test]
fn names_come_once() {
    let open = r#"{"type":"object","additionalProperties":{"type":"boolean"}}"#;
    check(
        open,
        &["{}", r#"{"a": true, "ab": true, "b": false}"#],
        &[r#"{"a": true, "a": true}"#, r#"{"a": true, "\u0061": true}"#, r#"{"a": true, "b": true, "a": true}"#],
    );
    check("true", &[r#"[{"a": 1}, {"a": {"a": "a"}}]"#], &[r#"[{"a": {"b": 1, "b": 2}}]"#]);
    // After a comma there is another name, and a name that begins as one that was there goes on.
    let pattern = r#"{"type":"object","patternProperties":{"^x_[0-9]+[a-b]$":{"type":"null"}},"additionalProperties":false,"minProperties":2,"maxProperties":3}"#;
    check(
        pattern,
        &[r#"{"x_1a": null, "x_1b": null}"#, r#"{"x_1a": null, "x_11a": null, "x_2b": null}"#],
        &[r#"{"x_1a": null}"#, r#"{"x_1a": null, "x_1a": null}"#],
    );
    let compiled = compiler().compile(&schema(pattern)).unwrap();
    for seed in 0..40 {
        let text = walk(compiled.constraint().as_mut(), seed, 120).unwrap();
        if let Some(value) = text.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()) {
            assert!(matches!(value.as_object().unwrap().len(), 2 | 3));
        }
    }
}

#[test]
fn patterns_of_a_few_names_are_properties() {
    let two = r#"{"type":"object","patternProperties":{"^[ab]$":{"type":"boolean"}},"additionalProperties":false,"minProperties":2,"maxProperties":2}"#;
    check(two, &[r#"{"a": true, "b": false}"#], &["{}", r#"{"a": true}"#, r#"{"a": true, "a": true}"#]);
    let declared = r#"{"type":"object","properties":{"b":{"type":["boolean","null"]}},"required":["b"],"additionalProperties":false,"patternProperties":{"^b$":{"type":"boolean"}}}"#;
    check(declared, &[r#"{"b": true}"#], &["{}", r#"{"b": null}"#, r#"{"b": true, "b": true}"#]);
    let counted = r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"},"c":{"type":"null"}},"required":["b"],"additionalProperties":false,"minProperties":2,"maxProperties":2}"#;
    check(
        counted,
        &[r#"{"a": null, "b": null}"#, r#"{"b": null, "c": null}"#],
        &[r#"{"b": null}"#, r#"{"a": null, "b": null, "c": null}"#],
    );
}

#[test]
fn one_of_excludes() {
    let array = r##"{"oneOf":[{"type":"integer","minimum":0,"maximum":500},{"$ref":"#/$defs/L"}],"$defs":{"L":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2}}}"##;
    check(array, &["7", "[1, 2]"], &["[1]", "501"]);
    let keys = r#"{"oneOf":[{"required":["a"],"properties":{"a":{"type":"null"}}},{"required":["b"],"properties":{"b":{"type":"null"}}}],"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"additionalProperties":false}"#;
    check(keys, &[r#"{"a": null}"#, r#"{"b": null}"#], &["{}", r#"{"a": null, "b": null}"#]);
    check(r#"{"oneOf":[{"type":"integer","maximum":5},{"type":"integer","minimum":3}]}"#, &["2", "6", "-9"], &["3", "4", "5"]);
    check(r#"{"oneOf":[{"enum":["a","b"]},{"enum":["b","c"]}]}"#, &[r#""a""#, r#""c""#], &[r#""b""#]);
    check(r#"{"oneOf":[{"type":"string"},{"type":"string","maxLength":2}]}"#, &[r#""abc""#], &[r#""ab""#]);
}

#[test]
fn opposites() {
    check(r#"{"type":["string","null"],"not":{"type":"null"}}"#, &[r#""a""#], &["null"]);
    check(
        r#"{"type":"string","not":{"enum":["ab","a",""]},"maxLength":3}"#,
        &[r#""b""#, r#""abc""#, r#""aa""#],
        &[r#""a""#, r#""ab""#, r#""""#],
    );
    check(r#"{"type":"integer","not":{"const":3},"minimum":2,"maximum":4}"#, &["2", "4"], &["3"]);
    check(
        r#"{"type":"object","not":{"required":["b"]},"properties":{"a":{"type":"null"},"b":{"type":"null"}},"additionalProperties":false}"#,
        &["{}", r#"{"a": null}"#],
        &[r#"{"b": null}"#],
    );
    check(
        r#"{"not":{"anyOf":[{"type":"object"},{"type":"array"},{"type":"string"},{"type":"number"}]}}"#,
        &["null", "true"],
        &["1", r#""a""#, "[]"],
    );
}

#[test]
fn conditions() {
    let source = r#"{"type":"object","properties":{"kind":{"enum":["x","y"]},"n":{"type":"integer"}},"required":["kind"],"additionalProperties":false,
        "if":{"properties":{"kind":{"const":"x"}}},"then":{"required":["n"]},"else":{"properties":{"n":false}}}"#;
    check(source, &[r#"{"kind": "x", "n": 1}"#, r#"{"kind": "y"}"#], &[r#"{"kind": "x"}"#, r#"{"kind": "y", "n": 1}"#]);
    let depends = r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"additionalProperties":false,"dependentRequired":{"a":["b"]}}"#;
    check(depends, &["{}", r#"{"b": null}"#, r#"{"a": null, "b": null}"#], &[r#"{"a": null}"#]);
    let schemas = r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":["null","boolean"]}},"additionalProperties":false,"dependentSchemas":{"a":{"properties":{"b":{"type":"boolean"}}}}}"#;
    check(schemas, &[r#"{"b": null}"#, r#"{"a": null}"#, r#"{"a": null, "b": true}"#], &[r#"{"a": null, "b": null}"#]);
}

#[test]
fn arrays_that_contain() {
    let source = r#"{"type":"array","items":{"type":"integer","minimum":0,"maximum":9},"contains":{"const":7},"maxItems":3}"#;
    check(source, &["[7]", "[1, 7]", "[1, 2, 7]", "[7, 7, 1]"], &["[]", "[1]", "[1, 2, 3]", "[7, 1, 2, 3]"]);
    let unique = r#"{"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true,"minItems":1}"#;
    check(unique, &[r#"["a"]"#, r#"["c", "a"]"#, r#"["b", "c", "a"]"#], &["[]", r#"["a", "a"]"#, r#"["a", "b", "a"]"#]);
    check(r#"{"type":"array","items":{"type":"integer"},"uniqueItems":true,"maxItems":1}"#, &["[]", "[5]"], &["[5, 5]"]);
}

#[test]
fn names_of_properties() {
    let chosen = r#"{"type":"object","propertyNames":{"enum":["a","b"]},"additionalProperties":{"type":"null"}}"#;
    check(chosen, &["{}", r#"{"a": null}"#, r#"{"a": null, "b": null}"#], &[r#"{"c": null}"#, r#"{"a": 1}"#]);
    let pattern = r#"{"type":"object","propertyNames":{"pattern":"^[A-Z]+$"},"additionalProperties":{"type":"boolean"},"maxProperties":2}"#;
    check(pattern, &["{}", r#"{"A": true, "AB": false}"#], &[r#"{"a": true}"#, r#"{"A": true, "A": true}"#]);
    check(
        r#"{"type":"object","propertyNames":{"type":"string"},"additionalProperties":{"type":"boolean"},"maxProperties":1}"#,
        &[r#"{"x y": true}"#],
        &[r#"{"a": 1}"#],
    );
    check(
        r#"{"type":"object","propertyNames":{"maxLength":2},"additionalProperties":{"type":"null"}}"#,
        &[r#"{"ab": null}"#],
        &[r#"{"abc": null}"#],
    );
}

#[test]
fn formats_are_exact() {
    check(r#"{"type":"string","format":"date"}"#, &[r#""2024-02-29""#], &[r#""2021-02-29""#, r#""2100-02-29""#]);
    check(r#"{"type":"string","format":"date","pattern":"^2"}"#, &[r#""2024-02-29""#], &[r#""1999-01-01""#, r#""2021-02-29""#]);
    check(r#"{"type":["string","null"],"format":"ipv4"}"#, &["null", r#""1.2.3.4""#], &[r#""1.2.3""#, "1"]);
}

/// A pattern next to a bound of the length gives the lexer more states than are kept: they are forgotten on the way. A single step that
/// is beyond the limits is found out before the answer begins.
#[test]
fn long_answers_do_not_reach_the_limits_of_the_lexer() {
    let mut compiled_ones = 0;
    for (words, length) in [(19, 5_000), (99, 1_000), (9, 500), (5, 300)] {
        let text = format!(r#"{{"type":"string","pattern":"^(?:\\S+\\s+){{0,{words}}}\\S+$","maxLength":{length}}}"#);
        let compiled = match compiler().compile(&schema(&text)) {
            Ok(compiled) => compiled,
            Err(error) => {
                assert!(error.to_string().contains("maxLength"), "{error}");
                continue;
            }
        };
        compiled_ones += 1;
        for seed in 1..3 {
            let mut constraint = compiled.constraint();
            for step in 0..250_u64 {
                let mask =
                    constraint.mask().unwrap_or_else(|error| panic!("{words} words, {length}: after {step} tokens: {error}")).to_vec();
                let tokenizer = tokenizer();
                let ends = tokenizer.end_of_generation();
                let goes_on = |id: &u32| allows(&mask, *id) && !ends.contains(id);
                let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(goes_on).collect();
                let Some(id) = allowed.get((step * 7919 + seed * 104_729) as usize % allowed.len().max(1)) else { break };
                constraint.accept(*id).unwrap();
                if constraint.is_complete() {
                    break;
                }
            }
        }
    }
    assert!(compiled_ones >= 2);
}

/// Within a longer text nothing keeps undeclared names apart, so that a number of them cannot be asked for.
#[test]
fn numbers_of_undeclared_names_within_grammars_are_refused() {
    let compile = |schema: &str| compiler().compile(&lark(&format!("start: \"<\" %json {schema} \">\"")));
    for schema in [
        r#"{"type":"object","minProperties":2}"#,
        r#"{"type":"object","additionalProperties":{"type":"null"},"minProperties":3,"required":["a"]}"#,
        r#"{"type":"array","items":{"type":"object","patternProperties":{"^a+$":true},"additionalProperties":false,"minProperties":2}}"#,
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","minProperties":2}}}"##,
    ] {
        let error = compile(schema).map(drop).unwrap_err().to_string();
        assert!(error.contains("\"minProperties\"") && error.contains("required"), "{schema}: {error}");
    }
    for schema in [
        r#"{"type":"object","minProperties":1}"#,
        r#"{"type":"object","minProperties":2,"required":["a"]}"#,
        r#"{"type":"object","properties":{"a":true,"b":true},"additionalProperties":false,"minProperties":2}"#,
        r#"{"type":"object","patternProperties":{"^[ab]$":true},"additionalProperties":false,"minProperties":2}"#,
    ] {
        assert!(compile(schema).is_ok(), "{schema}: {:?}", compile(schema).err());
    }
}

#[test]
fn items_that_may_be_anything_and_differ_are_refused_by_name() {
    for schema in [
        r#"{"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":3}"#,
        r#"{"type":"array","uniqueItems":true}"#,
        r#"{"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"integer"},"maxItems":2,"uniqueItems":true}"#,
    ] {
        let error = compiler().compile(&common::schema(schema)).map(drop).unwrap_err().to_string();
        assert!(error.contains("\"uniqueItems\""), "{schema}: {error}");
    }
    check(r#"{"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":1}"#, &["[]", r#"["a"]"#], &[r#"["a", "b"]"#]);
}

#[test]
fn lengths_beside_formats_of_mailboxes() {
    for most in ["", r#","maxLength":30"#, r#","maxLength":65"#, r#","maxLength":100"#, r#","maxLength":254"#, r#","maxLength":320"#] {
        let long = format!("\"{}@b\"", "a".repeat(65));
        check(
            &format!(r#"{{"type":"string","format":"email"{most}}}"#),
            &[r#""joe.bloggs@example.com""#, r#""a@[127.0.0.1]""#, r#""a@xn--bcher-kva.example""#],
            &[&long, r#""a""#, r#""a@b@c""#],
        );
    }
    check(r#"{"type":"string","format":"date"}"#, &[r#""0000-02-29""#, r#""2024-02-29""#], &[r#""2023-02-29""#]);
}
