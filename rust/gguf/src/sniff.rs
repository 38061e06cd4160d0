//! The magic, and what a file without it probably is.

use crate::convert::len_u64;
use crate::error::Error;

pub(crate) const MAGIC: &[u8] = b"GGUF";

/// Checks that a file starts with the magic. `bytes` is a prefix of a file of `file_len` bytes.
pub(crate) fn check_magic(bytes: &[u8], file_len: u64) -> Result<(), Error> {
    if bytes.starts_with(MAGIC) {
        return Ok(());
    }
    let needed = len_u64(MAGIC.len());
    if !bytes.is_empty() && MAGIC.starts_with(bytes) || bytes.is_empty() && file_len > 0 {
        let (subject, end) = ("file header".to_owned(), len_u64(bytes.len()));
        return Err(Error::Truncated { subject, field: "magic", offset: 0, needed, end, file_len });
    }
    Err(Error::NotGguf { found: looks_like(bytes) })
}

fn looks_like(bytes: &[u8]) -> &'static str {
    const STARTS: [(&[u8], &str); 10] = [
        (b"version https://git-lfs", "this is a git-lfs pointer, run `git lfs pull` to get the file itself"),
        (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint: convert the model to GGUF"),
        (b"\x1f\x8b", "gzip-compressed: unpack it"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it"),
        (b"\x89HDF", "an HDF5 file: convert the model to GGUF"),
        (b"lmgg", "a GGML file of 2023: convert the model again"),
        (b"fmgg", "a GGMF file of 2023: convert the model again"),
        (b"tjgg", "a GGJT file of 2023: convert the model again"),
        (b"FUGG", "the magic is byte-swapped: the file was written for a big-endian machine"),
        (b"\0\0\0\0", "it starts with zeros: the download is probably incomplete"),
    ];
    if bytes.is_empty() {
        return "the file is empty";
    }
    if let Some((_, what)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return what;
    }
    // A safetensors file is the length of its JSON header in 64 bits, then the header.
    if bytes.get(8..10) == Some(b"{\"") && bytes.get(6..8) == Some(&[0, 0]) {
        return "a safetensors file: convert the model to GGUF, or open its directory";
    }
    let text = bytes.trim_ascii_start();
    match text.first() {
        Some(b'<') => "an HTML or XML page: the download went wrong",
        Some(b'{') => "JSON text: the download went wrong, or this is a configuration file",
        _ if text.iter().take(64).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text: the download went wrong",
        _ => "the first four bytes are not `GGUF`",
    }
}
