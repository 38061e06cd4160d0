//! Small models in parts, to be changed and loaded again.
#![allow(dead_code, reason = "every test uses some of it")]
use fastllm_gguf::{DType, GgufFile, OwnedValue, Writer};
use fastllm_kernels::attention::CacheType;
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model, ModelError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The folder of the models that ship with the project.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden")
}

/// All models that ship with the project.
pub fn models() -> Vec<(String, Parts)> {
    let mut names: Vec<String> = std::fs::read_dir(shipped()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), Parts::of(&name))).collect()
}

/// A tensor.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub dtype: DType,
    pub data: Vec<u8>,
}

/// A file.
#[derive(Clone)]
pub struct Parts {
    pub metadata: Vec<(String, OwnedValue)>,
    pub tensors: Vec<Tensor>,
}

impl Parts {
    /// A shipped model.
    pub fn of(name: &str) -> Parts {
        let file = GgufFile::open(shipped().join(name).join("model-f16.gguf")).unwrap();
        let read = |t: &fastllm_gguf::TensorInfo| {
            let mut data = vec![0; t.bytes as usize];
            file.read_at(t, 0, &mut data).unwrap();
            Tensor { name: t.name.clone(), dims: t.dims.clone(), dtype: t.dtype, data }
        };
        Parts {
            metadata: file.metadata().iter().map(|(k, v)| (k.to_owned(), OwnedValue::from(v))).collect(),
            tensors: file.tensors().iter().map(read).collect(),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|t| t.name == name)
    }

    pub fn take(&mut self, name: &str) -> Tensor {
        let i = self.tensors.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
        self.tensors.remove(i)
    }

    pub fn add(&mut self, name: &str, dims: &[u64], dtype: DType, data: Vec<u8>) {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), dtype, data });
    }

    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value.into()));
    }

    pub fn remove_key(&mut self, key: &str) {
        self.metadata.retain(|(k, _)| k != key);
    }

    /// Writes the file and opens it; the file is gone afterwards, but still open.
    pub fn open(&self) -> GgufFile {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut writer = Writer::new();
        for (key, value) in &self.metadata {
            writer.set(key, value.clone());
        }
        for t in &self.tensors {
            writer.add(&t.name, &t.dims, t.dtype, t.data.clone());
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fastllm-model-test-{}-{count}.gguf", std::process::id()));
        writer.write(std::fs::File::create(&path).unwrap()).unwrap();
        let file = GgufFile::open(&path);
        std::fs::remove_file(&path).unwrap();
        file.unwrap()
    }

    pub fn load(&self) -> Result<Context, ModelError> {
        load(&self.open())
    }
}

/// A context with one thread and the exact cache.
pub fn load(file: &GgufFile) -> Result<Context, ModelError> {
    let options = LoadOptions { threads: Some(1), cache_type: CacheType::F32, ..LoadOptions::default() };
    Context::new(Arc::new(Model::load(file, &options, &mut |_, _| true)?))
}

/// Logits after some tokens of a new sequence.
pub fn logits(context: &mut Context, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
    let sequence = context.open();
    let rows: Vec<Row> = tokens.iter().zip(0..).map(|(&token, position)| Row { sequence, position, token, logits: true }).collect();
    let logits = context.forward(&rows, &AtomicBool::new(false)).map(<[f32]>::to_vec);
    context.close(sequence);
    logits
}
