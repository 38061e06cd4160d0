//! The cache of packed weights: the same bits, and nothing that happens to its files makes a load fail.
#![cfg(unix)]
mod common;
#[path = "packed_cache/damage.rs"]
mod damage;
#[path = "packed_cache/folder.rs"]
mod folder;
#[path = "packed_cache/sharing.rs"]
mod sharing;

use common::small_models::{self, Shape};
use common::{TempFile, forward, options, rows};
use fastllm_gguf::{DType, GgufFile};
use fastllm_model::packed_cache::{self, Access, CacheSettings};
use fastllm_model::{Context, LoadOptions, Model, ModelError, WeightsFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A cache folder of its own, removed in the end.
struct Folder(CacheSettings);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("fastllm-{}-cache-{name}", std::process::id()));
        Folder(CacheSettings { least_bytes: 0, settled: Duration::ZERO, ..CacheSettings::in_folder(folder) })
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(&self.0.folder).map(|dir| dir.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
        files.sort();
        files
    }

    /// The only file.
    fn file(&self) -> PathBuf {
        let [file] = &self.files()[..] else { panic!("{:?}", self.files()) };
        file.clone()
    }

    fn options(&self) -> LoadOptions {
        LoadOptions { packed_cache: Some(self.0.clone()), ..options(2) }
    }

    /// Loads, waits for the cache, and computes.
    fn load(&self, path: &Path) -> (WeightsFrom, Vec<f32>) {
        load(path, &self.options()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.folder);
    }
}

fn load(path: &Path, options: &LoadOptions) -> Result<(WeightsFrom, Vec<f32>), ModelError> {
    let model = Model::load(&GgufFile::open(path)?, options, &mut |_, _| true)?;
    assert!(packed_cache::finish(Duration::from_secs(60)));
    let from = model.weights_from();
    Ok((from, logits(model)))
}

fn logits(model: Model) -> Vec<f32> {
    let mut context = Context::new(Arc::new(model)).unwrap();
    let sequence = context.open();
    forward(&mut context, &rows(sequence, 0, &[3, 1, 4, 1, 5])).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

fn small(name: &str) -> TempFile {
    TempFile::new(&format!("cached-{name}"), &small_models::bytes(&small_models::experts()))
}

/// A model with more chunks than a load looks at.
fn large(name: &str) -> TempFile {
    let shape = Shape { hidden: 1024, vocab: 12_000, heads: 8, kv_heads: 8, dim: 128, width: 64, ..Shape::default() };
    TempFile::new(&format!("cached-{name}"), &small_models::bytes(&small_models::model(shape, &[DType::F32], false)))
}

/// Loads without a cache, into a new one and from it.
fn compare(name: &str, path: &Path) {
    let mut folder = Folder::new(name);
    let (from, expected) = load(path, &options(2)).unwrap();
    assert_eq!(from, WeightsFrom::ModelFile);
    let (new, old) = (WeightsFrom::NewCache, WeightsFrom::Cache);
    for (access, wanted) in [(Access::Map, new), (Access::Map, old), (Access::Read, old), (Access::Fastest, old), (Access::Read, new)] {
        if wanted == new {
            packed_cache::clear(&folder.0).unwrap();
        }
        folder.0.access = access;
        let (from, found) = folder.load(path);
        assert_eq!(from, wanted, "{name}");
        assert_eq!(bits(&found), bits(&expected), "{name}: {access:?} {wanted:?}");
    }
    folder.file();
}

#[test]
fn files_are_mapped_or_read_as_asked() {
    let (file, mut folder) = (small("access"), Folder::new("access"));
    for (access, mapped) in [(Access::Map, true), (Access::Read, false), (Access::Map, true)] {
        folder.0.access = access;
        let model = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut |_, _| true).unwrap();
        assert!(packed_cache::finish(Duration::from_secs(60)));
        let found: Vec<bool> = model.weights().matrices().map(fastllm_kernels::linear::Linear::is_mapped).collect();
        assert!(found.iter().all(|m| *m == mapped), "{access:?}: {found:?}");
        if !mapped {
            // Nothing that happens to the file matters.
            std::fs::set_permissions(folder.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(folder.file(), "").unwrap();
        }
        logits(model);
    }
}

#[test]
fn every_type_gives_the_same_bits() {
    for (name, writer) in small_models::every_type() {
        let file = TempFile::new(&format!("cached-{name}"), &small_models::bytes(&writer));
        match load(&file.0, &options(1)) {
            Ok(_) => compare(name, &file.0),
            Err(e) => assert!(matches!(e, ModelError::Unsupported(_)), "{name}: {e}"),
        }
    }
}

#[test]
fn every_architecture_gives_the_same_bits() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden");
    let mut models = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let entry = entry.unwrap();
        for file in std::fs::read_dir(entry.path()).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "gguf") && load(&path, &options(1)).is_ok() {
                compare(&format!("golden-{models}"), &path);
                models += 1;
            }
        }
    }
    assert!(models > 10, "{models}");
}

#[test]
fn large_matrices_give_the_same_bits() {
    compare("large", &large("same").0);
}

#[test]
fn progress_is_heard_of_once() {
    let (file, folder) = (small("progress"), Folder::new("progress"));
    let mut heard = Vec::new();
    for _ in 0..2 {
        let mut calls = Vec::new();
        let mut progress = |done, total| {
            calls.push((done, total));
            true
        };
        Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut progress).unwrap();
        assert!(packed_cache::finish(Duration::from_secs(60)));
        assert!(calls.is_sorted_by(|a, b| a.0 < b.0) && calls.last().is_some_and(|(done, total)| done == total));
        heard.push(calls.len());
    }
    assert_eq!(heard[0], heard[1]);
}

#[test]
fn cancelling_leaves_nothing() {
    let (file, folder) = (small("cancelled"), Folder::new("cancelled"));
    for cached in [false, true] {
        for stop in [1, 5] {
            let mut calls = 0;
            let mut progress = |_, _| {
                calls += 1;
                calls < stop
            };
            let error = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut progress).unwrap_err();
            assert!(matches!(error, ModelError::Cancelled));
            assert_eq!((calls, folder.files().len()), (stop, usize::from(cached)));
        }
        folder.load(&file.0);
    }
}

#[test]
fn small_models_and_files_just_written_are_not_cached() {
    let (file, folder) = (small("not"), Folder::new("not"));
    let small = CacheSettings { least_bytes: 1 << 20, ..folder.0.clone() };
    let fresh = CacheSettings { settled: Duration::from_secs(3600), ..folder.0.clone() };
    for settings in [small, fresh] {
        let (from, _) = load(&file.0, &LoadOptions { packed_cache: Some(settings), ..options(2) }).unwrap();
        assert_eq!(from, WeightsFrom::ModelFile);
        assert!(folder.files().is_empty());
    }
}
