//! Microseconds for the mask of one token, over the schemas of the tests: `cargo bench -p fastllm-grammar`
//!
//! `-- FILE.gguf` takes the vocabulary of that file. Otherwise it is that of Llama 3 (128256 tokens), where it is beside the repository,
//! or a made-up one of 131072 tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fastllm_gguf::{GgufFile, Header, Metadata, Writer};
use fastllm_grammar::{Compiler, Source};
use fastllm_text::tokenizer::Tokenizer;

const WALKS: u64 = 20;
const TOKENS: usize = 200;

fn main() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let llama = repository.join("../shared/tokenizers/llama-bpe/vocab.gguf");
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let path = given.or(llama.exists().then_some(llama));
    let name = path.as_ref().map_or("a made-up vocabulary".to_owned(), |path| path.display().to_string());
    let read = |path: PathBuf| Tokenizer::from_metadata(GgufFile::open(path).expect("a GGUF file").metadata());
    let tokenizer = path.map_or_else(|| Tokenizer::from_metadata(&made_up()), read);
    let tokenizer = Arc::new(tokenizer.expect("a tokenizer"));
    let compiler = Compiler::new(Arc::clone(&tokenizer));
    let started = Instant::now();
    compiler.compile(&Source::Regex("a".to_owned())).expect("a regex");
    println!("{} tokens of {}: trie in {:.0} ms", tokenizer.vocab_size(), name, started.elapsed().as_secs_f64() * 1e3);

    let mut files: Vec<PathBuf> =
        std::fs::read_dir(repository.join("tests/data/json_schemas")).expect("schemas").flatten().map(|e| e.path()).collect();
    files.sort();
    let (mut compile, mut clone, mut all) = (Vec::new(), Vec::new(), Times::default());
    println!("{:28} {:>6} {:>9} {:>9} {:>9} {:>9}", "us", "masks", "median", "p99", "most", "first");
    for path in files {
        let source = Source::JsonSchema(std::fs::read_to_string(&path).expect("a schema"));
        let started = Instant::now();
        let grammar = compiler.compile(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        compile.push(micros(started));
        let mut times = Times::default();
        for seed in 1..=WALKS {
            let started = Instant::now();
            let mut constraint = grammar.constraint();
            clone.push(micros(started));
            walk(constraint.as_mut(), &tokenizer, seed, &mut times);
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:28} {}", row(&mut times.masks.clone()));
        all.masks.append(&mut times.masks);
        all.steps.append(&mut times.steps);
        all.forced += times.forced;
    }
    println!("{:28} {}", "all masks", row(&mut all.masks));
    println!("{:28} {}", "accept and forced", row(&mut all.steps));
    println!("{:28} {}", "compile", row(&mut compile));
    println!("{:28} {}", "a request's own copy", row(&mut clone));
    println!("{} of {} tokens were forced and need no mask", all.forced, all.steps.len());
}

#[derive(Default)]
struct Times {
    masks: Vec<f64>,
    steps: Vec<f64>,
    forced: usize,
}

/// Random tokens that are allowed; of two drawn the shorter one, since models write more short tokens than vocabularies have.
fn walk(constraint: &mut dyn fastllm_engine::Constraint, tokenizer: &Tokenizer, seed: u64, times: &mut Times) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % most as u64) as usize
    };
    for _ in 0..TOKENS {
        let started = Instant::now();
        let forced = constraint.forced().expect("forced tokens");
        let mut spent = micros(started);
        times.forced += forced.len();
        for id in forced {
            let started = Instant::now();
            constraint.accept(id).expect("a forced token");
            times.steps.push(std::mem::take(&mut spent) + micros(started));
        }
        if constraint.is_complete() {
            return;
        }
        let started = Instant::now();
        let mask = constraint.mask().expect("a mask");
        times.masks.push(micros(started));
        let allowed: Vec<u32> = (0..mask.len() as u32 * 32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        let pick = [allowed[draw(allowed.len())], allowed[draw(allowed.len())]];
        let id = pick.into_iter().min_by_key(|id| tokenizer.token_bytes(*id).map_or(0, <[u8]>::len)).unwrap_or(pick[0]);
        if tokenizer.end_of_generation().contains(&id) {
            return;
        }
        let started = Instant::now();
        constraint.accept(id).expect("an allowed token");
        times.steps.push(micros(started));
        if constraint.is_complete() {
            return;
        }
    }
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Number, median, 99th percentile, largest and first.
fn row(times: &mut [f64]) -> String {
    let first = times.first().copied().unwrap_or(0.0);
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(0.0);
    format!("{:6} {:9.1} {:9.1} {:9.1} {first:9.1}", times.len(), at(0.5), at(0.99), at(1.0))
}

/// A vocabulary of bytes and made-up words, with and without a space before them.
fn made_up() -> Metadata {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend((33..127).map(|c| char::from(c).to_string()));
    let syllables =
        ["a", "be", "cri", "do", "en", "fa", "gu", "ho", "in", "ka", "lo", "ma", "ne", "or", "pe", "ra", "sti", "tu", "un", "ver"];
    let mut n = 0usize;
    while tokens.len() < 131_072 {
        let (mut word, mut rest) = (String::new(), n);
        while rest > 0 || word.is_empty() {
            word.push_str(syllables[rest % syllables.len()]);
            rest /= syllables.len();
        }
        tokens.extend([format!("▁{word}"), word]);
        n += 1;
    }
    tokens.truncate(131_072);
    let kind = |index: usize| match index {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    let kinds: Vec<i32> = (0..tokens.len()).map(kind).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|index| -(index as f32)).collect();
    let mut writer = Writer::new();
    writer.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", kinds.as_slice());
    writer.set("tokenizer.ggml.scores", scores.as_slice()).set("tokenizer.ggml.eos_token_id", 2u32);
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("metadata that the reader accepts");
    Header::parse(&bytes, bytes.len() as u64).expect("a header").metadata
}
