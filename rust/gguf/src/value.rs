//! Metadata values, borrowed from the header.

use std::fmt;

use crate::convert::{f64_to_f32, i64_to_f32, u64_to_f32};

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// Every type, in the order of their ids.
    pub const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with this id in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The id in a file.
    pub const fn id(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::U16 => 2,
            Self::I16 => 3,
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::String => 8,
            Self::Array => 9,
            Self::U64 => 10,
            Self::I64 => 11,
            Self::F64 => 12,
        }
    }

    /// The name in lower case, such as `u32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes of a value; `None` for strings and arrays.
    pub(crate) const fn fixed_size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// Fewest bytes a value can take: an empty string is its length, an empty array its element type and length.
    pub(crate) const fn min_size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value. Strings are bytes, because token texts are not always UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(&'a [u8]),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// The type.
    pub const fn kind(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
        }
    }

    /// The text of a string that is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An integer of any type.
    pub(crate) fn integer(&self) -> Option<i128> {
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::I8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::I16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::I32(x) => Some(x.into()),
            Self::U64(x) => Some(x.into()),
            Self::I64(x) => Some(x.into()),
            _ => None,
        }
    }

    /// An integer of any type whose value fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.integer()?.try_into().ok()
    }

    /// An integer of any type whose value fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.integer()?.try_into().ok()
    }

    /// A float or integer, rounded to the nearest `f32`; `None` if a finite value is beyond its range.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(x) => Some(x),
            Self::F64(x) => f64_to_f32(x),
            Self::U64(x) => Some(u64_to_f32(x)),
            _ => self.as_i64().map(i64_to_f32),
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(x) => Some(*x),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match self {
            Self::Array(x) => Some(*x),
            _ => None,
        }
    }

    /// The value of this type that takes all of `bytes`. `None` only if the bytes were not validated.
    pub(crate) fn decode_all(kind: ValueType, bytes: &'a [u8]) -> Option<Self> {
        if kind != ValueType::Array {
            return Self::decode(kind, bytes).map(|(value, _)| value);
        }
        let (kind, len, payload) = array_head(bytes)?;
        Some(Self::Array(Array { kind, len, payload }))
    }

    /// The value of this type at the start of `bytes`, and the bytes after it. `None` only if the bytes were not validated.
    pub(crate) fn decode(kind: ValueType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        Some(match kind {
            ValueType::U8 => number(bytes, |b| Self::U8(u8::from_le_bytes(b)))?,
            ValueType::I8 => number(bytes, |b| Self::I8(i8::from_le_bytes(b)))?,
            ValueType::U16 => number(bytes, |b| Self::U16(u16::from_le_bytes(b)))?,
            ValueType::I16 => number(bytes, |b| Self::I16(i16::from_le_bytes(b)))?,
            ValueType::U32 => number(bytes, |b| Self::U32(u32::from_le_bytes(b)))?,
            ValueType::I32 => number(bytes, |b| Self::I32(i32::from_le_bytes(b)))?,
            ValueType::U64 => number(bytes, |b| Self::U64(u64::from_le_bytes(b)))?,
            ValueType::I64 => number(bytes, |b| Self::I64(i64::from_le_bytes(b)))?,
            ValueType::F32 => number(bytes, |b| Self::F32(f32::from_le_bytes(b)))?,
            ValueType::F64 => number(bytes, |b| Self::F64(f64::from_le_bytes(b)))?,
            ValueType::Bool => number(bytes, |[b]| Self::Bool(b != 0))?,
            ValueType::String => {
                let (len, rest) = number(bytes, u64::from_le_bytes)?;
                let (text, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                (Self::String(text), rest)
            }
            ValueType::Array => {
                let (kind, len, rest) = array_head(bytes)?;
                let (payload, rest) = rest.split_at_checked(payload_bytes(kind, len, rest)?)?;
                (Self::Array(Array { kind, len, payload }), rest)
            }
        })
    }
}

fn number<const N: usize, T>(bytes: &[u8], make: impl FnOnce([u8; N]) -> T) -> Option<(T, &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (make(*head), rest))
}

/// Element type and length of an array, and the bytes from its elements on.
fn array_head(bytes: &[u8]) -> Option<(ValueType, usize, &[u8])> {
    let (id, rest) = number(bytes, u32::from_le_bytes)?;
    let (len, rest) = number(rest, u64::from_le_bytes)?;
    Some((ValueType::from_id(id)?, usize::try_from(len).ok()?, rest))
}

/// Bytes that `len` values of this type take at the start of `bytes`.
fn payload_bytes(kind: ValueType, len: usize, bytes: &[u8]) -> Option<usize> {
    if let Some(size) = kind.fixed_size() {
        return len.checked_mul(size);
    }
    let mut rest = bytes;
    for _ in 0..len {
        rest = Value::decode(kind, rest)?.1;
    }
    bytes.len().checked_sub(rest.len())
}

/// An array of values of one type.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    payload: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of the elements.
    pub const fn kind(&self) -> ValueType {
        self.kind
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.kind, self.payload);
        (0..self.len).map_while(move |_| {
            let (value, after) = Value::decode(kind, rest)?;
            rest = after;
            Some(value)
        })
    }

    /// The elements of an array of strings.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        (self.kind == ValueType::String).then(|| self.iter().filter_map(|v| v.as_bytes()))
    }

    /// Floats or integers as `f32`; `None` for other types, if an element is beyond the range, or if memory is short.
    pub fn to_f32s(&self) -> Option<Vec<f32>> {
        self.collect(|v| v.as_f32())
    }

    /// Integers of any type; `None` for other types, if an element does not fit, or if memory is short.
    pub fn to_i32s(&self) -> Option<Vec<i32>> {
        self.collect(|v| v.integer()?.try_into().ok())
    }

    /// Integers of any type; `None` for other types, if an element does not fit, or if memory is short.
    pub fn to_u32s(&self) -> Option<Vec<u32>> {
        self.collect(|v| v.integer()?.try_into().ok())
    }

    /// Bools; `None` for other types, or if memory is short.
    pub fn to_bools(&self) -> Option<Vec<bool>> {
        self.collect(|v| v.as_bool())
    }

    fn collect<T>(&self, convert: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        // Strings and arrays never convert: no allocation for them.
        self.kind.fixed_size()?;
        let mut out = crate::memory::with_capacity(self.len).ok()?;
        for value in self.iter() {
            out.push(convert(value)?);
        }
        Some(out)
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{}[{}] ", self.kind, self.len)?;
        f.debug_list().entries(self.iter().take(SHOWN)).finish()
    }
}
