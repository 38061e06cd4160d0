//! Tests of whole tokenizers: reference cases, laws, hostile vocabularies, and time.

mod hostile;
mod laws;
mod reference;
mod speed;

use std::path::PathBuf;

use fastllm_gguf::{GgufFile, Header, Metadata, Writer};

use super::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSED: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

/// The vocabularies that are part of the project.
fn shipped() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tokenizers"))
}

/// The vocabularies of published models: beside the repository or where FASTLLM_SHARED says; not part of the project.
fn published() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let folder = std::env::var_os("FASTLLM_SHARED").map_or_else(beside, PathBuf::from).join("tokenizers");
    if !folder.is_dir() {
        eprintln!("skipped: {} is missing (set FASTLLM_SHARED)", folder.display());
        return None;
    }
    Some(folder)
}

fn open(folder: &std::path::Path) -> Tokenizer {
    let file = GgufFile::open(folder.join("vocab.gguf")).expect("a GGUF file");
    Tokenizer::from_metadata(file.metadata()).expect("a tokenizer")
}

fn open_shipped(name: &str) -> Tokenizer {
    open(&shipped().join(name))
}

/// Metadata as a file with these keys would have it.
fn metadata(writer: &Writer) -> Metadata {
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("metadata that the reader accepts");
    Header::parse(&bytes, bytes.len() as u64).expect("a header").metadata
}
