//! What the tests share.
#![allow(dead_code, reason = "not every test uses all")]
pub mod small_models;

use fastllm_gguf::GgufFile;
use fastllm_model::batch::{Row, SequenceId};
use fastllm_model::{Context, LoadOptions, Model, ModelError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A file that is removed in the end.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str, bytes: &[u8]) -> TempFile {
        let path = std::env::temp_dir().join(format!("fastllm-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn options(threads: usize) -> LoadOptions {
    LoadOptions { threads: Some(threads), ..LoadOptions::default() }
}

pub fn context(path: &Path, options: &LoadOptions) -> Result<Context, ModelError> {
    let file = GgufFile::open(path)?;
    Context::new(Arc::new(Model::load(&file, options, &mut |_, _| true)?))
}

/// Rows of `tokens` from `position` on; the last one wants logits.
pub fn rows(sequence: SequenceId, position: usize, tokens: &[u32]) -> Vec<Row> {
    let last = tokens.len() - 1;
    let row = |(i, &token)| Row { sequence, position: (position + i) as u32, token, logits: i == last };
    tokens.iter().enumerate().map(row).collect()
}

/// Runs rows and returns the logits.
pub fn forward(context: &mut Context, rows: &[Row]) -> Result<Vec<f32>, ModelError> {
    Ok(context.forward(rows, &AtomicBool::new(false))?.to_vec())
}

/// A run of this test alone in a process of its own, with `variable` set; fails if it fails.
pub fn in_child(test: &str, variable: &str) {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(variable, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}
