//! Metadata: typed values by key.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::cursor::{Cursor, Subject};
use crate::error::{Error, quoted};
use crate::limits;
use crate::memory;
use crate::value::{Array, Value, ValueType};

/// Fewest bytes of an entry: key length, one byte of key, type, one byte of value.
pub(crate) const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Where an entry is in the header. Headers are below 4 GiB ([`limits::HEADER_BYTES`]), so 32 bits do.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    key_start: u32,
    key_end: u32,
    value_start: u32,
    value_end: u32,
    kind: ValueType,
}

impl Entry {
    /// Reads and validates entry number `index`.
    pub(crate) fn read(cursor: &mut Cursor<'_>, index: u64) -> Result<Self, Error> {
        cursor.subject = Subject::MetadataEntry(index);
        let key = cursor.name("key", limits::KEY_BYTES)?;
        let key_end = cursor.position();
        cursor.subject = Subject::Key(key.as_bytes());
        let kind = cursor.value_type("value type")?;
        let value_start = cursor.position();
        cursor.skip_value(kind, 0)?;
        let place = |at: usize| u32::try_from(at).map_err(|_| cursor.header_too_large());
        Ok(Self {
            key_start: place(key_end.saturating_sub(key.len()))?,
            key_end: place(key_end)?,
            value_start: place(value_start)?,
            value_end: place(cursor.position())?,
            kind,
        })
    }
}

struct Inner {
    /// The header from the start of the file.
    bytes: Vec<u8>,
    /// In file order.
    entries: Vec<Entry>,
    /// Indices of `entries` in the order of their keys.
    by_key: Vec<u32>,
}

fn slice(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    let range: Option<Range<usize>> = usize::try_from(start).ok().zip(usize::try_from(end).ok()).map(|(a, b)| a..b);
    // Entries were read from these bytes, so the range is inside.
    range.and_then(|r| bytes.get(r)).unwrap_or_default()
}

impl Inner {
    fn key(&self, entry: &Entry) -> &[u8] {
        slice(&self.bytes, entry.key_start, entry.key_end)
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn key_at(&self, index: u32) -> &[u8] {
        self.entry(index).map_or(&[], |e| self.key(e))
    }

    fn value(&self, entry: &Entry) -> Option<Value<'_>> {
        Value::decode_all(entry.kind, slice(&self.bytes, entry.value_start, entry.value_end))
    }

    fn sort(&mut self) -> Result<(), Error> {
        let mut by_key: Vec<u32> = memory::collect(self.entries.len(), 0u32..)?;
        // Equal keys stay in file order: the later one is the duplicate.
        by_key.sort_unstable_by(|&a, &b| self.key_at(a).cmp(self.key_at(b)).then(a.cmp(&b)));
        for (&a, &b) in by_key.iter().zip(by_key.iter().skip(1)) {
            if self.key_at(a) == self.key_at(b) {
                let offset = self.entry(b).map_or(0, |e| e.key_start.into());
                return Err(Error::DuplicateKey { key: quoted(self.key_at(b)), offset });
            }
        }
        self.by_key = by_key;
        Ok(())
    }
}

/// The metadata of a file. Clones share the bytes; values borrow from them.
#[derive(Clone)]
pub struct Metadata(Arc<Inner>);

impl Metadata {
    /// From header bytes and the entries that were read from them.
    pub(crate) fn new(bytes: Vec<u8>, entries: Vec<Entry>) -> Result<Self, Error> {
        let mut inner = Inner { bytes, entries, by_key: Vec::new() };
        inner.sort()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The header from the start of the file.
    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let inner = &*self.0;
        let place = inner.by_key.binary_search_by(|&i| inner.key_at(i).cmp(key.as_bytes())).ok()?;
        inner.value(inner.entry(*inner.by_key.get(place)?)?)
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        // Keys were checked to be UTF-8 when they were read.
        self.0.entries.iter().filter_map(|e| Some((std::str::from_utf8(self.0.key(e)).ok()?, self.0.value(e)?)))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// An integer of any type whose value fits; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not an integer or out of range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.integer(key, "u32")
    }

    /// An integer of any type whose value fits; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not an integer or out of range.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.integer(key, "u64")
    }

    /// An integer of any type whose value fits; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not an integer or out of range.
    pub fn i32(&self, key: &str) -> Result<Option<i32>, Error> {
        self.integer(key, "i32")
    }

    /// A float or integer, rounded to the nearest `f32`; `None` if the key is absent. NaN and infinities are passed on.
    ///
    /// # Errors
    /// The value is not a number, or finite but beyond the range of `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match (value.as_f32(), value) {
            (Some(x), _) => Ok(Some(x)),
            (None, Value::F64(x)) => Err(Error::OutOfRange { key: quoted(key.as_bytes()), found: x.to_string(), wanted: "f32" }),
            (None, _) => Err(wrong_type(key, value, "a number")),
        }
    }

    /// A bool; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not a bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "bool", |v| v.as_bool())
    }

    /// A UTF-8 string; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not a string, or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        let Some(bytes) = self.typed(key, "string", |v| v.as_bytes())? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        text.map(Some).map_err(|e| Error::NotUtf8 { key: quoted(key.as_bytes()), valid_up_to: e.valid_up_to() })
    }

    /// An array; `None` if the key is absent.
    ///
    /// # Errors
    /// The value is not an array.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>, Error> {
        self.typed(key, "array", |v| v.as_array())
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, Error> {
        let Some(x) = self.typed(key, wanted, |v| v.integer())? else { return Ok(None) };
        T::try_from(x).map(Some).map_err(|_| Error::OutOfRange { key: quoted(key.as_bytes()), found: x.to_string(), wanted })
    }

    fn typed<'a, T>(&'a self, key: &str, wanted: &'static str, convert: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| wrong_type(key, value, wanted))
    }
}

fn wrong_type(key: &str, value: Value<'_>, wanted: &'static str) -> Error {
    let found = match value {
        Value::Array(array) => format!("array of {}", array.kind()),
        other => other.kind().name().to_owned(),
    };
    Error::WrongType { key: quoted(key.as_bytes()), found, wanted }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
