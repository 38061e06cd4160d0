//! Models on disk: one file, or a set of shards.

use std::path::Path;

use crate::convert::len_u64;
use crate::error::{Error, quoted};
use crate::header::{Header, Sections};
use crate::limits;
use crate::memory;
use crate::metadata::Metadata;
use crate::regular_file::{FileStamp, RegularFile};
use crate::shards;
use crate::tensor_info::{TensorInfo, name_at, sort_by_name};

/// Headers below this size are read at once.
const FIRST_READ: u64 = 4 << 20;

/// An open model: one file or a set of shards. Its tensors are read, not mapped: a file that shrinks or vanishes gives an error.
#[derive(Debug)]
pub struct GgufFile {
    files: Vec<RegularFile>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: Vec<u32>,
}

impl GgufFile {
    /// Opens a file, or all shards of a model by its first one, and reads the headers.
    ///
    /// # Errors
    /// Anything that is wrong with a file before its tensor data; a shard that is missing, or does not belong to the others.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = RegularFile::open(path.as_ref())?;
        let Header { version, metadata, mut tensors, .. } = read_header(&file)?;
        let mut files = vec![file];
        shards::open_others(&mut files, &metadata, &mut tensors)?;
        let by_name = sort_by_name(&tensors)?;
        Ok(Self { files, version, metadata, tensors, by_name })
    }

    /// The metadata, of the first shard.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors of all shards, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let place = self.by_name.binary_search_by(|&i| name_at(&self.tensors, i).cmp(name)).ok()?;
        self.tensors.get(usize::try_from(*self.by_name.get(place)?).ok()?)
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| &f.path)
    }

    /// The paths of all shards.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }

    /// The GGUF version, of the first shard.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().fold(0, |n, f| n.saturating_add(f.len))
    }

    /// The state of every file now, the first shard's first: of the files that were opened, whatever their names stand for by now.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn stamps(&self) -> Result<Vec<FileStamp>, Error> {
        self.files.iter().map(RegularFile::stamp).collect()
    }

    /// Fills `buf` with the bytes of a file from `offset` on; files are numbered as in [`stamps`](Self::stamps).
    ///
    /// # Errors
    /// The range is not inside the file, there is no such file, or it cannot be read.
    pub fn read_file_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let len = len_u64(buf.len());
        match self.files.get(file) {
            Some(file) => file.read_exact_at(buf, offset, || format!("read {len} bytes at byte {offset}")),
            None => Err(wrong_file(self.path(), file)),
        }
    }

    /// Fills `buf` with the bytes of a tensor of this model from `offset` on. Safe to call from many threads at once.
    ///
    /// # Errors
    /// The range is not inside the tensor, the tensor is not of this model, or the file cannot be read or has become shorter.
    pub fn read_at(&self, t: &TensorInfo, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let len = len_u64(buf.len());
        let outside = || Error::ReadOutsideTensor { name: quoted(t.name.as_bytes()), offset, len, bytes: t.bytes };
        let inside = offset.checked_add(len).is_some_and(|end| end <= t.bytes);
        let (true, Some(file), Some(start)) = (inside, self.files.get(t.file), t.offset.checked_add(offset)) else {
            return Err(outside());
        };
        file.read_exact_at(buf, start, || format!("read {len} bytes of tensor {} at byte {start}", quoted(t.name.as_bytes())))
    }
}

fn wrong_file(path: &Path, file: usize) -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the model has fewer files");
    Error::Io { path: path.to_owned(), doing: format!("read file {file}"), source }
}

/// Reads the header in growing prefixes: its length is not known before it was parsed.
pub(crate) fn read_header(file: &RegularFile) -> Result<Header, Error> {
    let mut bytes = Vec::new();
    let mut len = file.len.min(FIRST_READ);
    let sections = loop {
        read_prefix(file, &mut bytes, len)?;
        match Sections::scan(&bytes, file.len) {
            Ok(sections) => break sections,
            Err(Error::Truncated { subject, offset, needed, .. }) if end(offset, needed) <= file.len => {
                if end(offset, needed) > limits::HEADER_BYTES {
                    return Err(file.inside(Error::HeaderTooLarge { subject, limit: limits::HEADER_BYTES }));
                }
                len = len.saturating_mul(2).min(file.len).min(limits::HEADER_BYTES);
            }
            Err(error) => return Err(file.inside(error)),
        }
    };
    bytes.truncate(sections.end);
    bytes.shrink_to_fit();
    Header::build(bytes, &sections, file.len).map_err(|e| file.inside(e))
}

fn end(offset: u64, needed: u64) -> u64 {
    offset.saturating_add(needed)
}

/// Extends `bytes` to the first `len` bytes of the file.
fn read_prefix(file: &RegularFile, bytes: &mut Vec<u8>, len: u64) -> Result<(), Error> {
    let have = bytes.len();
    // At most `limits::HEADER_BYTES`, which every supported target can count.
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    memory::reserve(bytes, len.saturating_sub(have))?;
    bytes.resize(len, 0);
    let tail = bytes.get_mut(have..).unwrap_or_default();
    file.read_exact_at(tail, len_u64(have), || "read the header".to_owned())
}
