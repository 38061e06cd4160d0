//! What can be wrong with a file.

use std::io;
use std::path::PathBuf;

/// Why a file could not be opened, read or written. `subject` names the metadata key or tensor; offsets are bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: String,
        /// The reason.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{}: {kind}, not a regular file", path.display())]
    NotRegularFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// Something is wrong inside this file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// Another kind of file.
    #[error("not a GGUF file: {found}")]
    NotGguf {
        /// What it looks like and what to do about it.
        found: &'static str,
    },
    /// A big-endian file.
    #[error("big-endian GGUF is not supported: convert the model to little-endian")]
    BigEndian,
    /// A version that is not read.
    #[error("GGUF version {version} is not supported (only 2 and 3): convert the model again with current tools")]
    UnsupportedVersion {
        /// The version in the file.
        version: u32,
    },
    /// The bytes given end before the header does. With `offset + needed <= file_len` they are a prefix that is too short: read more.
    /// Otherwise the file itself is cut off, or a length in it is wrong.
    #[error("{subject}: {field} at byte {offset} takes {needed} bytes, but the {} ends at byte {end}", if end < file_len { "prefix" } else { "file" })]
    Truncated {
        /// The key or tensor.
        subject: String,
        /// The field.
        field: &'static str,
        /// Where the field starts.
        offset: u64,
        /// Bytes it takes.
        needed: u64,
        /// Bytes that were given.
        end: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// A count or length above what is accepted, or above what the rest of the file could hold.
    #[error("{subject}: {field} at byte {offset} is {value}, but at most {limit} is possible")]
    TooLarge {
        /// The key or tensor.
        subject: String,
        /// The field.
        field: &'static str,
        /// Where the field is.
        offset: u64,
        /// Its value.
        value: u64,
        /// The most that is accepted here.
        limit: u64,
    },
    /// The header is larger than [`limits::HEADER_BYTES`](crate::limits::HEADER_BYTES).
    #[error("{subject} is beyond the first {limit} bytes, where the header must end")]
    HeaderTooLarge {
        /// The key or tensor that is not inside the limit.
        subject: String,
        /// The limit.
        limit: u64,
    },
    /// A field holds what the format does not allow.
    #[error("{subject}: {field} at byte {offset} {reason}")]
    Invalid {
        /// The key or tensor.
        subject: String,
        /// The field.
        field: &'static str,
        /// Where the field is.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Two metadata entries have the same key.
    #[error("metadata key {key} occurs twice, the second time at byte {offset}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one is.
        offset: u64,
    },
    /// Two tensors have the same name.
    #[error("tensor {name} occurs twice")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// `general.alignment` is not a power of two in the accepted range.
    #[error("general.alignment is {found}, not a power of two from 1 to {}", crate::limits::ALIGNMENT)]
    Alignment {
        /// The value.
        found: String,
    },
    /// A tensor's data is not inside the file.
    #[error(
        "tensor {name}: its {bytes} bytes of data at data offset {offset} do not fit: the data starts at byte {data_start} of {file_len}"
    )]
    OutsideFile {
        /// The tensor.
        name: String,
        /// Offset from the start of the data.
        offset: u64,
        /// Bytes of the tensor.
        bytes: u64,
        /// Where the data starts.
        data_start: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first} and {second} overlap at byte {offset}")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The other.
        second: String,
        /// Where the other starts.
        offset: u64,
    },
    /// A metadata value is of another type than the caller needs.
    #[error("metadata key {key} is of type {found}, expected {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// The type in the file.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A metadata value does not fit the type the caller needs.
    #[error("metadata key {key} is {found}, out of range for {wanted}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A metadata string is not UTF-8.
    #[error("metadata key {key} is not valid UTF-8 from byte {valid_up_to} of the string on")]
    NotUtf8 {
        /// The key.
        key: String,
        /// Length of the valid part.
        valid_up_to: usize,
    },
    /// A later shard was opened.
    #[error("{} is shard {number} of {count}: open the first one, {}", path.display(), first.display())]
    NotFirstShard {
        /// The path given.
        path: PathBuf,
        /// Its number, from 1.
        number: u64,
        /// Number of shards.
        count: u64,
        /// The shard to open.
        first: PathBuf,
    },
    /// A shard is not there.
    #[error("shard {number} of {count} is missing: {}", path.display())]
    MissingShard {
        /// Where it should be.
        path: PathBuf,
        /// Its number, from 1.
        number: u64,
        /// Number of shards.
        count: u64,
    },
    /// The shards do not belong together, or are not named `<prefix>-00001-of-00003.gguf`.
    #[error("{}: {reason}", path.display())]
    Shards {
        /// The shard.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is not enough memory.
    #[error("out of memory: {bytes} bytes could not be allocated for the header of the file")]
    OutOfMemory {
        /// Size of the allocation that failed.
        bytes: usize,
    },
    /// A read outside a tensor.
    #[error("tensor {name}: read of {len} bytes at {offset}, but it has {bytes} bytes")]
    ReadOutsideTensor {
        /// The tensor.
        name: String,
        /// Offset in the tensor.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes of the tensor.
        bytes: u64,
    },
    /// What the writer was given cannot be a GGUF file.
    #[error("cannot write {subject}: {reason}")]
    Unwritable {
        /// The key or tensor.
        subject: String,
        /// Why.
        reason: String,
    },
    /// The output refused.
    #[error("writing GGUF: {0}")]
    Output(#[source] io::Error),
}

impl Error {
    /// Whether the bytes ended before the header did. For a prefix of a file this means "read more and parse again".
    pub fn is_truncated(&self) -> bool {
        matches!(self.root(), Self::Truncated { .. })
    }

    /// The error without the path around it.
    pub fn root(&self) -> &Self {
        match self {
            Self::InFile { source, .. } => source.root(),
            other => other,
        }
    }
}

/// A name from a file, safe and short enough to print.
pub(crate) fn quoted(name: &[u8]) -> String {
    const SHOWN: usize = 96;
    let (head, more) = match name.split_at_checked(SHOWN) {
        Some((head, rest)) if !rest.is_empty() => (head, "…"),
        _ => (name, ""),
    };
    format!("`{}{more}`", String::from_utf8_lossy(head).escape_debug())
}
