//! The cache of packed weights: what is in it, checking and clearing it.
use crate::errors::{self, OrRaise};
use fastllm_kernels::pool::{Pool, default_threads};
use fastllm_model::ModelError;
use fastllm_model::packed_cache::{self, CacheSettings, CachedModel, Condition};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// Path of the model file, path of the cached one, its bytes, the time of its last use in seconds since 1970, its condition.
type Cached = (PathBuf, PathBuf, u64, f64, &'static str);

fn cached(model: CachedModel) -> Cached {
    let condition = match model.condition {
        Condition::Sound => "ok",
        Condition::OtherVersion => "other version",
        Condition::Damaged => "damaged",
        Condition::Unfinished => "being written",
    };
    let used = model.used.duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
    (model.source, model.path, model.bytes, used, condition)
}

/// The settings, also where the cache is turned off; `None` where there is no place for one.
fn settings() -> Option<CacheSettings> {
    CacheSettings::folder_from_env().map(CacheSettings::in_folder)
}

fn run(py: Python<'_>, f: impl FnOnce(&CacheSettings) -> Result<Vec<CachedModel>, ModelError> + Send) -> PyResult<Vec<Cached>> {
    let Some(settings) = settings() else { return Ok(Vec::new()) };
    Ok(py.detach(|| f(&settings)).or_raise(py)?.into_iter().map(cached).collect())
}

/// The folder; `None` where there is no place for a cache.
#[pyfunction]
pub fn cache_folder() -> Option<PathBuf> {
    CacheSettings::folder_from_env()
}

/// All files of the cache, the most recently used first.
#[pyfunction]
pub fn cache_list(py: Python<'_>) -> PyResult<Vec<Cached>> {
    run(py, packed_cache::list)
}

/// Deletes them; returns what was deleted.
#[pyfunction]
pub fn cache_clear(py: Python<'_>) -> PyResult<Vec<Cached>> {
    run(py, packed_cache::clear)
}

/// Compares all files with their checksums and deletes damaged ones; `progress(done, total)` hears of bytes, and what it raises stops it.
#[pyfunction]
pub fn cache_verify(py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Cached>> {
    let progress = progress.map(|progress| progress.clone().unbind());
    let mut raised = None;
    let mut report = |done: u64, total: u64| {
        raised = errors::report(progress.as_ref(), done, total).err();
        raised.is_none()
    };
    let found = run(py, |settings| packed_cache::verify(settings, &Pool::new(default_threads()), &mut report));
    raised.map_or(found, Err)
}

/// Waits until new files of the cache are on the disk, or for a signal that ends the process.
pub fn finish(py: Python<'_>) {
    while !py.detach(|| packed_cache::finish(Duration::from_millis(100))) {
        if py.check_signals().is_err() {
            break;
        }
    }
}
