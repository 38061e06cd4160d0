//! Files made byte by byte, and a folder for them.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use fastllm_gguf::{DType, Error, Header, ValueType, Writer};

/// A file written field by field, right or wrong.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// Magic, version 3 and the counts.
    pub fn new(tensors: u64, entries: u64) -> Self {
        Self::default().bytes(b"GGUF").u32(3).u64(tensors).u64(entries)
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u32(self, x: u32) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    pub fn u64(self, x: u64) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    pub fn string(self, text: impl AsRef<[u8]>) -> Self {
        self.u64(text.as_ref().len() as u64).bytes(text.as_ref())
    }

    /// Key and type of an entry.
    pub fn entry(self, key: impl AsRef<[u8]>, kind: ValueType) -> Self {
        self.string(key).u32(kind.id())
    }

    /// A tensor info.
    pub fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let start = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(start, |raw, &d| raw.u64(d)).u32(type_id).u64(offset)
    }

    /// Padding to the next multiple of 32, then `data` zero bytes.
    pub fn data(mut self, data: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 0);
        self
    }

    pub fn parse(&self) -> Result<Header, Error> {
        Header::parse(&self.0, self.0.len() as u64)
    }

    /// The error, which must name `named` and be found without a panic.
    #[track_caller]
    pub fn error(&self, named: &str) -> Error {
        let error = self.parse().expect_err("a bad file was accepted");
        assert!(error.to_string().contains(named), "`{error}` does not name `{named}`");
        error
    }
}

/// A valid file of about 700 bytes with every value type, arrays in arrays and two tensors.
pub fn small_file() -> Vec<u8> {
    use fastllm_gguf::OwnedValue as V;
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").set("a.u8", 1u8).set("a.i8", -1i8).set("a.u16", 2u16).set("a.i16", -2i16);
    writer.set("a.u32", 3u32).set("a.i32", -3i32).set("a.u64", 4u64).set("a.i64", -4i64).set("a.f32", 0.5f32).set("a.f64", 0.25f64);
    writer.set("a.bool", true).set("tokens", ["a", "bc", ""].as_slice()).set("scores", [0.0f32, -1.0, 2.5].as_slice());
    let inner = |xs: &[u32]| V::from(xs);
    writer.set("nested", V::Array(ValueType::Array, vec![inner(&[1, 2]), inner(&[]), inner(&[3])]));
    writer.add("token_embd.weight", &[8, 2], DType::F32, vec![1; 64]).add("blk.0.attn_q.weight", &[32, 3], DType::Q4_0, vec![2; 54]);
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    file
}

/// An empty folder of its own for a test.
pub fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gguf-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
