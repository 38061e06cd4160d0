//! Writes GGUF version 3.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use crate::convert::{align_up, len_u64};
use crate::dtype::DType;
use crate::error::{Error, quoted};
use crate::header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};
use crate::limits;
use crate::owned::OwnedValue;
use crate::sniff::MAGIC;
use crate::tensor_info::bytes_of;
use crate::value::ValueType;

const VERSION: u32 = 3;

/// Collects metadata and tensors, then writes a file that [`Header::parse`](crate::Header::parse) accepts.
///
/// ```
/// use fastllm_gguf::{DType, Header, Writer};
/// let mut writer = Writer::new();
/// writer.set("general.architecture", "llama").add("token_embd.weight", &[4, 2], DType::F32, vec![0; 32]);
/// let mut file = Vec::new();
/// writer.write(&mut file)?;
/// assert_eq!(Header::parse(&file, file.len() as u64)?.tensors[0].dims, [4, 2]);
/// # Ok::<(), fastllm_gguf::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, OwnedValue)>,
    tensors: Vec<NewTensor>,
}

#[derive(Clone, Debug)]
struct NewTensor {
    name: String,
    dims: Vec<u64>,
    dtype: DType,
    data: Vec<u8>,
}

impl Writer {
    /// A file with no metadata and no tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a metadata value; a key that is already there keeps its place.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<OwnedValue>) -> &mut Self {
        let (key, value) = (key.into(), value.into());
        match self.metadata.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key, value)),
        }
        self
    }

    /// Sets `general.alignment`, by default 32.
    pub fn alignment(&mut self, alignment: u32) -> &mut Self {
        self.set(ALIGNMENT_KEY, alignment)
    }

    /// Adds a tensor. `dims` has the fastest dimension first; `data` is in the file's layout of `dtype`.
    pub fn add(&mut self, name: impl Into<String>, dims: &[u64], dtype: DType, data: Vec<u8>) -> &mut Self {
        self.tensors.push(NewTensor { name: name.into(), dims: dims.to_vec(), dtype, data });
        self
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A key, value or tensor that the reader would refuse, before anything is written; or the output fails.
    pub fn write(&self, out: impl Write) -> Result<(), Error> {
        let alignment = self.check()?;
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        put_len(&mut head, self.tensors.len());
        put_len(&mut head, self.metadata.len());
        for (key, value) in &self.metadata {
            put_string(&mut head, key.as_bytes());
            head.extend_from_slice(&value.kind().id().to_le_bytes());
            put_value(&mut head, value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            put_string(&mut head, t.name.as_bytes());
            head.extend_from_slice(&u32::try_from(t.dims.len()).unwrap_or(u32::MAX).to_le_bytes());
            for dim in &t.dims {
                head.extend_from_slice(&dim.to_le_bytes());
            }
            head.extend_from_slice(&t.dtype.id().to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            offset = offset.checked_add(padded(t.data.len(), alignment)?).ok_or_else(too_large)?;
        }
        if len_u64(head.len()) > limits::HEADER_BYTES {
            return Err(Error::HeaderTooLarge { limit: limits::HEADER_BYTES });
        }
        let mut out = BufWriter::new(out);
        let parts = std::iter::once(&head).chain(self.tensors.iter().map(|t| &t.data));
        for part in parts {
            let padding = padded(part.len(), alignment)?.saturating_sub(len_u64(part.len()));
            out.write_all(part).map_err(Error::Output)?;
            (0..padding).try_for_each(|_| out.write_all(&[0])).map_err(Error::Output)?;
        }
        out.flush().map_err(Error::Output)
    }

    /// Checks all that the reader checks. Gives the alignment.
    fn check(&self) -> Result<u64, Error> {
        let mut alignment = DEFAULT_ALIGNMENT;
        check_count("metadata entries", self.metadata.len(), limits::METADATA_ENTRIES)?;
        check_count("tensors", self.tensors.len(), limits::TENSORS)?;
        for (key, value) in &self.metadata {
            let subject = || format!("metadata key {}", quoted(key.as_bytes()));
            check_name(key, limits::KEY_BYTES).map_err(|reason| unwritable(subject(), reason))?;
            check_value(value, 0).map_err(|reason| unwritable(subject(), reason))?;
            if key == ALIGNMENT_KEY {
                alignment = match value {
                    OwnedValue::U32(x) if x.is_power_of_two() && u64::from(*x) <= limits::ALIGNMENT => u64::from(*x),
                    other => return Err(Error::Alignment { found: format!("{other:?}") }),
                };
            }
        }
        let mut names = HashSet::new();
        for t in &self.tensors {
            t.check(names.insert(&t.name)).map_err(|reason| unwritable(format!("tensor {}", quoted(t.name.as_bytes())), reason))?;
        }
        Ok(alignment)
    }
}

impl NewTensor {
    fn check(&self, is_new: bool) -> Result<(), String> {
        check_name(&self.name, limits::TENSOR_NAME_BYTES)?;
        if !is_new {
            return Err("it was added twice".to_owned());
        }
        if self.dims.len() > limits::DIMENSIONS {
            return Err(format!("it has more than {} dimensions", limits::DIMENSIONS));
        }
        let bytes = bytes_of(&self.dims, self.dtype)?;
        if bytes != len_u64(self.data.len()) {
            return Err(format!("{:?} of {} takes {bytes} bytes, not {}", self.dims, self.dtype, self.data.len()));
        }
        Ok(())
    }
}

fn check_count(what: &str, count: usize, limit: u64) -> Result<(), Error> {
    if len_u64(count) > limit {
        return Err(unwritable(what.to_owned(), format!("{count} are more than {limit}")));
    }
    Ok(())
}

fn check_name(name: &str, limit: u64) -> Result<(), String> {
    match name {
        "" => Err("the name is empty".to_owned()),
        _ if name.contains('\0') => Err("the name contains NUL".to_owned()),
        _ if len_u64(name.len()) > limit => Err(format!("the name is longer than {limit} bytes")),
        _ => Ok(()),
    }
}

fn check_value(value: &OwnedValue, depth: u32) -> Result<(), String> {
    let OwnedValue::Array(kind, elements) = value else { return Ok(()) };
    if depth >= limits::ARRAY_DEPTH {
        return Err(format!("it is nested deeper than {} arrays", limits::ARRAY_DEPTH));
    }
    for element in elements {
        if element.kind() != *kind {
            return Err(format!("an array of {kind} has an element of type {}", element.kind()));
        }
        if *kind == ValueType::Array {
            check_value(element, depth.saturating_add(1))?;
        }
    }
    Ok(())
}

fn unwritable(subject: String, reason: String) -> Error {
    Error::Unwritable { subject, reason }
}

fn too_large() -> Error {
    unwritable("tensors".to_owned(), "their size does not fit in 64 bits".to_owned())
}

fn padded(len: usize, alignment: u64) -> Result<u64, Error> {
    align_up(len_u64(len), alignment).ok_or_else(too_large)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&len_u64(len).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_len(out, text.len());
    out.extend_from_slice(text);
}

fn put_value(out: &mut Vec<u8>, value: &OwnedValue) {
    match value {
        OwnedValue::U8(x) => out.push(*x),
        OwnedValue::I8(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::U16(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::I16(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::U32(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::I32(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::U64(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::I64(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::F32(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::F64(x) => out.extend_from_slice(&x.to_le_bytes()),
        OwnedValue::Bool(x) => out.push(u8::from(*x)),
        OwnedValue::String(x) => put_string(out, x),
        OwnedValue::Array(kind, elements) => {
            out.extend_from_slice(&kind.id().to_le_bytes());
            put_len(out, elements.len());
            for element in elements {
                put_value(out, element);
            }
        }
    }
}
