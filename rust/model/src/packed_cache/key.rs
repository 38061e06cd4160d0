//! What a file of packed weights is found by.
//!
//! Reading all of a model file would take as long as packing it. The key is a hash of what changes whenever the contents do: the length
//! and the times of every file, all bytes of the headers, and samples of the weights. On Unix the time of the last change is the file
//! system's own, which no program can set: any write, and any other file put in this one's place, has a later one. The samples notice most
//! replacements even where a file system has no such time, or its clock was turned back.
use crate::config::Config;
use crate::weights::{Declared, MatrixInfo, Weights};
use fastllm_gguf::{Error, FileStamp, GgufFile, limits};
use fastllm_kernels::linear::LAYOUT_VERSION;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Version of the file format, and of what goes into keys.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Samples of the weights of each file, and the bytes of each.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: usize = 4096;

/// A hash of 256 bits.
pub(super) type Hash = [u8; 32];

/// A hash of fields, none of which runs into the next.
struct Fields(blake3::Hasher);

impl Fields {
    fn new(what: &str) -> Fields {
        Fields(blake3::Hasher::new_derive_key(what))
    }

    fn number(&mut self, x: impl Into<i128>) {
        self.0.update(&x.into().to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn hash(self) -> Hash {
        self.0.finalize().into()
    }
}

/// What a packed matrix is made from.
pub(super) fn matrix_id(m: &MatrixInfo) -> Hash {
    let mut fields = Fields::new("fastllm 1 packed matrix");
    fields.bytes(m.kind.name().as_bytes());
    fields.number(m.rows as u64);
    fields.number(m.cols as u64);
    fields.bytes(m.transposed.map_or("", |kind| kind.name()).as_bytes());
    for source in &m.sources {
        fields.number(source.tensor.file as u64);
        fields.number(source.tensor.offset);
        fields.number(source.first as u64);
        fields.bytes(source.tensor.dtype.name().as_bytes());
    }
    fields.hash()
}

/// The key of a model: its files as they are, and what is made from them.
pub(super) fn key(file: &GgufFile, stamps: &[FileStamp], weights: &Weights<Declared>) -> Result<Hash, Error> {
    let mut fields = Fields::new("fastllm 1 packed weights");
    fields.number(FORMAT_VERSION);
    fields.number(LAYOUT_VERSION);
    fields.bytes(&1u32.to_ne_bytes());
    for (i, stamp) in stamps.iter().enumerate() {
        fields.number(stamp.len);
        fields.number(stamp.modified);
        fields.number(stamp.changed);
        contents(&mut fields, file, i, stamp.len)?;
    }
    for m in weights.matrices() {
        fields.bytes(&matrix_id(m));
    }
    Ok(fields.hash())
}

/// What tells a model from others, wherever its files are and whatever their times: all headers, samples of the weights, and the
/// configuration as it is run.
///
/// # Errors
/// If a file cannot be read.
pub fn identity(file: &GgufFile, config: &Config) -> Result<[u8; 32], Error> {
    let mut fields = Fields::new("fastllm 1 model");
    for (i, stamp) in file.stamps()?.iter().enumerate() {
        fields.number(stamp.len);
        contents(&mut fields, file, i, stamp.len)?;
    }
    fields.bytes(format!("{config:?}").as_bytes());
    Ok(fields.hash())
}

/// All of a file's header, samples of the rest.
fn contents(fields: &mut Fields, file: &GgufFile, index: usize, len: u64) -> Result<(), Error> {
    let data = file.tensors().iter().filter(|t| t.file == index).map(|t| t.offset).min().unwrap_or(len);
    let header = data.min(len).min(limits::HEADER_BYTES);
    let mut buffer = vec![0; 1 << 20];
    let mut read = |at: u64, bytes: u64, fields: &mut Fields| {
        let buffer = buffer.get_mut(..bytes as usize).unwrap_or_default();
        file.read_file_at(index, at, buffer)?;
        fields.bytes(buffer);
        Ok::<_, Error>(())
    };
    for at in (0..header).step_by(1 << 20) {
        read(at, (header - at).min(1 << 20), fields)?;
    }
    let rest = len - header;
    let bytes = rest.min(SAMPLE_BYTES as u64);
    for i in 0..SAMPLES {
        // Less than 2^64: a file has less than 2^63 bytes.
        let at = u128::from(rest - bytes) * u128::from(i) / u128::from(SAMPLES - 1);
        read(header + at as u64, bytes, fields)?;
    }
    Ok(())
}

/// Whether all files were last changed at least so long ago: a change from now on cannot leave their times as they are.
pub(super) fn settled(stamps: &[FileStamp], long: Duration) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
    let Some(latest) = now.checked_sub(long) else { return false };
    stamps.iter().all(|stamp| u128::try_from(stamp.changed).is_ok_and(|changed| changed <= latest.as_nanos()))
}
