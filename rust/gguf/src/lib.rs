//! The GGUF file format: reader, writer, shards. Knows bytes and types, no kernels.
//!
//! A file is `GGUF`, a version, counts, metadata (key, typed value), tensor infos, padding and tensor data; see the
//! [specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Versions 2 and 3, little-endian, are read; 3 is written.
//!
//! Files are untrusted. Every count, length and offset is compared with the bytes that are there before anything is allocated or
//! read by it, all size arithmetic is checked, and whatever is wrong becomes an [`Error`] that names the key or tensor and, where
//! there is one, the byte offset. Memory that cannot be had is an error too. Weights are never mapped into memory: [`GgufFile::read_at`] reads them.
//!
//! ```no_run
//! let model = fastllm_gguf::GgufFile::open("model.gguf")?;
//! let layers = model.metadata().u32("llama.block_count")?;
//! let tensor = model.tensor("token_embd.weight").expect("a language model");
//! let mut block = vec![0; 64];
//! model.read_at(tensor, 0, &mut block)?;
//! # Ok::<(), fastllm_gguf::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::as_conversions
    )
)]

mod convert;
mod cursor;
mod dtype;
mod error;
mod file;
mod header;
mod memory;
mod metadata;
mod owned;
mod regular_file;
mod shards;
mod sniff;
mod tensor_info;
mod value;
mod writer;

pub use dtype::DType;
pub use error::Error;
pub use file::GgufFile;
pub use header::Header;
pub use metadata::Metadata;
pub use owned::OwnedValue;
pub use regular_file::{FileStamp, open_regular};
pub use tensor_info::TensorInfo;
pub use value::{Array, Value, ValueType};
pub use writer::Writer;

/// Bounds on what a file may ask for, far above any model in use. They keep the time and memory of a hostile file small.
pub mod limits {
    /// Largest header (everything before the tensor data) in bytes. The largest vocabularies in use need about 16 MiB.
    pub const HEADER_BYTES: u64 = 256 << 20;
    /// Most metadata entries in one file.
    pub const METADATA_ENTRIES: u64 = 1 << 16;
    /// Most tensors in one file.
    pub const TENSORS: u64 = 1 << 20;
    /// Most dimensions of a tensor.
    pub const DIMENSIONS: usize = 4;
    /// Longest metadata key in bytes, from the specification.
    pub const KEY_BYTES: u64 = 65_535;
    /// Longest tensor name in bytes. The specification says 64; files with longer names exist.
    pub const TENSOR_NAME_BYTES: u64 = 1024;
    /// Deepest nesting of arrays in arrays.
    pub const ARRAY_DEPTH: u32 = 8;
    /// Largest `general.alignment`.
    pub const ALIGNMENT: u64 = 1 << 20;
    /// Most shards of one model.
    pub const SHARDS: u64 = 1024;
}
