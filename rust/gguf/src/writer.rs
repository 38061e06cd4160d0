//! Writes GGUF version 3.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};

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
    /// `None` if the data is written later.
    data: Option<Vec<u8>>,
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
        self.tensors.push(NewTensor { name: name.into(), dims: dims.to_vec(), dtype, data: Some(data) });
        self
    }

    /// Adds a tensor whose data the caller of [`write_with`](Self::write_with) provides when its turn comes.
    pub fn declare(&mut self, name: impl Into<String>, dims: &[u64], dtype: DType) -> &mut Self {
        self.tensors.push(NewTensor { name: name.into(), dims: dims.to_vec(), dtype, data: None });
        self
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A key, value or tensor that the reader would refuse, before anything is written; a declared tensor; or the output fails.
    pub fn write(&self, out: impl Write) -> Result<(), Error> {
        if let Some(t) = self.tensors.iter().find(|t| t.data.is_none()) {
            return Err(t.unwritable("it was declared without data".to_owned()));
        }
        self.write_with(out, |_, _| Ok(()))
    }

    /// Writes the file, and asks `data` to write each declared tensor, in order, so that they need not all be in memory.
    ///
    /// # Errors
    /// As [`write`](Self::write), and if `data` fails or writes another number of bytes than the tensor has.
    pub fn write_with(&self, out: impl Write, mut data: impl FnMut(&str, &mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let alignment = self.check()?;
        let head = self.head(alignment)?;
        let mut out = Counted { out: BufWriter::new(out), written: 0 };
        out.write_all(&head).map_err(Error::Output)?;
        for t in &self.tensors {
            out.pad(alignment)?;
            let start = out.written;
            match &t.data {
                Some(bytes) => out.write_all(bytes),
                None => data(&t.name, &mut out),
            }
            .map_err(Error::Output)?;
            let (written, bytes) = (out.written.saturating_sub(start), t.bytes()?);
            if written != bytes {
                return Err(t.unwritable(format!("{written} bytes of data were written, but it has {bytes}")));
            }
        }
        out.pad(alignment)?;
        out.flush().map_err(Error::Output)
    }

    /// Everything before the padding and the tensor data.
    fn head(&self, alignment: u64) -> Result<Vec<u8>, Error> {
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
            let next = offset.checked_add(t.bytes()?).and_then(|end| align_up(end, alignment));
            offset = next.ok_or_else(|| t.unwritable("the size of the file does not fit in 64 bits".to_owned()))?;
        }
        if len_u64(head.len()) > limits::HEADER_BYTES {
            return Err(Error::HeaderTooLarge { subject: "the end".to_owned(), limit: limits::HEADER_BYTES });
        }
        Ok(head)
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
            t.check(names.insert(&t.name)).map_err(|reason| t.unwritable(reason))?;
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
        match &self.data {
            Some(data) if len_u64(data.len()) != bytes => {
                Err(format!("{:?} of {} takes {bytes} bytes, not {}", self.dims, self.dtype, data.len()))
            }
            _ => Ok(()),
        }
    }

    fn bytes(&self) -> Result<u64, Error> {
        bytes_of(&self.dims, self.dtype).map_err(|reason| self.unwritable(reason))
    }

    fn unwritable(&self, reason: String) -> Error {
        unwritable(format!("tensor {}", quoted(self.name.as_bytes())), reason)
    }
}

/// An output that knows its position.
struct Counted<W: Write> {
    out: BufWriter<W>,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn pad(&mut self, alignment: u64) -> Result<(), Error> {
        let end = align_up(self.written, alignment).unwrap_or(self.written);
        (self.written..end).try_for_each(|_| self.write_all(&[0])).map_err(Error::Output)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written = self.written.saturating_add(len_u64(n));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
