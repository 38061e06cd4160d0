//! Metadata values for the writer.

use crate::value::{Value, ValueType};

/// A metadata value that owns its contents.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum OwnedValue {
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
    String(Vec<u8>),
    /// Elements of one type, which an empty array also has.
    Array(ValueType, Vec<OwnedValue>),
}

impl OwnedValue {
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
            Self::Array(..) => ValueType::Array,
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::U8(x) => Self::U8(x),
            Value::I8(x) => Self::I8(x),
            Value::U16(x) => Self::U16(x),
            Value::I16(x) => Self::I16(x),
            Value::U32(x) => Self::U32(x),
            Value::I32(x) => Self::I32(x),
            Value::U64(x) => Self::U64(x),
            Value::I64(x) => Self::I64(x),
            Value::F32(x) => Self::F32(x),
            Value::F64(x) => Self::F64(x),
            Value::Bool(x) => Self::Bool(x),
            Value::String(x) => Self::String(x.to_vec()),
            Value::Array(x) => Self::Array(x.kind(), x.iter().map(Self::from).collect()),
        }
    }
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> Self {
        Self::String(text.as_bytes().to_vec())
    }
}

impl From<String> for OwnedValue {
    fn from(text: String) -> Self {
        Self::String(text.into_bytes())
    }
}

impl From<&[&str]> for OwnedValue {
    fn from(texts: &[&str]) -> Self {
        Self::Array(ValueType::String, texts.iter().map(|&t| t.into()).collect())
    }
}

impl From<Vec<String>> for OwnedValue {
    fn from(texts: Vec<String>) -> Self {
        Self::Array(ValueType::String, texts.into_iter().map(Self::from).collect())
    }
}

impl From<Vec<Vec<u8>>> for OwnedValue {
    fn from(texts: Vec<Vec<u8>>) -> Self {
        Self::Array(ValueType::String, texts.into_iter().map(Self::String).collect())
    }
}

macro_rules! from_scalar {
    ($($type:ty => $kind:ident),*) => {$(
        impl From<$type> for OwnedValue {
            fn from(x: $type) -> Self {
                Self::$kind(x)
            }
        }
        impl From<&[$type]> for OwnedValue {
            fn from(xs: &[$type]) -> Self {
                Self::Array(ValueType::$kind, xs.iter().map(|&x| Self::$kind(x)).collect())
            }
        }
    )*};
}
from_scalar!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64, bool => Bool);
