//! The tokenizer of the embedded model, and walks through grammars.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fastllm_engine::{Constraint, ConstraintError};
use fastllm_gguf::GgufFile;
use fastllm_grammar::{Compiler, GrammarError, Source};
use fastllm_text::tokenizer::{EncodeOptions, Tokenizer};

pub fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    Arc::clone(TOKENIZER.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/fastllm/models/fastllm-tiny-q4_0.gguf");
        let file = GgufFile::open(path).unwrap();
        Arc::new(Tokenizer::from_metadata(file.metadata()).unwrap())
    }))
}

pub fn compiler() -> &'static Compiler {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    COMPILER.get_or_init(|| Compiler::new(tokenizer()))
}

pub fn start(source: &Source) -> Box<dyn Constraint> {
    compiler().compile(source).unwrap_or_else(|error| panic!("{source:?}: {error}")).constraint()
}

pub fn refusal(source: &Source) -> GrammarError {
    match compiler().compile(source) {
        Ok(_) => panic!("{source:?} was accepted"),
        Err(error) => error,
    }
}

pub fn lark(text: &str) -> Source {
    Source::Lark(text.to_owned())
}

pub fn gbnf(text: &str) -> Source {
    Source::Gbnf(text.to_owned())
}

pub fn schema(text: &str) -> Source {
    Source::JsonSchema(text.to_owned())
}

pub fn regex(text: &str) -> Source {
    Source::Regex(text.to_owned())
}

pub fn allows(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

pub fn may_end(constraint: &mut dyn Constraint) -> bool {
    let mask = constraint.mask().unwrap();
    tokenizer().end_of_generation().iter().any(|&id| allows(mask, id))
}

/// Whether a grammar takes exactly `text`, one byte-wise token after the other.
pub fn accepts(source: &Source, text: &str) -> bool {
    let mut constraint = start(source);
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        if constraint.is_complete() {
            return false;
        }
        let mask = constraint.mask().unwrap();
        // The longest token that the grammar allows and the text goes on with.
        let tokenizer = tokenizer();
        let fits =
            |id: &u32| allows(mask, *id) && tokenizer.token_bytes(*id).is_some_and(|bytes| !bytes.is_empty() && rest.starts_with(bytes));
        let Some(id) = (0..tokenizer.vocab_size() as u32).filter(fits).max_by_key(|id| tokenizer.token_bytes(*id).map(<[u8]>::len)) else {
            return false;
        };
        constraint.accept(id).unwrap();
        rest = &rest[tokenizer.token_bytes(id).unwrap().len()..];
    }
    constraint.is_complete() || may_end(constraint.as_mut())
}

/// A walk of at most `most` random tokens; its text when it came to an end.
pub fn walk(constraint: &mut dyn Constraint, seed: u64, most: usize) -> Result<Option<String>, ConstraintError> {
    let tokenizer = tokenizer();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut ids = Vec::new();
    for _ in 0..most {
        let mask = constraint.mask()?;
        if tokenizer.end_of_generation().iter().any(|&id| allows(mask, id)) {
            return Ok(Some(tokenizer.decode(&ids, true).unwrap()));
        }
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| allows(mask, id)).collect();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = allowed[(random % allowed.len() as u64) as usize];
        constraint.accept(id)?;
        ids.push(id);
        if constraint.is_complete() {
            return Ok(Some(tokenizer.decode(&ids, true).unwrap()));
        }
    }
    Ok(None)
}

pub fn encode(text: &str) -> Vec<u32> {
    tokenizer().encode(text, EncodeOptions { add_special: false, parse_special: false }).unwrap()
}

/// Runs `f`, which takes less than `limit`.
pub fn within<T>(what: &str, limit: Duration, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    assert!(start.elapsed() < limit, "{what} took {:?}", start.elapsed());
    result
}
