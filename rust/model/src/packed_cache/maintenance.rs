//! What people do with the cache: look at it, check it, clear it.
use super::format::{Header, MOST_HEADER, Problem};
use super::os;
use super::settings::CacheSettings;
use super::store::{Found, Store, chunk_is_sound, read_header};
use crate::ModelError;
use fastllm_kernels::buffer::OutOfMemory;
use fastllm_kernels::pool::Pool;
use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Chunks that a thread checks between two calls of `progress`.
const STEP: usize = 16;

/// Whether a file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As far as was looked at.
    Sound,
    /// Another version has written it.
    OtherVersion,
    /// It is not as it was written.
    Damaged,
    /// It is being written.
    Unfinished,
}

/// A file of the cache.
#[derive(Clone, Debug)]
pub struct CachedModel {
    /// The file.
    pub path: PathBuf,
    /// Where the model file was when it was packed; empty if the header cannot be read.
    pub source: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// When a model was last loaded from it.
    pub used: SystemTime,
    /// Whether it can be used.
    pub condition: Condition,
}

fn failed(settings: &CacheSettings) -> impl Fn(io::Error) -> ModelError + '_ {
    |source| ModelError::Cache { folder: settings.folder.clone(), source }
}

/// The folder, if there is one.
fn store(settings: &CacheSettings) -> Result<Option<Store>, ModelError> {
    match Store::open(settings, false) {
        Ok(store) => Ok(Some(store)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(settings)(e)),
    }
}

fn describe(found: Found) -> (CachedModel, Option<File>) {
    let file = os::open(&found.path).ok();
    let header = file.as_ref().ok_or(Problem::Damaged).and_then(read_header);
    let condition = match &header {
        _ if found.unfinished => Condition::Unfinished,
        Ok(_) | Err(Problem::Memory) => Condition::Sound,
        Err(Problem::Version) => Condition::OtherVersion,
        Err(Problem::Damaged) => Condition::Damaged,
    };
    let source = header.map(|h| String::from_utf8_lossy(&h.source).into_owned().into()).unwrap_or_default();
    (CachedModel { path: found.path, source, bytes: found.bytes, used: found.used, condition }, file)
}

/// All files of the cache, the most recently used first. Files of dead writers are deleted.
///
/// # Errors
/// The folder cannot be read.
pub fn list(settings: &CacheSettings) -> Result<Vec<CachedModel>, ModelError> {
    Ok(open_all(settings)?.into_iter().map(|(model, _)| model).collect())
}

fn open_all(settings: &CacheSettings) -> Result<Vec<(CachedModel, Option<File>)>, ModelError> {
    let Some(store) = store(settings)? else { return Ok(Vec::new()) };
    store.clean_up(None).map_err(failed(settings))?;
    let mut files = store.files().map_err(failed(settings))?;
    files.sort_by_key(|f| Reverse(f.used));
    Ok(files.into_iter().map(describe).collect())
}

/// Deletes all files but those that are being written; returns what was deleted. Models that are loaded from them keep running, and only
/// then is their space free.
///
/// # Errors
/// The folder cannot be read, or a file not be deleted.
pub fn clear(settings: &CacheSettings) -> Result<Vec<CachedModel>, ModelError> {
    let mut all = list(settings)?;
    all.retain(|model| model.condition != Condition::Unfinished);
    for model in &all {
        match fs::remove_file(&model.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(settings)(e)),
            _ => {}
        }
    }
    Ok(all)
}

/// Compares every byte of every file with its checksum, and deletes what is damaged; `progress(done, total)` hears of bytes and may stop it
/// by returning `false`.
///
/// # Errors
/// The folder cannot be read, a file not be deleted, or `progress` stopped it.
pub fn verify(settings: &CacheSettings, pool: &Pool, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Vec<CachedModel>, ModelError> {
    let mut all = open_all(settings)?;
    let total = all.iter().map(|(model, _)| model.bytes).sum();
    let mut before = 0;
    for (model, file) in &mut all {
        if let (Condition::Sound, Some(file)) = (model.condition, file) {
            let mut report = |done: u64| progress(before + done.min(model.bytes), total);
            if !bytes_are_sound(file, pool, &mut report)? {
                model.condition = Condition::Damaged;
            }
        }
        if model.condition == Condition::Damaged {
            fs::remove_file(&model.path).map_err(failed(settings))?;
        }
        before += model.bytes;
    }
    Ok(all.into_iter().map(|(model, _)| model).collect())
}

/// Whether all chunks are as they were written.
fn bytes_are_sound(file: &File, pool: &Pool, report: &mut dyn FnMut(u64) -> bool) -> Result<bool, ModelError> {
    let header = match read_header(file) {
        Ok(header) => header,
        Err(Problem::Memory) => return Err(OutOfMemory { bytes: MOST_HEADER }.into()),
        Err(Problem::Damaged | Problem::Version) => return Ok(false),
    };
    let mut sound = true;
    for first in (0..header.chunks.len()).step_by(STEP * pool.threads()) {
        let end = header.chunks.len().min(first + STEP * pool.threads());
        sound &= chunks_are_sound(file, &header, first..end, pool);
        if !report(header.chunk(end).0) {
            return Err(ModelError::Cancelled);
        }
    }
    Ok(sound)
}

/// Whether some chunks are as they were written, compared on all threads.
pub(super) fn chunks_are_sound(file: &File, header: &Header, chunks: Range<usize>, pool: &Pool) -> bool {
    let sound = AtomicBool::new(true);
    pool.run(chunks.len().div_ceil(STEP), |task, _| {
        let from = chunks.start + task * STEP;
        if !(from..chunks.end.min(from + STEP)).all(|i| chunk_is_sound(file, header, i)) {
            sound.store(false, Ordering::Relaxed);
        }
    });
    sound.into_inner()
}
