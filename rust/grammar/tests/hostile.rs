//! Grammars from strangers: each ends soon, with an error that says why or with output.

mod common;

use std::fmt::Write;
use std::time::{Duration, Instant};

use common::*;
use fastllm_grammar::{Compiler, Source};

/// Debug builds, and machines that do other things meanwhile, are slow.
const LIMIT: Duration = Duration::from_secs(5);

/// Compiles and, where that works, walks.
fn try_out(name: &str, source: &Source) -> String {
    let started = Instant::now();
    let outcome = within(name, LIMIT, || match compiler().compile(source) {
        Err(error) => format!("refused: {error}"),
        Ok(grammar) => match walk(grammar.constraint().as_mut(), 1, 30) {
            Ok(text) => format!("works: {:?}", text.map(|text| text.chars().take(60).collect::<String>())),
            Err(error) => format!("ended: {error}"),
        },
    });
    println!("{name}: {:?}: {}", started.elapsed(), outcome.chars().take(300).collect::<String>());
    assert!(!outcome.contains("panic"), "{name}: {outcome}");
    outcome
}

#[test]
fn regexes() {
    for (name, text) in [
        ("nested repetition", "(a+)+b".to_owned()),
        ("nested repetition of alternatives", "(a|a)*(a|aa)+(a*)*c".to_owned()),
        ("deep", "(".repeat(60_000) + "a" + &")".repeat(60_000)),
        ("open", "(".repeat(60_000)),
        ("repetition", "a{0,2147483647}".to_owned()),
        ("repetition at least", "a{2147483647}".to_owned()),
        ("square of repetitions", r"(\w{1000}){1000}".to_owned()),
        ("cube of repetitions", r"((\w{1000}){1000}){1000}".to_owned()),
        ("counting", "(a|b)*a(a|b){200}".to_owned()),
        ("counting unicode", r"(\w|\d)*\p{L}(\w|\s){500}x".to_owned()),
        ("options", "a?".repeat(5000) + &"a".repeat(5000)),
        ("alternatives", (0..50_000).map(|n| n.to_string()).collect::<Vec<_>>().join("|")),
        ("classes", r"[\p{L}\p{N}&&[^\p{Han}]]{3,9000}".to_owned()),
        ("look-ahead", "(?=a)b".to_owned()),
        ("back-reference", r"(a)\1".to_owned()),
        ("border", r"a\bb".to_owned()),
        ("trailing backslash", "abc\\".to_owned()),
        ("empty", String::new()),
        ("nothing", "[^\\s\\S]".to_owned()),
        ("long", "ab".repeat(500_000)),
        ("too long", "ab".repeat(600_000)),
        ("many classes", r"\w".repeat(500_000)),
    ] {
        try_out(name, &regex(&text));
    }
}

#[test]
fn character_classes_of_regexes_are_limited() {
    assert!(
        try_out("many classes", &regex(&r"\w".repeat(50_001))).starts_with("refused: the grammar has Unicode character classes: 50001")
    );
    assert!(try_out("in a grammar", &lark(&format!("start: /{}/", r"\w".repeat(50_001)))).starts_with("refused: the grammar has Unicode"));
    assert!(try_out("classes", &regex(&"[ab]".repeat(10_000))).starts_with("works"));
}

#[test]
fn symbols_of_grammars_are_limited() {
    let outcome = try_out("symbols", &lark(&format!("start: {}", "\"a\" start? ".repeat(40_000))));
    assert!(outcome.contains("too many symbols"), "{outcome}");
}

#[test]
fn lark_grammars() {
    let chain = |n: usize| {
        (0..n).fold("start: a0\n".to_owned(), |mut text, i| {
            let _ = writeln!(text, "a{i}: a{}", i + 1);
            text
        }) + &format!("a{n}: \"x\"\n")
    };
    let terminal_chain = |n: usize| {
        (0..n).fold("start: A0\n".to_owned(), |mut text, i| {
            let _ = writeln!(text, "A{i}: \"a\" A{}", i + 1);
            text
        }) + &format!("A{n}: \"x\"\n")
    };
    let doubling = |n: usize| {
        (0..n).fold("start: a0\n".to_owned(), |mut text, i| {
            let _ = writeln!(text, "a{i}: a{0} a{0}", i + 1);
            text
        }) + &format!("a{n}: \"x\"\n")
    };
    for (name, text) in [
        ("left recursion", "start: start \"a\" | \"b\"".to_owned()),
        ("nothing but itself", "start: start".to_owned()),
        ("each other", "start: a\na: b\nb: a".to_owned()),
        ("hidden left recursion", "start: a start | \"x\"\na: \"\"".to_owned()),
        ("ambiguous", "start: start start | \"a\" | \"\"".to_owned()),
        ("very ambiguous", "start: start start start start | \"a\" | \"a\" \"a\" | \"\"".to_owned()),
        ("chain", chain(5000)),
        ("long chain", chain(9_990)),
        ("too long chain", chain(50_000)),
        ("terminal chain", terminal_chain(9_000)),
        ("doubling", doubling(60)),
        ("deep", format!("start: {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000))),
        ("deep brackets", format!("start: {}\"a\"{}", "[".repeat(60_000), "]".repeat(60_000))),
        ("deep 30", format!("start: {}\"a\"{}", "(".repeat(29), ")".repeat(29))),
        ("negations", format!("start: A\nA: {}/a/", "~".repeat(60_000))),
        ("repetition", "start: a~0..2147483647\na: \"x\" | \"y\" a".to_owned()),
        ("repetition at least", "start: a{2147483647}\na: \"x\" | \"y\" a".to_owned()),
        ("terminal repetition", "start: A~1000..2147483647\nA: (\"x\"{1000}){1000}".to_owned()),
        ("terminal circle", "start: A\nA: B\nB: A".to_owned()),
        ("json depth", format!("start: %json {}1{}", "[".repeat(60_000), "]".repeat(60_000))),
        ("json option", "start: %json {\"type\": \"string\", \"x-guidance\": {\"lenient\": true}}".to_owned()),
        ("unknown token", "start: <|nothing|>".to_owned()),
        ("token range", "start: <[0-4294967295]>".to_owned()),
        ("token garbage", "start: <[zzz]>".to_owned()),
        ("no start", "a: \"b\"".to_owned()),
        ("undefined", "start: nowhere".to_owned()),
        ("quote", "start: \"abc".to_owned()),
        ("garbage", "\u{0}\u{1}\u{2}: \u{ffff} ::= %%%".to_owned()),
        ("reference", "start: @other".to_owned()),
        ("temperature", "start[temperature=0.5]: /a+/".to_owned()),
        ("option", "%llguidance {\"nothing\": 1}\nstart: /a/".to_owned()),
        ("import", "%import nowhere.THING\nstart: THING".to_owned()),
        ("many alternatives", format!("start: {}", (0..40_000).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(" | "))),
        (
            "many rules at once",
            (0..9_000).fold(format!("start: {}\n", (0..9_000).map(|n| format!("r{n}")).collect::<Vec<_>>().join(" | ")), |text, n| {
                text + &format!("r{n}: /[a-z]+{n}/ start?\n")
            }),
        ),
    ] {
        try_out(name, &lark(&text));
    }
}

#[test]
fn gbnf_grammars() {
    for (name, text) in [
        ("left recursion", "root ::= root \"a\" | \"b\"".to_owned()),
        ("deep", format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000))),
        ("repetition", "root ::= [a-z]{0,2147483647}".to_owned()),
        ("repetition of repetition", "root ::= ((([a-z]{1000}){1000}){1000})*".to_owned()),
        ("stars", format!("root ::= \"a\"{}", "*".repeat(60_000))),
        ("chain", (0..5000).fold("root ::= a0\n".to_owned(), |text, n| text + &format!("a{n} ::= \"x\" a{}\n", n + 1)) + "a5000 ::= \"y\""),
        (
            "chain back",
            (0..5000).fold("root ::= a0\n".to_owned(), |text, n| text + &format!("a{n} ::= \"x\" a{}\n", n + 1)) + "a5000 ::= \"y\" root?",
        ),
    ] {
        try_out(name, &gbnf(&text));
    }
}

#[test]
fn schemas() {
    let nested = |n: usize| format!("{}{{}}{}", "{\"items\":".repeat(n), "}".repeat(n));
    let definitions = |n: usize| {
        let list: Vec<String> = (0..n)
            .map(|i| {
                format!(
                    r##""d{i}":{{"type":"object","properties":{{"next":{{"$ref":"#/$defs/d{}"}}}},"required":["next"]}}"##,
                    (i + 1).min(n - 1)
                )
            })
            .collect();
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{}}}}}"##, list.join(","))
    };
    let references = |n: usize| {
        let list: Vec<String> = (0..n).map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}}"##, i + 1)).collect();
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{n}":{{"type":"null"}}}}}}"##, list.join(","))
    };
    let all_of = |n: usize| {
        format!(
            "{{\"allOf\":[{}]}}",
            (0..n)
                .map(|n| format!("{{\"type\":\"object\",\"properties\":{{\"p{n}\":{{\"type\":\"string\"}}}}}}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let doubling = (0..60)
        .map(|i| format!(r##""d{i}":{{"allOf":[{{"$ref":"#/$defs/d{0}"}},{{"$ref":"#/$defs/d{0}"}}]}}"##, i + 1))
        .collect::<Vec<_>>()
        .join(",");
    for (name, text) in [
        ("not JSON", "{".to_owned()),
        ("a number", "1".to_owned()),
        ("deep", nested(60_000)),
        ("deep 100", nested(100)),
        ("definitions", definitions(1_500)),
        ("many definitions", definitions(20_000)),
        ("references", references(1_500)),
        ("itself", r##"{"$ref":"#"}"##.to_owned()),
        ("each other", r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##.to_owned()),
        ("itself in allOf", r##"{"allOf":[{"$ref":"#"}]}"##.to_owned()),
        ("itself in anyOf", r##"{"anyOf":[{"$ref":"#"},{"type":"null"}]}"##.to_owned()),
        ("itself in oneOf", r##"{"oneOf":[{"$ref":"#"},{"type":"null"}]}"##.to_owned()),
        (
            "itself required",
            r##"{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"],"additionalProperties":false}"##.to_owned(),
        ),
        ("doubling allOf", format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{doubling},"d60":{{"type":"string"}}}}}}"##)),
        ("http", r#"{"$ref":"http://example.com/schema.json"}"#.to_owned()),
        ("file", r#"{"$ref":"file:///etc/passwd"}"#.to_owned()),
        ("anchor", r##"{"$ref":"#name"}"##.to_owned()),
        ("nowhere", r##"{"$ref":"#/$defs/nothing"}"##.to_owned()),
        ("allOf", all_of(10_000)),
        ("allOf 500", all_of(500)),
        ("enum", format!("{{\"enum\":[{}]}}", (0..1_000_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","))),
        ("enum 50000", format!("{{\"enum\":[{}]}}", (0..50_000).map(|n| format!("\"value {n}\"")).collect::<Vec<_>>().join(","))),
        (
            "properties",
            format!(
                "{{\"type\":\"object\",\"properties\":{{{}}},\"additionalProperties\":false}}",
                (0..5_000).map(|n| format!("\"p{n}\":{{\"type\":\"integer\"}}")).collect::<Vec<_>>().join(",")
            ),
        ),
        (
            "1000 properties",
            format!(
                "{{\"type\":\"object\",\"properties\":{{{}}},\"additionalProperties\":false}}",
                (0..1_000).map(|n| format!("\"p{n}\":{{\"type\":\"integer\"}}")).collect::<Vec<_>>().join(",")
            ),
        ),
        (
            "required properties",
            format!("{{\"type\":\"object\",\"required\":[{}]}}", (0..5_000).map(|n| format!("\"p{n}\"")).collect::<Vec<_>>().join(",")),
        ),
        ("items", r#"{"type":"array","minItems":4294967295,"items":{"type":"null"}}"#.to_owned()),
        ("most items", r#"{"type":"array","maxItems":4294967295,"items":{"type":"integer"}}"#.to_owned()),
        ("length", r#"{"type":"string","minLength":4294967295}"#.to_owned()),
        ("most length", r#"{"type":"string","maxLength":4294967295}"#.to_owned()),
        ("pattern", r#"{"type":"string","pattern":"^(\\w{1000}){1000}$","maxLength":5000}"#.to_owned()),
        ("patterns", r#"{"type":"object","patternProperties":{"(a|b)*a(a|b){300}":true,"(a|b)*b(a|b){300}":true}}"#.to_owned()),
        ("multiple", r#"{"type":"number","multipleOf":1e-300}"#.to_owned()),
        ("multiple integer", r#"{"type":"integer","multipleOf":9007199254740991}"#.to_owned()),
        ("bounds", r#"{"type":"number","minimum":-9007199254740991.5,"maximum":0.0000000000000001}"#.to_owned()),
        ("no number", r#"{"type":"integer","minimum":5,"maximum":4}"#.to_owned()),
        ("const", r#"{"const":1e308}"#.to_owned()),
        ("unicode", r#"{"enum":["अआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइईअआइई"],"type":7}"#.to_owned()),
        ("false", "false".to_owned()),
    ] {
        try_out(name, &schema(&text));
    }
}

#[test]
fn choices() {
    let many = |n: usize| Source::Choices((0..n).map(|n| format!("choice {n}")).collect());
    assert!(try_out("many", &many(9_000)).starts_with("works"));
    assert!(try_out("too many", &many(10_001)).starts_with("refused"));
    assert!(try_out("none", &Source::Choices(Vec::new())).starts_with("refused"));
    assert!(try_out("empty", &Source::Choices(vec!["a".to_owned(), String::new()])).starts_with("refused"));
    let odd = "\u{0}\n\t\\\"/\u{7f}<|im_end|>\u{1f600}";
    assert!(accepts(&Source::Choices(vec![odd.to_owned(), "b".to_owned()]), odd));
}

#[test]
fn many_threads_compile_at_once() {
    let own = Compiler::new(tokenizer());
    std::thread::scope(|scope| {
        for n in 0..16 {
            let own = &own;
            scope.spawn(move || own.compile(&regex(&format!("[a-z]{{{}}}x", n % 5 + 1))).map(drop).unwrap());
        }
    });
}
