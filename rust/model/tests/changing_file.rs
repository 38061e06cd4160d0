//! Files that shrink, vanish or change: while a model is loaded from them, and afterwards.
mod common;

use common::small_models;
use common::{TempFile, forward, options, rows};
use fastllm_gguf::{Error, GgufFile};
use fastllm_model::{Context, Model, ModelError};
use std::fs::{OpenOptions, remove_file};
use std::path::Path;
use std::sync::Arc;

type Change = fn(&Path);

const TOKENS: [u32; 5] = [3, 1, 4, 1, 5];

/// Loads while `change` happens to the file, after the first matrix.
fn load(path: &Path, change: impl FnOnce(&Path)) -> Result<Context, ModelError> {
    let file = GgufFile::open(path)?;
    let mut change = Some(change);
    let mut progress = |_, _| {
        if let Some(change) = change.take() {
            change(path);
        }
        true
    };
    Context::new(Arc::new(Model::load(&file, &options(2), &mut progress)?))
}

fn logits(context: &mut Context) -> Vec<f32> {
    let sequence = context.open();
    forward(context, &rows(sequence, 0, &TOKENS)).unwrap()
}

fn set_len(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_loaded_model_needs_no_file() {
    let bytes = small_models::bytes(&small_models::experts());
    let changes: [(&str, Change); 3] = [
        ("truncated", |path| set_len(path, 0)),
        ("overwritten", |path| std::fs::write(path, vec![0xff; 1 << 20]).unwrap()),
        ("removed", |path| remove_file(path).unwrap()),
    ];
    for (name, change) in changes {
        let file = TempFile::new(&format!("after-{name}"), &bytes);
        let mut context = load(&file.0, |_| {}).unwrap();
        let before = logits(&mut context);
        assert!(before.iter().all(|x| x.is_finite()));
        change(&file.0);
        assert_eq!(logits(&mut context), before, "{name}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let bytes = small_models::bytes(&small_models::experts());
    for len in [0, bytes.len() as u64 / 2, bytes.len() as u64 - 200] {
        let file = TempFile::new(&format!("shrinks-{len}"), &bytes);
        let error = load(&file.0, |path| set_len(path, len)).unwrap_err();
        assert!(matches!(error, ModelError::File(Error::Io { .. })), "{error:?}");
        println!("{error}");
    }
}

#[test]
fn a_file_that_is_removed_or_replaced_while_it_is_read_is_still_read() {
    let bytes = small_models::bytes(&small_models::experts());
    let file = TempFile::new("kept", &bytes);
    let expected = logits(&mut load(&file.0, |_| {}).unwrap());
    let removed = TempFile::new("removed", &bytes);
    assert_eq!(logits(&mut load(&removed.0, |path| remove_file(path).unwrap()).unwrap()), expected);
    let replaced = TempFile::new("replaced", &bytes);
    let replace = |path: &Path| {
        let other = TempFile::new("other", &vec![0; bytes.len()]);
        std::fs::rename(&other.0, path).unwrap();
    };
    assert_eq!(logits(&mut load(&replaced.0, replace).unwrap()), expected);
}

/// Whatever is read instead of the weights: a model that runs, or an error about the numbers that cannot be.
#[test]
fn a_file_that_is_overwritten_while_it_is_read_does_no_harm() {
    for (name, writer) in [("dense", small_models::dense()), ("experts", small_models::experts())] {
        let bytes = small_models::bytes(&writer);
        for byte in [0, 0x7f, 0xff] {
            let file = TempFile::new(&format!("overwritten-{name}-{byte}"), &bytes);
            match load(&file.0, |path| std::fs::write(path, vec![byte; bytes.len()]).unwrap()) {
                Ok(mut context) => drop(logits(&mut context)),
                Err(e) => assert!(name == "experts" && e.to_string().contains("rope_freqs"), "{name}: {e}"),
            }
        }
    }
}

#[test]
fn loading_can_be_cancelled() {
    let file = TempFile::new("cancelled", &small_models::bytes(&small_models::dense()));
    let file = GgufFile::open(&file.0).unwrap();
    for stop in [1, 5] {
        let mut calls = 0;
        let mut progress = |done, total| {
            assert!(done <= total);
            calls += 1;
            calls < stop
        };
        let error = Model::load(&file, &options(2), &mut progress).unwrap_err();
        assert!(matches!(error, ModelError::Cancelled));
        assert_eq!(calls, stop);
    }
}
