//! From the metadata of a file to a tokenizer.

use fastllm_gguf::{Array, Metadata};

use super::dropped::Dropped;
use super::model::Model;
use super::pretokenize::Pretokenizer;
use super::special::Specials;
use super::vocab::{Alphabet, TokenKind, Vocab};
use super::{Error, Tokenizer};

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Texts that end a turn in the chat formats of the models that have them. They end generation where the file says that they are
/// control tokens: the same text as ordinary token means itself.
const TURN_ENDS: [&str; 14] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
];

pub fn load(m: &Metadata) -> Result<Tokenizer, Error> {
    let kind = m.str("tokenizer.ggml.model")?;
    let kind = kind.ok_or_else(|| Error::Metadata("the file has no tokenizer.ggml.model".to_owned()))?;
    let (alphabet, scored) = match kind {
        "llama" => (Alphabet::Characters, true),
        "gemma4" => (Alphabet::Characters, false),
        "gpt2" => (Alphabet::Bytes, false),
        other => return Err(Error::UnsupportedModel(super::vocab::clip(other).to_owned())),
    };
    let mut warnings = Vec::new();
    let vocab = vocabulary(m, alphabet)?;
    let pretokenizer = if alphabet == Alphabet::Bytes { pretokenizer(m, &mut warnings)? } else { Pretokenizer::NEWLINE_RUNS };
    let model = if scored {
        let scores = numbers(m, SCORES, vocab.len(), Array::to_f32s)?;
        if scores.is_none() {
            warnings.push(format!("the file has no {SCORES}: all pieces count alike, and the model may read text badly"));
        }
        Model::sentencepiece(&vocab, &scores.unwrap_or_default())?
    } else {
        let merges = m.array(MERGES)?.ok_or_else(|| Error::Metadata(format!("the file has no {MERGES}")))?;
        let merges = merges.strings().ok_or_else(|| Error::Metadata(format!("{MERGES} is not an array of strings")))?;
        Model::bpe(&vocab, alphabet, merges, pretokenizer.whole_words)?
    };
    let pretokenizer = if scored { Pretokenizer::WHOLE } else { pretokenizer };
    let id = |key| special_id(m, key, vocab.len());
    let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
    let ends = [eos, id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
    let flag = |key, default| Ok::<bool, Error>(m.bool(key)?.unwrap_or(default));
    // Files of Gemma 4 are about that do not ask for the BOS without which the model is lost.
    let add_bos = kind == "gemma4" || flag("tokenizer.ggml.add_bos_token", scored || pretokenizer.add_bos)?;
    let add_eos = flag("tokenizer.ggml.add_eos_token", false)?;
    for (name, add, token) in [("BOS", add_bos, bos), ("EOS", add_eos, eos)] {
        if add && token.is_none() {
            warnings.push(format!("the tokenizer adds {name}, but the file names no such token: none is added"));
        }
    }
    let architecture = m.str("general.architecture")?;
    Ok(Tokenizer {
        specials: Specials::build(&vocab, &mut warnings)?,
        end_of_generation: end_of_generation(&vocab, ends),
        add_space_prefix: scored && flag("tokenizer.ggml.add_space_prefix", true)?,
        strip_after_special: scored && architecture == Some("phi3"),
        whole_newline_runs: kind == "gemma4",
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        vocab,
        model,
        pretokenizer,
        bos,
        eos,
        add_bos,
        add_eos,
        warnings,
        dropped: Dropped::default(),
    })
}

fn vocabulary(m: &Metadata, alphabet: Alphabet) -> Result<Vocab, Error> {
    let tokens = m.array(TOKENS)?.ok_or_else(|| Error::Metadata(format!("the file has no {TOKENS}")))?;
    let strings = tokens.strings().ok_or_else(|| Error::Metadata(format!("{TOKENS} is not an array of strings")))?;
    let kinds = numbers(m, KINDS, tokens.len(), Array::to_i32s)?;
    Vocab::build(strings, kinds.as_deref(), alphabet)
}

/// An array with one number for each token; `None` where the file has none.
fn numbers<'m, T>(
    m: &'m Metadata,
    key: &'static str,
    expected: usize,
    read: impl Fn(&Array<'m>) -> Option<Vec<T>>,
) -> Result<Option<Vec<T>>, Error> {
    let Some(array) = m.array(key)? else { return Ok(None) };
    if array.len() != expected {
        return Err(Error::Length { key, found: array.len(), expected });
    }
    let values = read(&array).ok_or_else(|| Error::Metadata(format!("{key} is an array of {}", array.kind())))?;
    Ok(Some(values))
}

fn special_id(m: &Metadata, key: &'static str, vocab_size: usize) -> Result<Option<u32>, Error> {
    match m.u32(key)? {
        Some(id) if id as usize >= vocab_size => Err(Error::SpecialId { key, id, vocab_size }),
        id => Ok(id),
    }
}

fn pretokenizer(m: &Metadata, warnings: &mut Vec<String>) -> Result<Pretokenizer, Error> {
    let Some(name) = m.str("tokenizer.ggml.pre")? else {
        warnings.push("the file names no pre-tokenizer (tokenizer.ggml.pre): the default is used, which may not be the model's".to_owned());
        return Ok(Pretokenizer::DEFAULT);
    };
    Ok(Pretokenizer::named(name).unwrap_or_else(|| {
        let name = super::vocab::clip(name);
        warnings.push(format!("unknown pre-tokenizer {name:?}: the default is used, and the model may read text badly"));
        Pretokenizer::DEFAULT
    }))
}

fn end_of_generation(vocab: &Vocab, named: [Option<u32>; 3]) -> Vec<u32> {
    let control = |text: &str| vocab.find(text).filter(|id| vocab.kind(*id) == Some(TokenKind::Control));
    // In the format of GPT-OSS, <|end|> ends one message of several.
    let messages = control("<|return|>").is_some() && control("<|call|>").is_some();
    let turns = TURN_ENDS.iter().filter(|text| !(messages && **text == "<|end|>")).filter_map(|text| control(text));
    let mut ids: Vec<u32> = named.into_iter().flatten().chain(turns).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
