//! Time: the worst texts are bounded, and a test to run by hand prints throughput:
//! `cargo test --release -p fastllm-text speed -- --ignored --nocapture`.

use std::path::Path;
use std::time::Instant;

use super::{PLAIN, open, open_shipped, published};
use crate::tokenizer::Tokenizer;

const MB: usize = 1 << 20;

/// About a megabyte of each kind of text that is hard for some tokenizer.
fn worst() -> Vec<(&'static str, String)> {
    let repeated = |part: &str| part.repeat(MB / part.len());
    let random = |modulus: u32, from: u32| -> String {
        let mut state = 1u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from_u32(from + (state >> 33) as u32 % modulus).unwrap_or('a')
        })
        .take(MB)
        .collect()
    };
    vec![
        ("one letter", repeated("a")),
        ("one capital", repeated("A")),
        ("one word", random(26, u32::from(b'a'))),
        ("spaces", repeated(" ")),
        ("spaces, word", format!("{}x", repeated(" "))),
        ("newlines", repeated("\n")),
        ("newline, spaces", repeated("\n    ")),
        ("tabs", repeated("\t")),
        ("digits", repeated("1234567890")),
        ("punctuation", repeated("!?.,")),
        ("marks", repeated("\u{301}")),
        ("emoji", repeated("😀")),
        ("joined emoji", repeated("👩‍👩‍👧")),
        ("ideographs", random(20000, 0x4e00)),
        ("case", repeated("aAÀ中")),
        ("control", repeated("\u{1}")),
        ("random text", random(0x2000, 0x20)),
    ]
}

/// Two megabytes of words made of Hindi syllables, so many that hardly one comes twice: slower than a real text.
fn hindi() -> String {
    let syllables = "क का की के को कर है हैं हिन् दी स्व तन् त्र ता में और भा र त सभी प्र दे श न ना नी ने म मा य या ल ला लि व वा वि ज्ञ श्र द्ध";
    let syllables: Vec<&str> = syllables.split(' ').collect();
    let mut state = 7u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut text = String::new();
    while text.len() < 2 * MB {
        for _ in 0..=next(4) {
            text.push_str(syllables[next(syllables.len())]);
        }
        text.push_str(if next(12) == 0 { "। " } else { " " });
    }
    text
}

fn seconds(tokenizer: &Tokenizer, text: &str) -> f64 {
    let started = Instant::now();
    let ids = tokenizer.encode(text, PLAIN).expect("encodes");
    let elapsed = started.elapsed().as_secs_f64();
    assert!(!ids.is_empty());
    elapsed
}

/// Two seconds a megabyte. A machine that was busy with something else gets two more attempts.
fn assert_in_time(tokenizer: &Tokenizer, text: &str, what: &str) {
    let bound = 2.0 * text.len() as f64 / MB as f64;
    let attempts: Vec<f64> = (0..3).map(|_| seconds(tokenizer, text)).take_while(|seconds| *seconds >= bound).collect();
    assert!(attempts.len() < 3, "{what}: {attempts:?} s");
}

#[test]
fn worst_texts_take_less_than_two_seconds_a_megabyte() {
    for name in ["gpt-4o-made", "tekken-made", "deepseek-v3-made"] {
        let tokenizer = open_shipped(name);
        for (what, text) in worst() {
            assert_in_time(&tokenizer, &text, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn worst_texts_on_published_vocabularies() {
    let Some(folder) = published() else { return };
    for name in ["llama-bpe", "qwen35", "deepseek-llm", "deepseek-coder", "gpt-2", "llama-spm", "gemma-4"] {
        let tokenizer = open(&folder.join(name));
        for (what, text) in worst() {
            assert_in_time(&tokenizer, &text, &format!("{name}, {what}"));
        }
    }
}

#[test]
#[ignore = "prints throughput; run by hand"]
fn speed_in_megabytes_a_second() {
    let Some(folder) = published() else { return };
    let files = |extension: &str| -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        let mut folders = vec![root.join("src"), root.join("../gguf/src"), root.join("../..")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                let source = path.components().any(|c| c.as_os_str() == "src");
                if path.is_dir() && source {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == extension) {
                    text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
                }
            }
        }
        text
    };
    let prose = std::env::var("FASTLLM_PROSE").ok().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_else(|| files("md"));
    let mut texts = vec![("prose", prose), ("code", files("rs")), ("hindi", hindi())];
    texts.extend(worst());
    for name in ["llama-bpe", "qwen2", "deepseek-llm", "deepseek-v3-made", "gpt-2", "llama-spm", "gemma-4"] {
        let started = Instant::now();
        let tokenizer = open(&folder.join(name));
        println!("{name}: loaded in {:.3} s", started.elapsed().as_secs_f64());
        for (what, text) in &texts {
            let best = (0..3).map(|_| seconds(&tokenizer, text)).fold(f64::INFINITY, f64::min);
            println!("  {what:16} {:6.2} MB {:8.1} MB/s", text.len() as f64 / 1e6, text.len() as f64 / 1e6 / best);
        }
    }
}
