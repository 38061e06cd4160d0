//! Every file of the shared folder opens, and its tensors can be read.

use std::path::{Path, PathBuf};

use fastllm_gguf::GgufFile;

fn shared() -> PathBuf {
    std::env::var_os("FASTLLM_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

fn gguf_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gguf_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "gguf") {
            found.push(path);
        }
    }
}

fn open_all(folder: &str, at_least: usize) {
    let folder = shared().join(folder);
    if !folder.is_dir() {
        println!("skipped: no folder {}", folder.display());
        return;
    }
    let mut paths = Vec::new();
    gguf_files(&folder, &mut paths);
    assert!(paths.len() >= at_least, "only {} files in {}", paths.len(), folder.display());
    for path in paths {
        let model = GgufFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(model.metadata().str("general.architecture").unwrap().is_some(), "{}", path.display());
        assert_eq!(model.metadata().iter().count(), model.metadata().len());
        for (key, value) in model.metadata().iter() {
            assert_eq!(model.metadata().get(key).unwrap().kind(), value.kind());
            if let Some(array) = value.as_array() {
                assert_eq!(array.iter().count(), array.len(), "{key}");
            }
        }
        for tensor in model.tensors() {
            assert_eq!(model.tensor(&tensor.name), Some(tensor));
            let mut last = [0];
            model.read_at(tensor, tensor.bytes - 1, &mut last).unwrap();
            assert!(model.read_at(tensor, tensor.bytes, &mut last).is_err());
        }
    }
}

#[test]
fn golden_models() {
    open_all("golden", 60);
}

#[test]
fn tiny_models() {
    open_all("tiny", 4);
}

#[test]
fn vocabularies() {
    open_all("tokenizers", 17);
}
