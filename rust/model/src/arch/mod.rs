//! The one place where an architecture's name becomes a [`Config`].
mod command_r;
mod common;
mod deepseek;
mod deepseek2;
mod ernie4_5;
mod exaone4;
mod falcon;
mod gemma;
mod glm4;
mod gpt_oss;
mod granite;
mod hunyuan;
mod keys;
mod llama;
mod mistral3;
mod olmo2;
mod phi3;
mod qwen;
mod qwen3next;
mod seed_oss;
mod smollm3;
mod understood;

use crate::ModelError;
use crate::config::Config;
use crate::error::quoted;
use crate::weights::{Declared, Tensors, Used, Weights};
use common::Blocks;
use fastllm_gguf::GgufFile;
use keys::Keys;
use understood::When;

/// A family of models.
struct Family {
    /// `general.architecture`.
    name: &'static str,
    /// Metadata to configuration. The keys that it reads are those that it understands.
    config: fn(&Header) -> Result<Config, ModelError>,
    /// Keys that it need not read, and when they change nothing: those of its own, before the list for all families in [`understood`].
    harmless: &'static [(&'static str, When)],
    /// Tensors that may be left over, without `blk.{i}.`.
    harmless_tensors: &'static [&'static str],
}

impl Family {
    /// A family without lists of its own.
    const fn new(name: &'static str, config: fn(&Header) -> Result<Config, ModelError>) -> Family {
        Family { name, config, harmless: &[], harmless_tensors: &[] }
    }
}

/// The architectures that run.
const FAMILIES: &[Family] = &[
    command_r::COHERE2,
    command_r::FAMILY,
    deepseek::FAMILY,
    deepseek2::FAMILY,
    ernie4_5::FAMILY,
    exaone4::FAMILY,
    falcon::FAMILY,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    glm4::GLM4,
    glm4::GLM4MOE,
    gpt_oss::FAMILY,
    granite::FAMILY,
    granite::GRANITEMOE,
    hunyuan::FAMILY,
    llama::FAMILY,
    mistral3::FAMILY,
    olmo2::FAMILY,
    phi3::FAMILY,
    qwen::QWEN2,
    qwen::QWEN2MOE,
    qwen::QWEN2VL,
    qwen::QWEN3,
    qwen::QWEN3MOE,
    qwen::QWEN3VL,
    qwen3next::QWEN35,
    qwen3next::QWEN35MOE,
    qwen3next::FAMILY,
    seed_oss::FAMILY,
    smollm3::FAMILY,
];

/// What a family reads.
struct Header<'a> {
    keys: Keys<'a>,
    tensors: Tensors<'a>,
    blocks: Blocks,
    /// Positions that were asked for.
    context_length: Option<usize>,
}

/// Reads the configuration and declares the weights of a file, checking them against each other, and that nothing is left over which
/// could change the result. `context_length` is what was asked for: some families depend on it.
pub fn declare(file: &GgufFile, context_length: Option<usize>) -> Result<(Config, Weights<Declared>), ModelError> {
    let Some(name) = file.metadata().str("general.architecture")? else {
        return Err(ModelError::Invalid("the file has no key general.architecture: it holds no model".to_owned()));
    };
    understood::check_general(file)?;
    let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
        return Err(ModelError::Unsupported(unknown(name)));
    };
    let (keys, used) = (Keys::new(file.metadata(), family.name), Used::default());
    let tensors = Tensors::new(file, &used);
    let header = Header { blocks: common::blocks(&keys, tensors)?, keys, tensors, context_length };
    let config = (family.config)(&header)?;
    let positions = config.context_length.max(context_length.unwrap_or(0));
    understood::check_keys(&header.keys, family, config.activation, positions)?;
    let weights = tensors.decoder(&config)?;
    understood::check_tensors(file, tensors, family, &header.blocks)?;
    Ok((config, weights))
}

/// Says what an unknown architecture may have meant: those that start alike, or differ in a few letters.
fn unknown(name: &str) -> String {
    let alike = |known: &&str| {
        let common = known.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        common >= 4 || distance(known, name) <= 2
    };
    let all: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
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
        assert!(
            unknown("qwen4").contains("near to it are: qwen2, qwen2moe, qwen2vl, qwen3, qwen3moe, qwen3vl, qwen35, qwen35moe, qwen3next;"),
            "{}",
            unknown("qwen4")
        );
        assert!(unknown("lama").contains("near to it are: llama;"), "{}", unknown("lama"));
        assert!(!unknown("mamba").contains("near to it"), "{}", unknown("mamba"));
        // The name is cut off; the list of what is supported grows.
        assert!(unknown(&"x".repeat(1000)).len() < unknown("").len() + 80);
    }

    #[test]
    fn distances() {
        assert_eq!([distance("", "abc"), distance("kitten", "sitting"), distance("gemma", "gemma")], [3, 3, 0]);
    }
}
