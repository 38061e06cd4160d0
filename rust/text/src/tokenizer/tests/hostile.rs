//! Vocabularies that no honest tool would write.

use fastllm_gguf::Writer;
use proptest::prelude::*;

use super::{PARSED, PLAIN, metadata};
use crate::tokenizer::model::parts;
use crate::tokenizer::vocab::char_of;
use crate::tokenizer::{Error, StreamDecoder, Tokenizer};

struct File(Writer);

impl File {
    fn new(model: &str, tokens: &[&str]) -> Self {
        let mut writer = Writer::new();
        writer.set("tokenizer.ggml.model", model).set("tokenizer.ggml.tokens", strings(tokens));
        Self(writer)
    }

    fn bpe(tokens: &[&str], merges: &[&str]) -> Self {
        let mut file = Self::new("gpt2", tokens);
        file.0.set("tokenizer.ggml.merges", strings(merges)).set("tokenizer.ggml.pre", "gpt-2");
        file
    }

    fn with(mut self, key: &str, value: impl Into<fastllm_gguf::OwnedValue>) -> Self {
        self.0.set(format!("tokenizer.ggml.{key}"), value);
        self
    }

    fn load(&self) -> Result<Tokenizer, Error> {
        Tokenizer::from_metadata(&metadata(&self.0))
    }

    fn refused(&self) -> String {
        self.load().expect_err("refused").to_string()
    }
}

fn strings(texts: &[&str]) -> fastllm_gguf::OwnedValue {
    let texts = texts.iter().map(|text| fastllm_gguf::OwnedValue::String(text.as_bytes().to_vec())).collect();
    fastllm_gguf::OwnedValue::Array(fastllm_gguf::ValueType::String, texts)
}

fn kinds(kinds: &[i32]) -> fastllm_gguf::OwnedValue {
    let kinds = kinds.iter().map(|kind| fastllm_gguf::OwnedValue::I32(*kind)).collect();
    fastllm_gguf::OwnedValue::Array(fastllm_gguf::ValueType::I32, kinds)
}

fn floats(floats: &[f32]) -> fastllm_gguf::OwnedValue {
    let floats = floats.iter().map(|x| fastllm_gguf::OwnedValue::F32(*x)).collect();
    fastllm_gguf::OwnedValue::Array(fastllm_gguf::ValueType::F32, floats)
}

#[test]
fn what_is_missing_or_out_of_range_is_named() {
    let two = || File::bpe(&["a", "b"], &[]);
    assert!(Tokenizer::from_metadata(&metadata(&Writer::new())).is_err_and(|e| e.to_string().contains("tokenizer.ggml.model")));
    assert!(File::new("gpt2", &["a"]).refused().contains("tokenizer.ggml.merges"));
    assert!(File::new("rwkv", &["a"]).refused().contains("\"rwkv\""));
    for key in ["bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id"] {
        assert!(two().with(key, 2u32).refused().contains(key), "{key}");
        assert!(two().with(key, 1u32).load().is_ok(), "{key}");
    }
    assert!(two().with("bos_token_id", "zero").refused().contains("bos_token_id"));
    assert!(two().with("token_type", kinds(&[1])).refused().contains("token_type has 1 entries"));
    assert!(File::new("llama", &["a", "b"]).with("scores", floats(&[0.0])).refused().contains("scores has 1 entries"));
    let nan = File::new("llama", &["a", "b", "ab"]).with("scores", floats(&[0.0, 0.0, f32::NAN]));
    assert!(nan.refused().contains("scores[2] is not a number"));
    assert!(File::bpe(&["a"], &["ab"]).refused().contains("merges[0]"));
    for text in ["<0xZZ>", "<0x-1>", "a", ""] {
        assert!(File::new("llama", &[text]).with("token_type", kinds(&[6])).refused().contains("tokens[0] is of type byte"));
    }
    assert!(two().load().expect("loads").decode(&[2], true).is_err());
    assert!(StreamDecoder::new(true).push(&two().load().expect("loads"), u32::MAX).is_err());
}

#[test]
fn unknown_pretokenizers_are_warned_about() {
    let unknown = File::bpe(&["a"], &[]).with("pre", "gpt-99").load().expect("loads");
    assert!(unknown.warnings()[0].contains("gpt-99"));
    assert!(File::bpe(&["a"], &[]).load().expect("loads").warnings().is_empty());
    let adds = File::bpe(&["a"], &[]).with("add_bos_token", true).load().expect("loads");
    assert!(!adds.add_bos() && adds.warnings()[0].contains("BOS"));
}

#[test]
fn empty_vocabularies_encode_nothing() {
    for model in ["gpt2", "llama", "gemma4"] {
        let tokenizer = File::new(model, &[]).with("merges", strings(&[])).load().expect("loads");
        assert_eq!(tokenizer.encode("", PLAIN), Ok(vec![]));
        assert_eq!(tokenizer.encode("x", PLAIN), Ok(vec![]), "{model}");
        assert!(matches!(tokenizer.take_dropped(), Some(b'x' | b' ')), "{model}");
    }
}

#[test]
fn merges_of_absent_tokens_fall_back_to_bytes() {
    // a b and ab c merge, ab is no token: it may be passed through, but not kept.
    let file = File::bpe(&["a", "b", "c", "abc"], &["a b", "ab c", "x y", "xy z"]);
    let tokenizer = file.load().expect("loads");
    assert_eq!(tokenizer.encode("abc", PLAIN), Ok(vec![3]));
    assert_eq!(tokenizer.encode("abab", PLAIN), Ok(vec![0, 1, 0, 1]));
    assert_eq!(tokenizer.encode("xyzabc", PLAIN), Ok(vec![3]));
    assert_eq!(tokenizer.take_dropped(), Some(b'x'));
}

#[test]
fn bytes_that_the_vocabulary_lacks_are_dropped_and_reported_once() {
    let tokenizer = File::bpe(&["a", "b", "ab"], &["a b"]).load().expect("loads");
    assert_eq!(tokenizer.encode("ab", PLAIN), Ok(vec![2]));
    assert_eq!(tokenizer.take_dropped(), None);
    // As in Hugging Face's tokenizers, what stands on both sides of a dropped byte merges.
    assert_eq!(tokenizer.encode("a\u{1}b\u{2}a", PLAIN), Ok(vec![0, 1, 0]));
    assert_eq!(tokenizer.encode("aéb", PLAIN), Ok(vec![2]));
    assert_eq!(tokenizer.take_dropped(), Some(1));
    assert_eq!(tokenizer.encode("\u{3}", PLAIN), Ok(vec![]));
    assert_eq!(tokenizer.take_dropped(), None);
    // The unknown token is for vocabularies of characters.
    let unknown = File::bpe(&["<unk>", "a"], &[]).with("unknown_token_id", 0u32).load().expect("loads");
    assert_eq!(unknown.encode("aé", PLAIN), Ok(vec![1]));
}

#[test]
fn duplicate_and_empty_texts_are_decoded_but_not_produced_twice() {
    let tokenizer = File::bpe(&["a", "a", "", "b"], &[]).load().expect("loads");
    assert_eq!(tokenizer.encode("ab", PLAIN), Ok(vec![0, 3]));
    assert_eq!(tokenizer.decode(&[0, 1, 2, 3], true), Ok("aab".to_owned()));
    let special = File::bpe(&["a", "", "a"], &[]).with("token_type", kinds(&[3, 3, 3])).load().expect("loads");
    assert_eq!(special.encode("a", PARSED), Ok(vec![0]));
}

#[test]
fn control_tokens_never_come_from_plain_text() {
    let kinds = || kinds(&[1, 1, 3]);
    let bpe = File::bpe(&["a", "b", "ab"], &["a b"]).with("token_type", kinds()).load().expect("loads");
    let whole = File::bpe(&["a", "b", "ab"], &["a b"]).with("token_type", kinds()).with("pre", "llama-bpe").load().expect("loads");
    let spm = File::new("llama", &["a", "b", "ab"]).with("token_type", kinds()).with("add_space_prefix", false).load().expect("loads");
    for tokenizer in [bpe, whole, spm] {
        assert_eq!(tokenizer.encode("ab", PLAIN), Ok(vec![0, 1]));
        assert_eq!(tokenizer.encode("ab", PARSED), Ok(vec![2]));
    }
}

#[test]
fn text_without_byte_tokens_is_the_unknown_token() {
    let file = File::new("llama", &["<unk>", "▁", "a"]).with("token_type", kinds(&[2, 1, 1]));
    let without = file.load().expect("loads");
    assert_eq!(without.encode("aé a", PLAIN), Ok(vec![1, 2, 1, 2]));
    assert_eq!(without.take_dropped(), Some(0xc3));
    let tokenizer = file.with("unknown_token_id", 0u32).load().expect("loads");
    assert_eq!(tokenizer.encode("aé a", PLAIN), Ok(vec![1, 2, 0, 1, 2]));
}

#[test]
fn tokens_that_hold_a_space_are_merged_across_it() {
    let tokens = ["a", "▁", "a▁", "a▁a"];
    let file = File::new("llama", &tokens).with("scores", floats(&[0.0, 0.0, 2.0, 1.0])).with("add_space_prefix", false);
    // a▁ a▁ a by score, and then the last two: the first a▁ has nothing to merge with.
    assert_eq!(file.load().expect("loads").encode("a a a", PLAIN), Ok(vec![2, 3]));
}

/// Every prefix of a long run is a token, and every one of them merges with the next letter: what is quadratic elsewhere.
#[test]
fn long_tokens_do_not_cost_more_than_their_length() {
    let run = "a".repeat(3000);
    let tokens: Vec<&str> = (1..=run.len()).map(|n| &run[..n]).collect();
    let started = std::time::Instant::now();
    let spm = File::new("llama", &tokens).with("add_space_prefix", false).load().expect("loads");
    let merges: Vec<String> = (1..run.len()).map(|n| format!("{} a", &run[..n])).collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    let bpe = File::bpe(&tokens, &merges).load().expect("loads");
    let text = "a".repeat(1 << 20);
    for tokenizer in [spm, bpe] {
        let ids = tokenizer.encode(&text, PLAIN).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, true).expect("known ids"), text);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// A long special token whose beginning is everywhere, and very many special tokens.
#[test]
fn special_tokens_cannot_slow_every_position() {
    let long = format!("{}b", "a".repeat(1 << 20));
    let tokenizer = File::bpe(&["a", &long], &[]).with("token_type", kinds(&[4, 3])).load().expect("loads");
    assert!(tokenizer.warnings()[0].contains("never found"));
    assert_eq!(tokenizer.encode(&long[..1000], PARSED), Ok(vec![0; 1000]));
    let many: Vec<String> = (0..50_000).map(|i| format!("{i:0100}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(File::bpe(&many, &[]).with("token_type", kinds(&vec![3; many.len()])).refused().contains("special tokens"));
}

#[test]
fn cancelling_ends_the_work() {
    let letters: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    let tokenizer = File::bpe(&letters, &[]).load().expect("loads");
    let text = "word ".repeat(100_000);
    let mut seen = 0;
    let result = tokenizer.encode_while(&text, PLAIN, |ids| {
        seen = ids;
        ids < 1000
    });
    assert_eq!(result, Err(Error::Cancelled));
    assert!(seen < 50_000, "{seen}");
}

#[test]
fn cancelling_ends_the_work_within_one_long_piece() {
    let letters: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
    let mut tokens: Vec<&str> = letters.iter().map(String::as_str).collect();
    tokens.extend(["aa", "aaaa"]);
    let tokenizer = File::bpe(&tokens, &["a a", "aa aa"]).load().expect("loads");
    let text = "a".repeat(400_000);
    let mut asked = 0;
    let result = tokenizer.encode_while(&text, PLAIN, |_| {
        asked += 1;
        asked < 3
    });
    assert_eq!((result, asked), (Err(Error::Cancelled), 3));
    assert_eq!(tokenizer.encode(&text, PLAIN), Ok(vec![257; 100_000]));
}

/// Short texts over few characters, so that random vocabularies, merges and texts have to do with each other.
fn scrap() -> impl Strategy<Value = String> {
    let characters = ["a", "b", " ", "▁", "Ġ", "é", "Ã", "<", "\n", "Ċ", "<0x61>", "<0xZZ>", "<s>", "中", "\u{301}"];
    prop::collection::vec(prop::sample::select(characters.to_vec()), 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_vocabularies_never_panic(
        model in prop::sample::select(vec!["gpt2", "llama", "gemma4"]),
        pre in prop::sample::select(vec!["llama-bpe", "gpt-2", "deepseek-llm", "tekken", "default", "?"]),
        tokens in prop::collection::vec((scrap(), prop::sample::select(vec![1, 1, 1, 1, 2, 3, 4, 5, 7]), -3.0f32..3.0), 0..20),
        merges in prop::collection::vec((scrap(), scrap()), 0..20),
        texts in prop::collection::vec(scrap(), 1..4),
        space_prefix in any::<bool>(),
    ) {
        let names: Vec<&str> = tokens.iter().map(|(text, ..)| text.as_str()).collect();
        let types: Vec<i32> = tokens.iter().map(|(text, kind, _)| if text == "<0x61>" { 6 } else { *kind }).collect();
        let scores: Vec<f32> = tokens.iter().map(|(.., score)| *score).collect();
        let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let merges: Vec<&str> = merges.iter().map(String::as_str).filter(|merge| parts(merge.as_bytes()).is_ok()).collect();
        let file = File::new(model, &names)
            .with("pre", pre)
            .with("token_type", kinds(&types))
            .with("scores", floats(&scores))
            .with("merges", strings(&merges))
            .with("add_space_prefix", space_prefix);
        let tokenizer = file.load().expect("odd, but nothing that is refused");
        let text = texts.concat();
        for options in [PLAIN, PARSED] {
            if let Ok(ids) = tokenizer.encode(&text, options) {
                prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
                prop_assert!(tokenizer.decode(&ids, true).is_ok());
            }
        }
    }
}
