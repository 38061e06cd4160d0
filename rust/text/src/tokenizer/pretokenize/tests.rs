//! The scanners against the expressions that they implement, run by a backtracking engine.

use fancy_regex::Regex;
use proptest::prelude::*;

use super::Pretokenizer;
use super::stages::DEEPSEEK_LETTERS;

const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const END: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
const UPPER: &str = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
const LOWER: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
const CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const KANA: &str = r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";

/// The stages of a family as expressions.
fn expressions(name: &str) -> Vec<String> {
    let cl100k = |contractions: &str, digits: &str, tail: &str| {
        format!(r"{contractions}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+{tail}|{END}")
    };
    let with = format!("{CONTRACTIONS}|");
    let cased = |contractions: &str, digits: &str| {
        let prefix = r"[^\r\n\p{L}\p{N}]?";
        format!(
            r"{prefix}{UPPER}*{LOWER}+{contractions}|{prefix}{UPPER}+{LOWER}*{contractions}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{END}"
        )
    };
    let owned = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    match name {
        "llama-bpe" => vec![cl100k(&with, r"\p{N}{1,3}", r"[\r\n]*")],
        "minicpm5" => vec![r"\p{N}{1,3}".to_owned(), cl100k(&with, r"\p{N}+", r"[\r\n]*")],
        "qwen2" => vec![cl100k(&with, r"\p{N}", r"[\r\n]*")],
        "ufakzeka" => vec![cl100k("", r"\p{N}", r"[\r\n]*")],
        "laguna" => vec![r"[^\n]+|[\n]+".to_owned(), cl100k(&with, r"\p{N}", r"[\r\n]*")],
        "seed-coder" => vec![cl100k(&with, r"\p{N}", "").replace(r"[^\s\p{L}\p{N}]+|", r"[^\s\p{L}\p{N}\r\n]+|")],
        "qwen35" => vec![format!(r"{with}[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{END}")],
        "gpt-2" => owned(&[GPT2]),
        "starcoder" => owned(&[r"\p{N}", GPT2]),
        "falcon" => owned(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
        "default" => owned(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        "bloom" => owned(&[r" ?[^(\s|.,!?…。，、।۔،)]+"]),
        "viking" => owned(&[r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"]),
        "deepseek-llm" => {
            let letters: Vec<String> = DEEPSEEK_LETTERS.iter().map(|(low, high)| format!(r"\u{{{low:x}}}-\u{{{high:x}}}")).collect();
            let letters = letters.concat();
            let punctuation = r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
            owned(&[r"[\r\n]", &format!(r"\s?[A-Za-z{letters}]+"), punctuation, r"\s+$", CJK, r"\p{N}"])
        }
        "deepseek-coder" => owned(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"]),
        "deepseek-v3" => owned(&[
            r"\p{N}{1,3}",
            KANA,
            &format!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{{|}}~][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{END}"##
            ),
        ]),
        "gpt-4o" => vec![cased(&format!("{CONTRACTIONS}?"), r"\p{N}{1,3}")],
        "tekken" => vec![cased("", r"\p{N}")],
        other => unreachable!("{other} is not in the list"),
    }
}

const NAMES: [&str; 18] = [
    "llama-bpe",
    "minicpm5",
    "qwen2",
    "ufakzeka",
    "laguna",
    "seed-coder",
    "qwen35",
    "gpt-2",
    "starcoder",
    "falcon",
    "default",
    "bloom",
    "viking",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "gpt-4o",
    "tekken",
];

fn by_expressions(stages: &[Regex], text: &str) -> Vec<String> {
    let mut pieces = vec![text.to_owned()];
    for stage in stages {
        let mut next = Vec::new();
        for piece in pieces {
            let mut at = 0;
            for found in stage.find_iter(&piece) {
                let found = found.expect("a short text");
                next.push(piece[at..found.start()].to_owned());
                next.push(found.as_str().to_owned());
                at = found.end();
            }
            next.push(piece[at..].to_owned());
        }
        pieces = next.into_iter().filter(|piece| !piece.is_empty()).collect();
    }
    pieces
}

fn pieces(pretokenizer: Pretokenizer, text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut end = 0;
    let split: Result<(), ()> = pretokenizer.split(text, &mut |at, piece| {
        assert_eq!(at, end, "pieces follow each other");
        end = at + piece.len();
        pieces.push(piece.to_owned());
        Ok(())
    });
    assert_eq!((split, end), (Ok(()), text.len()));
    pieces
}

/// Characters that the expressions tell apart, more often than chance would bring them.
fn text() -> impl Strategy<Value = String> {
    let telling = prop::sample::select(
        "  \n\r\t'stdmlrevSTDMLREV\u{17f}aAzZéÉǅʰ中日の가ァ\u{93f}\u{301}\u{200d}ः1٣½Ⅷ२.,!?()-_/|`$+<=>^~#@\u{3000}\u{a0}\u{85}，。“🦙€\0\u{7f}\u{378}"
            .chars()
            .collect::<Vec<_>>(),
    );
    prop::collection::vec(prop_oneof![9 => telling, 1 => any::<char>()], 0..24).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn scanners_do_what_the_expressions_say(texts in prop::collection::vec(text(), 1..2)) {
        thread_local! {
            static COMPILED: Vec<Vec<Regex>> = NAMES
                .iter()
                .map(|name| expressions(name).iter().map(|e| Regex::new(e).expect("a valid expression")).collect())
                .collect();
        }
        COMPILED.with(|compiled| {
            for text in &texts {
                for (name, stages) in NAMES.iter().zip(compiled) {
                    let pretokenizer = Pretokenizer::named(name).expect("a known name");
                    prop_assert_eq!(pieces(pretokenizer, text), by_expressions(stages, text), "{} {:?}", name, text);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn deepseek_llm_splits_in_six_steps() {
    let split = |text| pieces(Pretokenizer::named("deepseek-llm").expect("a known name"), text);
    assert_eq!(split("Hi there, 12\n"), ["Hi", " there", ",", " ", "1", "2", "\n"]);
    assert_eq!(split("你好 Ωmega\u{2126}  "), ["你好", " Ω", "mega", "\u{2126}", "  "]);
    // U+3000 is punctuation to the third step, and white space at the end of a piece to the fourth.
    assert_eq!(split("\u{3000}。\u{3000}あ"), ["\u{3000}。", "\u{3000}", "あ"]);
    assert_eq!(split("क्या  है"), ["क्या", "  ", "है"]);
}

#[test]
fn unknown_names_are_unknown() {
    assert!(Pretokenizer::named("").is_none());
    assert!(Pretokenizer::named("gpt-99").is_none());
}
