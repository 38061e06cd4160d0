//! Files whose fields are in place but hold anything, so that mutations get past the first counts.
#![no_main]

use arbitrary::Arbitrary;
use fastllm_gguf::DType;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct File<'a> {
    version_2: bool,
    alignment: Option<u32>,
    entries: Vec<(&'a str, Field<'a>)>,
    tensors: Vec<Tensor<'a>>,
    /// Added to the true counts.
    count_errors: (i8, i8),
    data: u16,
}

#[derive(Arbitrary, Debug)]
enum Field<'a> {
    Number { kind: u8, bits: u64 },
    Text(&'a [u8]),
    Texts(Vec<&'a [u8]>),
    Numbers { kind: u8, claimed: Option<u64>, bytes: &'a [u8] },
    Nested(Vec<Field<'a>>),
}

#[derive(Arbitrary, Debug)]
struct Tensor<'a> {
    name: &'a str,
    dims: Vec<u16>,
    dtype: u8,
    /// A dimension, type id or offset that replaces the sane one.
    wild: Option<(u8, u64)>,
    /// In units of the alignment.
    offset: u8,
}

const NUMBER_KINDS: [(u32, usize); 11] = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)];
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_array_head(out: &mut Vec<u8>, kind: u32, len: u64) {
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
}

impl Field<'_> {
    fn number(kind: u8) -> (u32, usize) {
        NUMBER_KINDS[usize::from(kind) % NUMBER_KINDS.len()]
    }

    fn kind(&self) -> u32 {
        match self {
            Self::Number { kind, .. } => Self::number(*kind).0,
            Self::Text(_) => TEXT,
            _ => ARRAY,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number { kind, bits } => out.extend(&bits.to_le_bytes()[..Self::number(*kind).1]),
            Self::Text(text) => put_text(out, text),
            Self::Texts(texts) => {
                put_array_head(out, TEXT, texts.len() as u64);
                texts.iter().for_each(|t| put_text(out, t));
            }
            Self::Numbers { kind, claimed, bytes } => {
                let (kind, size) = Self::number(*kind);
                let len = bytes.len() / size;
                put_array_head(out, kind, claimed.unwrap_or(len as u64));
                out.extend(&bytes[..len * size]);
            }
            // The elements after the first may be of other types: the reader must notice or read them as what they claim to be.
            Self::Nested(fields) => {
                put_array_head(out, fields.first().map_or(ARRAY, Field::kind), fields.len() as u64);
                fields.iter().for_each(|f| f.put(out));
            }
        }
    }
}

impl Tensor<'_> {
    fn put(&self, out: &mut Vec<u8>, alignment: u32) {
        let dtype = DType::ALL[usize::from(self.dtype) % DType::ALL.len()];
        let wild = |field| self.wild.filter(|w| w.0 % 4 == field).map(|w| w.1);
        put_text(out, self.name.as_bytes());
        out.extend(wild(0).map_or(self.dims.len() as u32, |x| x as u32).to_le_bytes());
        for (i, &dim) in self.dims.iter().enumerate() {
            let sane = if i == 0 { u64::from(dim % 8) * dtype.block_size() } else { u64::from(dim % 8) };
            out.extend(wild(1).unwrap_or(sane).to_le_bytes());
        }
        out.extend(wild(2).map_or(dtype.id(), |x| x as u32).to_le_bytes());
        out.extend(wild(3).unwrap_or(u64::from(self.offset) * u64::from(alignment)).to_le_bytes());
    }
}

impl File<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(if self.version_2 { 2u32 } else { 3 }.to_le_bytes());
        let entries = self.entries.len() + usize::from(self.alignment.is_some());
        for (count, error) in [(self.tensors.len(), self.count_errors.0), (entries, self.count_errors.1)] {
            out.extend((count as u64).wrapping_add_signed(error.into()).to_le_bytes());
        }
        if let Some(alignment) = self.alignment {
            put_text(&mut out, b"general.alignment");
            out.extend(4u32.to_le_bytes());
            out.extend(alignment.to_le_bytes());
        }
        for (key, field) in &self.entries {
            put_text(&mut out, key.as_bytes());
            out.extend(field.kind().to_le_bytes());
            field.put(&mut out);
        }
        self.tensors.iter().for_each(|t| t.put(&mut out, self.alignment.unwrap_or(32)));
        out.resize(out.len() + usize::from(self.data), 0);
        out
    }
}

fuzz_target!(|file: File<'_>| {
    let bytes = file.bytes();
    fastllm_fuzz::check_gguf(&bytes, bytes.len() as u64);
});
