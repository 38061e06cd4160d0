//! A position in the header bytes. Nothing is read, skipped or counted before it was compared with the bytes that are there.

use crate::convert::len_u64;
use crate::error::{Error, quoted};
use crate::limits;
use crate::value::ValueType;

/// What is being read, for error messages.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    FileHeader,
    MetadataEntry(u64),
    Key(&'a [u8]),
    TensorInfo(u64),
    Tensor(&'a [u8]),
}

impl Subject<'_> {
    fn describe(self) -> String {
        match self {
            Self::FileHeader => "file header".to_owned(),
            Self::MetadataEntry(i) => format!("metadata entry {i}"),
            Self::Key(key) => format!("metadata key {}", quoted(key)),
            Self::TensorInfo(i) => format!("tensor info {i}"),
            Self::Tensor(name) => format!("tensor {}", quoted(name)),
        }
    }
}

/// Reads little-endian fields of a prefix of a file.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    file_len: u64,
    position: usize,
    pub(crate) subject: Subject<'a>,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `position` of the first `bytes` of a file of `file_len` bytes.
    pub(crate) fn new(bytes: &'a [u8], file_len: u64, position: usize) -> Self {
        Self { bytes, file_len, position, subject: Subject::FileHeader }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn offset(&self) -> u64 {
        len_u64(self.position)
    }

    fn remaining_in_file(&self) -> u64 {
        self.file_len.saturating_sub(self.offset())
    }

    /// The next `needed` bytes.
    pub(crate) fn take(&mut self, needed: u64, field: &'static str) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = usize::try_from(needed).ok().and_then(|n| rest.get(..n));
        let Some(taken) = taken else {
            let (subject, end) = (self.subject.describe(), len_u64(self.bytes.len()));
            return Err(Error::Truncated { subject, field, offset: self.offset(), needed, end, file_len: self.file_len });
        };
        self.position = self.position.saturating_add(taken.len());
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let bytes = self.take(len_u64(N), field)?;
        // `take` gave exactly N bytes.
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Error> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Error> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number of records of at least `record` bytes each, at most `cap`, that the rest of the file can hold.
    pub(crate) fn count(&mut self, field: &'static str, record: u64, cap: u64) -> Result<u64, Error> {
        let offset = self.offset();
        let value = self.u64(field)?;
        self.check_count(field, offset, value, record, cap)?;
        Ok(value)
    }

    /// Compares a count that was read before with what is possible from here on.
    pub(crate) fn check_count(&self, field: &'static str, offset: u64, value: u64, record: u64, cap: u64) -> Result<(), Error> {
        let limit = self.remaining_in_file().checked_div(record).unwrap_or(cap).min(cap);
        if value > limit {
            return Err(Error::TooLarge { subject: self.subject.describe(), field, offset, value, limit });
        }
        Ok(())
    }

    /// The bytes of a string of at most `cap` bytes.
    pub(crate) fn string(&mut self, field: &'static str, cap: u64) -> Result<&'a [u8], Error> {
        let len = self.count(field, 1, cap)?;
        self.take(len, field)
    }

    /// A string that names something: not empty, UTF-8, without NUL.
    pub(crate) fn name(&mut self, field: &'static str, cap: u64) -> Result<&'a str, Error> {
        let offset = self.offset();
        let bytes = self.string(field, cap)?;
        let invalid = |reason: &str| self.invalid(field, offset, format!("{} {reason}", quoted(bytes)));
        let name = std::str::from_utf8(bytes).map_err(|_| invalid("is not UTF-8"))?;
        match name {
            "" => Err(self.invalid(field, offset, "is empty".to_owned())),
            _ if name.contains('\0') => Err(invalid("contains NUL")),
            _ => Ok(name),
        }
    }

    pub(crate) fn value_type(&mut self, field: &'static str) -> Result<ValueType, Error> {
        let offset = self.offset();
        let id = self.u32(field)?;
        ValueType::from_id(id).ok_or_else(|| self.invalid(field, offset, format!("has the unknown id {id}")))
    }

    /// Validates a value and moves past it. `depth` is the number of arrays around it.
    pub(crate) fn skip_value(&mut self, kind: ValueType, depth: u32) -> Result<(), Error> {
        match kind {
            ValueType::String => self.string("string", u64::MAX).map(drop),
            ValueType::Array => self.skip_array(depth),
            ValueType::Bool => self.skip_bools(1),
            _ => self.take(kind.min_size(), "value").map(drop),
        }
    }

    fn skip_array(&mut self, depth: u32) -> Result<(), Error> {
        let offset = self.offset();
        if depth >= limits::ARRAY_DEPTH {
            return Err(self.invalid("array", offset, format!("is nested deeper than {} arrays", limits::ARRAY_DEPTH)));
        }
        let kind = self.value_type("array element type")?;
        let len = self.count("array length", kind.min_size(), u64::MAX)?;
        match kind {
            ValueType::String | ValueType::Array => (0..len).try_for_each(|_| self.skip_value(kind, depth.saturating_add(1))),
            ValueType::Bool => self.skip_bools(len),
            // The count was checked against the bytes of the file, so the product is below its length.
            _ => self.take(len.saturating_mul(kind.min_size()), "array").map(drop),
        }
    }

    fn skip_bools(&mut self, len: u64) -> Result<(), Error> {
        let offset = self.offset();
        let bytes = self.take(len, "bool")?;
        match bytes.iter().position(|&b| b > 1) {
            None => Ok(()),
            Some(i) => Err(self.invalid("bool", offset.saturating_add(len_u64(i)), "is neither 0 nor 1".to_owned())),
        }
    }

    pub(crate) fn invalid(&self, field: &'static str, offset: u64, reason: String) -> Error {
        Error::Invalid { subject: self.subject.describe(), field, offset, reason }
    }
}
