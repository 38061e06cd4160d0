//! Everything before the tensor data.

use crate::convert::{align_up, len_u64};
use crate::cursor::{Cursor, Subject};
use crate::error::Error;
use crate::limits;
use crate::memory;
use crate::metadata::{Entry, MIN_ENTRY_BYTES, Metadata};
use crate::sniff;
use crate::tensor_info::{MIN_INFO_BYTES, RawInfo, TensorInfo, check_disjoint, sort_by_name};

pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;

/// The header of one file.
#[derive(Clone, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Tensor data starts at multiples of this.
    pub alignment: u64,
    /// The metadata.
    pub metadata: Metadata,
    /// The tensors in file order, `file` 0.
    pub tensors: Vec<TensorInfo>,
    /// Where tensor data starts in the file.
    pub data_start: u64,
}

/// The sections of a header whose syntax was checked.
pub(crate) struct Sections {
    version: u32,
    tensor_count: u64,
    entry_count: u64,
    /// Where the metadata starts, where it ends and where the tensor infos end.
    start: usize,
    metadata_end: usize,
    pub(crate) end: usize,
}

impl Header {
    /// Parses a file, or a prefix of one. `file_len` is the length of the whole file.
    ///
    /// # Errors
    /// Anything but a well-formed header whose tensors lie inside the file. If `bytes` is shorter than the file,
    /// [`Error::is_truncated`] means that a longer prefix is needed.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self, Error> {
        let sections = Sections::scan(bytes, file_len)?;
        Self::build(memory::copy(bytes.get(..sections.end).unwrap_or_default())?, &sections, file_len)
    }

    /// Builds the header from exactly its bytes. The syntax was checked by [`Sections::scan`].
    pub(crate) fn build(bytes: Vec<u8>, sections: &Sections, file_len: u64) -> Result<Self, Error> {
        let mut cursor = Cursor::new(&bytes, file_len, sections.start);
        // The scan has met every entry and tensor, so the counts are true.
        let mut entries = memory::with_capacity(capacity(sections.entry_count))?;
        for i in 0..sections.entry_count {
            entries.push(Entry::read(&mut cursor, i)?);
        }
        let metadata = Metadata::new(bytes, entries)?;
        let alignment = alignment(&metadata)?;
        let data_start = align_up(len_u64(sections.end), alignment).unwrap_or(u64::MAX);
        let mut cursor = Cursor::new(metadata.header_bytes(), file_len, sections.metadata_end);
        let mut tensors = memory::with_capacity(capacity(sections.tensor_count))?;
        for i in 0..sections.tensor_count {
            tensors.push(RawInfo::read(&mut cursor, i)?.place(data_start, alignment, file_len)?);
        }
        sort_by_name(&tensors)?;
        check_disjoint(&tensors)?;
        Ok(Self { version: sections.version, alignment, metadata, tensors, data_start })
    }
}

fn capacity(count: u64) -> usize {
    usize::try_from(count).unwrap_or(0)
}

impl Sections {
    /// Walks the header without allocating.
    pub(crate) fn scan(bytes: &[u8], file_len: u64) -> Result<Self, Error> {
        // Bytes beyond the stated length are not part of the file.
        let bytes = usize::try_from(file_len).ok().and_then(|n| bytes.get(..n)).unwrap_or(bytes);
        sniff::check_magic(bytes, file_len)?;
        let mut cursor = Cursor::new(bytes, file_len, sniff::MAGIC.len());
        let version = cursor.u32("version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => return Err(Error::BigEndian),
            _ => return Err(Error::UnsupportedVersion { version }),
        }
        let tensor_count_at = cursor.offset();
        let tensor_count = cursor.count("tensor count", MIN_INFO_BYTES, limits::TENSORS)?;
        let entry_count = cursor.count("metadata entry count", MIN_ENTRY_BYTES, limits::METADATA_ENTRIES)?;
        let start = cursor.position();
        for i in 0..entry_count {
            Entry::read(&mut cursor, i)?;
        }
        let metadata_end = cursor.position();
        cursor.subject = Subject::FileHeader;
        cursor.check_count("tensor count", tensor_count_at, tensor_count, MIN_INFO_BYTES, limits::TENSORS)?;
        for i in 0..tensor_count {
            RawInfo::read(&mut cursor, i)?;
        }
        let end = cursor.position();
        if len_u64(end) > limits::HEADER_BYTES {
            return Err(cursor.header_too_large());
        }
        Ok(Self { version, tensor_count, entry_count, start, metadata_end, end })
    }
}

/// `general.alignment`, of any integer type because some writers use others than the specified u32.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    let found = match metadata.u64(ALIGNMENT_KEY) {
        Ok(None) => return Ok(DEFAULT_ALIGNMENT),
        Ok(Some(x)) if x.is_power_of_two() && x <= limits::ALIGNMENT => return Ok(x),
        Ok(Some(x)) => x.to_string(),
        Err(Error::OutOfRange { found, .. }) => found,
        Err(other) => return Err(other),
    };
    Err(Error::Alignment { found })
}
