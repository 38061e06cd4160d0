//! The one place where an architecture's name becomes a [`Config`].
mod command_r;
mod common;
mod deepseek;
mod deepseek2;
mod falcon;
mod gemma;
mod gpt_oss;
mod granite;
mod keys;
mod llama;
mod olmo2;
mod phi3;
mod qwen;
mod qwen3next;

use crate::ModelError;
use crate::config::Config;
use crate::error::quoted;
use crate::weights::{Declared, Tensors, Weights};
use fastllm_gguf::GgufFile;
use keys::Keys;

/// A family: metadata to configuration.
type Family = fn(&Header) -> Result<Config, ModelError>;

/// The architectures that run.
const FAMILIES: &[(&str, Family)] = &[
    ("command-r", command_r::config),
    ("deepseek", deepseek::config),
    ("deepseek2", deepseek2::config),
    ("falcon", falcon::config),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
    ("gpt-oss", gpt_oss::config),
    ("granite", granite::config),
    ("llama", llama::config),
    ("olmo2", olmo2::config),
    ("phi3", phi3::config),
    ("qwen2", qwen::qwen2),
    ("qwen2moe", qwen::qwen2moe),
    ("qwen3", qwen::qwen3),
    ("qwen3moe", qwen::qwen3moe),
    ("qwen3next", qwen3next::config),
];

/// What a family reads.
struct Header<'a> {
    keys: Keys<'a>,
    tensors: Tensors<'a>,
    /// Positions that were asked for.
    context_length: Option<usize>,
}

/// Reads the configuration and declares the weights of a file, checking them against each other. `context_length` is what was asked for:
/// some families depend on it.
pub fn declare(file: &GgufFile, context_length: Option<usize>) -> Result<(Config, Weights<Declared>), ModelError> {
    let Some(name) = file.metadata().str("general.architecture")? else {
        return Err(ModelError::Invalid("the file has no key general.architecture: it holds no model".to_owned()));
    };
    let Some((arch, family)) = FAMILIES.iter().find(|(arch, _)| *arch == name) else {
        return Err(ModelError::Unsupported(unknown(name)));
    };
    let tensors = Tensors::new(file);
    let config = family(&Header { keys: Keys { metadata: file.metadata(), arch }, tensors, context_length })?;
    let weights = tensors.decoder(&config)?;
    Ok((config, weights))
}

/// Says what an unknown architecture may have meant: those that start alike, or differ in a few letters.
fn unknown(name: &str) -> String {
    let alike = |known: &&str| {
        let common = known.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        common >= 4 || distance(known, name) <= 2
    };
    let all: Vec<&str> = FAMILIES.iter().map(|(known, _)| *known).collect();
    let near: Vec<&str> = all.iter().copied().filter(alike).collect();
    let near = if near.is_empty() { String::new() } else { format!("; near to it are: {}", near.join(", ")) };
    format!("architecture {} is not supported{near}; supported are: {}", quoted(name), all.join(", "))
}

/// Letters to insert, remove or replace (Levenshtein, 1965), of the first 64.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_architecture_is_told_its_neighbours() {
        assert!(unknown("qwen4").contains("near to it are: qwen2, qwen2moe, qwen3, qwen3moe, qwen3next;"), "{}", unknown("qwen4"));
        assert!(unknown("lama").contains("near to it are: llama;"), "{}", unknown("lama"));
        assert!(!unknown("mamba").contains("near to it"), "{}", unknown("mamba"));
        assert!(unknown(&"x".repeat(1000)).len() < 300);
    }

    #[test]
    fn distances() {
        assert_eq!([distance("", "abc"), distance("kitten", "sitting"), distance("gemma", "gemma")], [3, 3, 0]);
    }
}
