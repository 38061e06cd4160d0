//! Laws that hold for every text.

use proptest::prelude::*;

use super::{PARSED, PLAIN, open, open_shipped, published};
use crate::tokenizer::{EncodeOptions, StreamDecoder, TokenKind, Tokenizer};

const SHIPPED: [&str; 3] = ["gpt-4o-made", "tekken-made", "deepseek-v3-made"];

/// Texts of all scripts: random characters, and the sequences that tokenizers get wrong.
fn text() -> impl Strategy<Value = String> {
    let sequences = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "hello",
        " World",
        "'s",
        "क्या",
        " हिन्दी",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "e\u{301}",
        "a\u{308}\u{304}",
        "\0",
        "\u{b}",
        "\u{7f}",
        "\u{feff}",
        "\u{3000}",
        "中文",
        "日本語の",
        "한국어",
        "1234567",
        "ไทย",
        "العربية",
        "<|start|>",
        "</s>",
        "\u{fffd}",
        "\u{10ffff}",
    ]);
    let part = prop_oneof![3 => sequences.prop_map(str::to_owned), 2 => any::<char>().prop_map(String::from), 1 => "[ -~]{1,12}"];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

fn check_text(tokenizer: &Tokenizer, text: &str) -> Result<(), TestCaseError> {
    for options in [PLAIN, PARSED] {
        let ids = tokenizer.encode(text, options).expect("a byte-complete vocabulary");
        prop_assert_eq!(tokenizer.decode(&ids, false).expect("known ids"), text);
        prop_assert_eq!(stream(tokenizer, &ids, false), text);
    }
    let ids = tokenizer.encode(text, PLAIN).expect("a byte-complete vocabulary");
    let special = |id: &u32| matches!(tokenizer.kind(*id), Some(TokenKind::Control | TokenKind::Unknown) | None);
    prop_assert!(!ids.iter().any(special), "{:?} became a control token", text);
    Ok(())
}

fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = StreamDecoder::new(skip_special);
    let mut out: String = ids.iter().map(|id| decoder.push(tokenizer, *id).expect("a known id")).collect();
    out.push_str(&decoder.flush());
    assert_eq!(decoder.flush(), "");
    out
}

proptest! {
    #[test]
    fn texts_return(text in text()) {
        for name in SHIPPED {
            check_text(&open_shipped(name), &text)?;
        }
    }

    #[test]
    fn streaming_is_decoding(ids in prop::collection::vec(0u32..2003, 0..60), skip_special in any::<bool>()) {
        let tokenizer = open_shipped("gpt-4o-made");
        let bytes = tokenizer.decode_bytes(&ids, skip_special).expect("known ids");
        let whole = tokenizer.decode(&ids, skip_special).expect("known ids");
        prop_assert_eq!(&whole, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(stream(&tokenizer, &ids, skip_special), whole);
    }

    #[test]
    fn shown_tokens_are_not_skipped(ids in prop::collection::vec(0u32..2003, 0..60)) {
        let tokenizer = open_shipped("gpt-4o-made");
        let special = (0..2003).filter(|id| tokenizer.kind(*id).is_some_and(TokenKind::is_special)).collect();
        let mut decoder = StreamDecoder::new(true).showing(special);
        let shown: String = ids.iter().map(|id| decoder.push(&tokenizer, *id).expect("a known id")).collect();
        prop_assert_eq!(shown + &decoder.flush(), tokenizer.decode(&ids, false).expect("known ids"));
    }

    #[test]
    fn guarded_texts_are_plain_ones(text in text(), before in text()) {
        let guard = '\u{f0000}';
        for name in SHIPPED {
            let tokenizer = open_shipped(name);
            let encode = |text: &str, options| tokenizer.encode(text, options).expect("a byte-complete vocabulary");
            let guarded = |text: &str| tokenizer.encode_guarded(text, guard, |_| true).expect("a byte-complete vocabulary");
            prop_assert_eq!(guarded(&text), encode(&text, PARSED));
            prop_assert_eq!(guarded(&tokenizer.guard_control(&text, guard).0), encode(&text, PLAIN));
            prop_assert_eq!(guarded(&tokenizer.guard_beginnings(&text, guard)), encode(&text, PLAIN));
            // What is not guarded becomes tokens as ever.
            let mixed = format!("{before}<|start|>{}<|end|>{before}", tokenizer.guard_beginnings(&text, guard));
            let mut parts = encode(&format!("{before}<|start|>"), PARSED);
            parts.extend(encode(&text, PLAIN));
            parts.extend(encode(&format!("<|end|>{before}"), PARSED));
            prop_assert_eq!(guarded(&mixed), parts);
        }
    }
}

#[test]
fn threads_may_share_a_tokenizer() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&open_shipped("tekken-made"));
}

/// Long texts use the cache of pieces: it must not change the ids.
#[test]
fn the_cache_changes_nothing() {
    for name in SHIPPED {
        let tokenizer = open_shipped(name);
        let line = "The cat's 1234 cats — क्या हिन्दी, naïve café 👩‍👩‍👧\n";
        let once = tokenizer.encode(line, PLAIN).expect("encodes");
        let many = tokenizer.encode(&line.repeat(200), PLAIN).expect("encodes");
        assert_eq!(many, once.repeat(200), "{name}");
    }
}

#[test]
fn published_vocabularies_return_texts() {
    let Some(folder) = published() else { return };
    // The others lack bytes (falcon, starcoder, refact), or write a ▁ as a space.
    for name in ["llama-bpe", "qwen2", "qwen35", "command-r", "deepseek-llm", "llama-spm", "gemma-4"] {
        let tokenizer = open(&folder.join(name));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
        runner.run(&text().prop_filter("▁ is a space", |text| !text.contains('▁')), |text| check_text(&tokenizer, &text)).expect(name);
    }
}

#[test]
fn spaces_are_prefixed_and_taken_back() {
    let Some(folder) = published() else { return };
    let tokenizer = open(&folder.join("llama-spm"));
    let encode = |text, options| tokenizer.encode(text, options).expect("encodes");
    assert_eq!(encode("Hello", EncodeOptions::default()), [1, 15043]);
    assert_eq!(encode("", EncodeOptions::default()), [1]);
    assert!(encode("", PLAIN).is_empty());
    assert_eq!(encode("<s>Hello", PARSED), [1, 15043]);
    assert!(!encode("<s>Hello</s>", PLAIN).contains(&1));
    assert_eq!(tokenizer.decode(&[1, 15043, 2, 15043], false).expect("known ids"), "<s>Hello</s>Hello");
    assert_eq!(tokenizer.decode(&[1, 15043, 3186], true).expect("known ids"), "Hello world");
    // The answer to a prompt goes on after a text, or begins one after a special token.
    let first = |prompt: &[u32]| StreamDecoder::after(&tokenizer, prompt, true).push(&tokenizer, 15043).expect("a known id");
    assert_eq!((first(&[1, 3186]), first(&[1]), first(&[])), (" Hello".to_owned(), "Hello".to_owned(), "Hello".to_owned()));
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.end_of_generation()), (Some(1), Some(2), &[2][..]));
}

#[test]
fn phi_3_strips_white_space_after_special_tokens() {
    let Some(folder) = published() else { return };
    let tokenizer = open(&folder.join("phi-3"));
    let encode = |text| tokenizer.encode(text, PARSED).expect("encodes");
    assert_eq!(encode("<|user|>\n Hello<|end|>\n<|assistant|>\n"), [32010, 15043, 32007, 32001]);
    assert_eq!(tokenizer.end_of_generation(), [32000, 32007]);
}

#[test]
fn ends_of_generation_are_control_tokens() {
    let Some(folder) = published() else { return };
    let ends = |name: &str| open(&folder.join(name)).end_of_generation().to_vec();
    assert_eq!(ends("llama-bpe"), [128001, 128009]);
    assert_eq!(ends("qwen2"), [151643, 151645]);
    assert_eq!(ends("deepseek-coder"), [32014]);
    assert_eq!(ends("gemma-4"), [1, 106]);
    assert_eq!(open_shipped("gpt-4o-made").end_of_generation(), [2000, 2002]);
}

#[test]
fn published_vocabularies_that_lack_bytes_drop_them() {
    let Some(folder) = published() else { return };
    let tokenizer = open(&folder.join("falcon"));
    assert_eq!(tokenizer.encode("ab \u{b}", PLAIN), tokenizer.encode("ab ", PLAIN));
    assert_eq!(tokenizer.take_dropped(), Some(0x0b));
}
