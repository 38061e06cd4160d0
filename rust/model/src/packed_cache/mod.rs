//! Packed weights in files: a second load is instant, and processes share one copy. Knows no kernels and no graph.
//!
//! The first load of a large model packs its matrices into a file of the cache folder and maps that; later ones find it by a hash of the
//! model file's state (`key`) and map it. Where a mapping would be slower than memory, or less safe, the file is read instead
//! ([`Access`]). The model file itself is never mapped. Whatever goes wrong here, the model is packed into
//! memory as without a cache, and nobody hears of it: a full disk, a folder that may not be written, a file that is damaged or of another
//! version, somebody else who is writing the same.
//!
//! A file is written under a name of its own, locked meanwhile; once it is on the disk it gets its real name and is never written
//! again. Files go by being unlinked, so that a mapping stays what it is. Only this user can open them. What is left: who has this user's
//! rights, or the device itself, can shorten or change a mapped file, and then a read of it is a signal or gives other weights; so could
//! the same user's debugger. On network file systems, where that
//! happens by accident, files are read. So they are with [`Access::Read`].
mod format;
mod key;
mod maintenance;
mod os;
mod settings;
mod store;
mod verification;
mod writer;

pub use key::identity;
pub use maintenance::{CachedModel, Condition, clear, list, verify};
pub use settings::{Access, CacheSettings, DEFAULT_LIMIT};
pub use writer::finish;

use crate::ModelError;
use crate::weights::{Declared, MatrixInfo, Weights};
use fastllm_gguf::GgufFile;
use fastllm_kernels::linear::{Linear, PackError};
use fastllm_kernels::mapping::Mapping;
use fastllm_kernels::pool::Pool;
use format::{Entry, Header};
use key::Hash;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Store;
use verification::Chunks;
pub(crate) use verification::Verification;
use writer::Writer;

/// Bytes that a thread reads into the page cache at once.
const POPULATED: usize = 32 << 20;

/// The matrices of a model in a file.
#[derive(Debug)]
pub(crate) struct Packed {
    data: Data,
    matrices: HashMap<Hash, Entry>,
    /// The file; of a mapped one all chunks are compared with their checksums once the model is loaded.
    chunks: Chunks,
}

#[derive(Debug)]
enum Data {
    Mapped(Arc<Mapping>),
    Read,
}

impl Packed {
    /// `None` if the file cannot be used. What is to be read is compared with its checksums first, all of it: it has to come from the disk
    /// in any case.
    fn new(settings: &CacheSettings, file: File, header: Header, store: &Store, pool: &Pool) -> Option<Packed> {
        let may_map = settings.access != Access::Read && os::is_local(&store.folder).unwrap_or(false);
        let mapping = Mapping::of_private_file(&file).ok().filter(|m| m.bytes().len() as u64 == header.len)?;
        let may_map = may_map && (settings.access == Access::Map || mapping.is_as_fast_as_memory());
        let data = if may_map { Data::Mapped(Arc::new(mapping)) } else { Data::Read };
        let path = store.packed_path(&header.key);
        if !may_map && !maintenance::chunks_are_sound(&file, &header, 0..header.chunks.len(), pool) {
            let _ = fs::remove_file(&path);
            return None;
        }
        let matrices = header.matrices.iter().map(|m| (m.id, *m)).collect();
        Some(Packed { data, matrices, chunks: Chunks { file, header, path } })
    }

    /// Compares all of a mapped file with its checksums from now on, in the background.
    pub fn verify(self) -> Option<Verification> {
        matches!(self.data, Data::Mapped(_)).then(|| Verification::start(self.chunks))
    }

    /// A matrix. `None` if it is not there or cannot be read: then the file is deleted.
    ///
    /// # Errors
    /// If memory is short.
    pub fn matrix(&self, m: &MatrixInfo, pool: &Pool) -> Result<Option<Linear>, ModelError> {
        let entry = self.matrices.get(&key::matrix_id(m)).filter(|entry| entry.bytes == m.bytes() as u64);
        let Some((start, end)) = entry.and_then(|e| Some((usize::try_from(e.offset).ok()?, usize::try_from(e.offset + e.bytes).ok()?)))
        else {
            return Ok(None);
        };
        let shape = (m.rows, m.cols);
        let found = match &self.data {
            Data::Mapped(mapping) => {
                populate(mapping, start..end, pool).then(|| Linear::mapped(m.kind, shape, m.sources.len(), mapping, start)).flatten()
            }
            Data::Read => {
                let read =
                    |at: usize, bytes: &mut [u8]| os::read_exact_at(&self.chunks.file, bytes, entry.map_or(0, |e| e.offset) + at as u64);
                match Linear::read_packed(m.kind, shape, m.sources.len(), pool, read) {
                    Ok(packed) => Some(packed),
                    Err(PackError::OutOfMemory(e)) => return Err(e.into()),
                    Err(PackError::Read(_)) => None,
                }
            }
        };
        if found.is_none() {
            let _ = fs::remove_file(&self.chunks.path);
        }
        Ok(found)
    }
}

/// Brings a range of a mapping into memory; whether it could be read.
fn populate(mapping: &Mapping, range: Range<usize>, pool: &Pool) -> bool {
    let failed = AtomicBool::new(false);
    pool.run(range.len().div_ceil(POPULATED), |task, _| {
        let at = range.start + task * POPULATED;
        if mapping.populate(at..range.end.min(at + POPULATED)).is_err() {
            failed.store(true, Ordering::Relaxed);
        }
    });
    !failed.into_inner()
}

/// What the cache has for a model.
pub(crate) enum Outcome {
    /// All matrices, packed before.
    Found(Packed),
    /// All matrices, packed just now with `pack`.
    Written(Packed),
    /// Nothing; `pack` may have been called.
    Nothing,
}

/// Finds a model in the cache, or packs it into the cache with `pack`.
///
/// # Errors
/// Those of `pack`, and of reading the model file.
pub(crate) fn open(
    settings: &CacheSettings,
    file: &GgufFile,
    weights: &Weights<Declared>,
    pool: &Pool,
    pack: &mut dyn FnMut(&MatrixInfo) -> Result<Linear, ModelError>,
) -> Result<Outcome, ModelError> {
    if weights.bytes() < settings.least_bytes {
        return Ok(Outcome::Nothing);
    }
    // Where the folder cannot be made, it may be there to be read.
    let Ok(store) = Store::open(settings, true).or_else(|_| Store::open(settings, false)) else { return Ok(Outcome::Nothing) };
    let stamps = file.stamps()?;
    let key = key::key(file, &stamps, weights)?;
    if let Some((cached, header)) = store.find(&key)
        && let Some(packed) = Packed::new(settings, cached, header, &store, pool)
    {
        return Ok(Outcome::Found(packed));
    }
    if !key::settled(&stamps, settings.settled) {
        return Ok(Outcome::Nothing);
    }
    let mut seen = HashSet::new();
    let matrices: Vec<_> = weights.matrices().map(|m| (key::matrix_id(m), m)).filter(|(id, _)| seen.insert(*id)).collect();
    let sizes: Vec<(Hash, u64)> = matrices.iter().map(|(id, m)| (*id, m.bytes() as u64)).collect();
    let source = file.path().canonicalize().unwrap_or_else(|_| file.path().to_owned());
    let header = Header::plan(key, source.into_os_string().into_encoded_bytes(), &sizes);
    let Some(Ok(Some(mut writer))) = header.map(|header| Writer::new(&store, header)) else { return Ok(Outcome::Nothing) };
    for (_, m) in matrices {
        if writer.append(pack(m)?.bytes(), pool).is_err() {
            return Ok(Outcome::Nothing);
        }
    }
    let Ok(written) = writer.finish() else { return Ok(Outcome::Nothing) };
    let packed = written.file.try_clone().ok().and_then(|file| Packed::new(settings, file, written.header.clone(), &store, pool));
    let Some(packed) = packed else { return Ok(Outcome::Nothing) };
    // What was packed from a file that somebody was changing is what this load got, but nobody else shall.
    if file.stamps()? == stamps {
        written.publish_in_background();
    }
    Ok(Outcome::Written(packed))
}
