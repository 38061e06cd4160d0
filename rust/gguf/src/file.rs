//! Models on disk: one file, or a set of shards.

use std::path::Path;

use crate::convert::len_u64;
use crate::error::{Error, quoted};
use crate::header::{Header, Sections};
use crate::limits;
use crate::metadata::Metadata;
use crate::regular_file::RegularFile;
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

/// Reads the header in growing prefixes: its length is not known before it was parsed.
pub(crate) fn read_header(file: &RegularFile) -> Result<Header, Error> {
    let mut bytes = Vec::new();
    let mut len = file.len.min(FIRST_READ);
    let sections = loop {
        read_prefix(file, &mut bytes, len)?;
        match Sections::scan(&bytes, file.len) {
            Ok(sections) => break sections,
            Err(Error::Truncated { offset, needed, .. }) if more_helps(offset, needed, file.len) => {
                if len >= limits::HEADER_BYTES {
                    return Err(file.inside(Error::HeaderTooLarge { limit: limits::HEADER_BYTES }));
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

fn more_helps(offset: u64, needed: u64, file_len: u64) -> bool {
    offset.checked_add(needed).is_some_and(|end| end <= file_len)
}

/// Extends `bytes` to the first `len` bytes of the file.
fn read_prefix(file: &RegularFile, bytes: &mut Vec<u8>, len: u64) -> Result<(), Error> {
    let have = bytes.len();
    let len = usize::try_from(len).map_err(|_| Error::HeaderTooLarge { limit: limits::HEADER_BYTES })?;
    bytes.reserve_exact(len.saturating_sub(have));
    bytes.resize(len, 0);
    let tail = bytes.get_mut(have..).unwrap_or_default();
    file.read_exact_at(tail, len_u64(have), || "read the header".to_owned())
}
