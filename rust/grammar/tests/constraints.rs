//! What grammars allow, token by token.

mod common;

use std::sync::Arc;

use common::*;
use fastllm_engine::Constraint;
use fastllm_grammar::{Compiler, Source};

#[test]
fn gbnf_grammars_accept_what_they_say() {
    let list = gbnf("root ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= [a-z]+ | root | \"é\" [0-9]{2,3}");
    for text in ["[]", "[a]", "[a,bc,[],[[x]],é12,é345]"] {
        assert!(accepts(&list, text), "{text}");
    }
    for text in ["", "[", "[a,]", "[é1]", "[é1234]", "[A]", "[]x"] {
        assert!(!accepts(&list, text), "{text}");
    }
    let empty = gbnf("root ::= (\"a\" | \"\") \"b\"?");
    for text in ["", "a", "b", "ab"] {
        assert!(accepts(&empty, text), "{text:?}");
    }
    assert!(!accepts(&empty, "ba"));
    let backtracking = gbnf("root ::= [a-z]* \"z\" \"!\"");
    assert!(accepts(&backtracking, "abzz!") && !accepts(&backtracking, "ab!"));
    let arithmetic = gbnf(
        "root ::= (expr \"=\" term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= ident | num | \"(\" expr \")\"\nident ::= [a-z] [a-z0-9_]*\nnum ::= [0-9]+",
    );
    assert!(accepts(&arithmetic, "a1+(2*b)=7\nx=y\n") && !accepts(&arithmetic, "a1+=7\n"));
}

/// A GBNF grammar has no lexer: where a word ends is decided by what comes later.
#[test]
fn gbnf_words_end_where_the_rules_say() {
    let calls = gbnf("root ::= e\ne ::= f ws (\"+\" ws f)*\nf ::= v | v ws \"(\" e \")\" | \"(\" e \")\"\nv ::= [a-z]+\nws ::= \" \"?");
    for text in ["x", "x ", "x + x", "x (y)", "xy+(a (b + c) )", "x(y) "] {
        assert!(accepts(&calls, text), "{text:?}");
    }
    for text in ["x  +x", "x ()", "+x", "x y"] {
        assert!(!accepts(&calls, text), "{text:?}");
    }
    let keyword = gbnf("root ::= \"(\" root \")\" | name \"if\" | \"if\" \"a\" | \"iffy\" root?\nname ::= [a-z]+");
    for text in ["xif", "ififif", "((yif))", "ifa", "iffy", "iffyxif", "iffyif"] {
        assert!(accepts(&keyword, text), "{text:?}");
    }
    assert!(!accepts(&keyword, "(x)") && !accepts(&keyword, "if"));
    let unicode = gbnf("root ::= \"[\" root \"]\" | .+ \"é\" [^é]?");
    assert!(accepts(&unicode, "[aéé!]") && accepts(&unicode, "ééa") && !accepts(&unicode, "a"));
}

#[test]
fn schemas_have_one_layout() {
    let source = schema(
        r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"array","items":{"type":"boolean"}}},"required":["a","b"],"additionalProperties":false}"#,
    );
    assert!(accepts(&source, r#"{"a": 12, "b": [true, false]}"#));
    for text in [r#"{"a":12,"b":[]}"#, r#"{ "a": 1, "b": []}"#, r#"{"b": [], "a": 1}"#, r#"{"a": 1}"#, r#"{"a": 01, "b": []}"#] {
        assert!(!accepts(&source, text), "{text}");
    }
    let inner = lark("start: \"x\" %json {\n \"type\": \"array\",\n \"items\": {\"type\": \"null\"}\n} \"y\"");
    assert!(accepts(&inner, "x[null, null]y") && !accepts(&inner, "x[null,null]y"));
}

#[test]
fn tagged_unions_of_references_exclude_each_other() {
    let source = schema(
        r##"{"oneOf":[{"$ref":"#/$defs/leaf"},{"$ref":"#/$defs/node"}],"$defs":{
        "leaf":{"type":"object","properties":{"kind":{"const":"leaf","type":"string"},"value":{"type":"integer"}},"required":["kind","value"],"additionalProperties":false},
        "node":{"type":"object","properties":{"kind":{"const":"node","type":"string"},"left":{"oneOf":[{"$ref":"#/$defs/leaf"},{"$ref":"#/$defs/node"}]}},"required":["kind","left"],"additionalProperties":false}}}"##,
    );
    assert!(accepts(&source, r#"{"kind": "node", "left": {"kind": "node", "left": {"kind": "leaf", "value": 3}}}"#));
    assert!(!accepts(&source, r#"{"kind": "leaf", "left": {"kind": "leaf", "value": 3}}"#));
}

#[test]
fn special_tokens_are_single_tokens_whatever_they_are_called() {
    let tokenizer = tokenizer();
    let special = |id: &u32| {
        tokenizer.token_text(*id).is_some_and(|text| {
            text.starts_with('<')
                && text.ends_with('>')
                && tokenizer
                    .encode(text, fastllm_text::tokenizer::EncodeOptions { add_special: false, parse_special: true })
                    .is_ok_and(|ids| ids == [*id])
        })
    };
    let found: Vec<u32> =
        (0..tokenizer.vocab_size() as u32).filter(special).filter(|id| !tokenizer.end_of_generation().contains(id)).collect();
    assert!(!found.is_empty());
    for id in found {
        let name = tokenizer.token_text(id).unwrap();
        for source in [lark(&format!("start: {name} \"x\"")), gbnf(&format!("root ::= {name} \"x\""))] {
            let mut constraint = start(&source);
            assert!(allows(constraint.mask().unwrap(), id));
            constraint.accept(id).unwrap();
            assert!(!constraint.is_complete());
            constraint.accept(encode("x")[0]).unwrap();
            assert!(constraint.is_complete());
        }
    }
    // The text of a control token is no control token.
    let end = tokenizer.end_of_generation()[0];
    let text = tokenizer.token_text(end).unwrap().to_owned();
    let mut constraint = start(&Source::Choices(vec![text.clone()]));
    assert!(!allows(constraint.mask().unwrap(), end));
    assert!(accepts(&Source::Choices(vec![text.clone()]), &text));
}

#[test]
fn forced_tokens_are_what_the_mask_shows() {
    let source = schema(
        r#"{"type":"object","properties":{"identifier":{"type":"integer"},"description":{"enum":["first of all","finally"]}},"required":["identifier","description"],"additionalProperties":false}"#,
    );
    let mut together = start(&source);
    let mut single = start(&source);
    let mut forced_tokens = 0;
    for seed in 1.. {
        let forced = together.forced().unwrap();
        forced_tokens += forced.len();
        for id in forced {
            let mask = single.mask().unwrap();
            assert_eq!((0..tokenizer().vocab_size() as u32).filter(|&id| allows(mask, id)).collect::<Vec<_>>(), [id]);
            single.accept(id).unwrap();
            together.accept(id).unwrap();
        }
        assert_eq!(together.is_complete(), single.is_complete());
        if together.is_complete() {
            break;
        }
        let mask = together.mask().unwrap().to_vec();
        assert_eq!(mask, single.mask().unwrap());
        let allowed: Vec<u32> = (0..tokenizer().vocab_size() as u32).filter(|&id| allows(&mask, id)).collect();
        let id = allowed[seed * 7 % allowed.len()];
        single.accept(id).unwrap();
        together.accept(id).unwrap();
    }
    assert!(forced_tokens >= 8, "{forced_tokens}");
}

#[test]
fn a_token_that_is_not_allowed_is_an_error() {
    let mut constraint = start(&regex("[0-9]{3}"));
    assert!(constraint.accept(encode("x")[0]).is_err());
    let mut constraint = start(&regex("[0-9]{3}"));
    assert!(constraint.accept(u32::MAX).is_err());
    let mut constraint = start(&Source::Choices(vec!["only this".to_owned()]));
    assert!(constraint.forced().unwrap().len() > 1);
    assert!(constraint.accept(encode("x")[0]).is_err());
}

#[test]
fn requests_do_not_see_each_other() {
    let source = regex("([a-z]{2,9} ?){5,20}\\.");
    let shared = compiler().compile(&source).unwrap();
    let first: Vec<_> = (0..5).map(|seed| walk(shared.constraint().as_mut(), seed, 200).unwrap()).collect();
    let again: Vec<_> = (0..5).rev().map(|seed| walk(shared.constraint().as_mut(), seed, 200).unwrap()).collect();
    assert!(first.iter().eq(again.iter().rev()));
    let other = Compiler::new(tokenizer());
    let other = other.compile(&source).unwrap();
    assert_eq!(walk(other.constraint().as_mut(), 3, 200).unwrap(), first[3]);
}

#[test]
fn grammars_are_kept_while_there_is_room() {
    let own = Compiler::new(tokenizer());
    let first = own.compile(&regex("a+")).unwrap();
    assert!(Arc::ptr_eq(&first, &own.compile(&regex("a+")).unwrap()));
    assert!(!Arc::ptr_eq(&first, &own.compile(&regex("a*b")).unwrap()));
    // Each takes at least 64 KiB, of 64 MiB.
    for n in 0..1_100 {
        own.compile(&regex(&format!("x{n}"))).unwrap();
    }
    assert!(!Arc::ptr_eq(&first, &own.compile(&regex("a+")).unwrap()));
    assert!(own.compile(&regex("(")).is_err() && own.compile(&regex("(")).is_err());
}

#[test]
fn a_vocabulary_that_cannot_continue_is_an_error_not_a_loop() {
    let mut constraint: Box<dyn Constraint> = start(&regex("a\u{10ffff}?b"));
    constraint.accept(encode("a")[0]).unwrap();
    assert!(constraint.mask().is_ok());
}
