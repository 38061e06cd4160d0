//! `File`: the header of a GGUF file.
use crate::errors::{self, OrRaise};
use crate::metadata;
use fastllm_gguf::{GgufFile, Metadata, TensorInfo};
use fastllm_kernels::attention::CacheType;
use fastllm_model::{MemoryPlan, TokenCost};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// A GGUF file whose header was read; several shards are one file.
#[pyclass(frozen, module = "fastllm._native")]
pub struct File {
    pub(crate) file: Arc<GgufFile>,
}

/// The cache type of a name.
pub fn cache_type(py: Python<'_>, name: &str) -> PyResult<CacheType> {
    CacheType::from_name(name).ok_or_else(|| {
        let names: Vec<_> = CacheType::ALL.iter().map(|t| t.name()).collect();
        errors::parameter(py, format!("kv_dtype = {name:?} is not allowed: one of {}", names.join(", ")))
    })
}

impl File {
    pub(crate) fn metadata(&self) -> &Metadata {
        self.file.metadata()
    }
}

type Tensor = (String, Vec<u64>, &'static str, u64);

type Cost = (usize, usize, (usize, usize), (usize, usize));

fn tensor(t: &TensorInfo) -> Tensor {
    (t.name.clone(), t.dims.clone(), t.dtype.name(), t.bytes)
}

#[pymethods]
impl File {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<File> {
        let file = py.detach(|| GgufFile::open(path)).or_raise(py)?;
        Ok(File { file: Arc::new(file) })
    }

    /// The path that was opened.
    #[getter]
    fn path(&self) -> String {
        self.file.path().to_string_lossy().into_owned()
    }

    /// The GGUF version.
    #[getter]
    fn version(&self) -> u32 {
        self.file.version()
    }

    /// Bytes of all shards together.
    #[getter]
    fn total_bytes(&self) -> u64 {
        self.file.total_bytes()
    }

    /// The metadata keys, in file order.
    fn keys(&self) -> Vec<String> {
        self.metadata().iter().map(|(key, _)| key.to_owned()).collect()
    }

    /// The value of a metadata key.
    fn value<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyAny>> {
        let value = self.metadata().get(key).ok_or_else(|| PyKeyError::new_err(key.to_owned()))?;
        metadata::to_python(py, value)
    }

    /// Name, shape (row length first), type and bytes of every tensor, in file order.
    fn tensors(&self) -> Vec<Tensor> {
        self.file.tensors().iter().map(tensor).collect()
    }

    /// Bytes of weights, KV cache, scratch memory and the rest, and the context length that they are for.
    #[pyo3(signature = (context_length, kv_dtype, batch))]
    fn plan(
        &self,
        py: Python<'_>,
        context_length: Option<usize>,
        kv_dtype: &str,
        batch: usize,
    ) -> PyResult<(usize, usize, usize, usize, usize)> {
        let plan = MemoryPlan::new(&self.file, context_length, cache_type(py, kv_dtype)?, batch).or_raise(py)?;
        Ok((plan.weights, plan.kv_cache, plan.scratch, plan.other, plan.context_length))
    }
    /// What a token at `position` costs: bytes of weights and of the KV cache, and operations (with integers, with floats) in the layers
    /// and in the output matrix.
    fn token_cost(&self, py: Python<'_>, kv_dtype: &str, position: usize) -> PyResult<Cost> {
        let cost = TokenCost::new(&self.file, cache_type(py, kv_dtype)?, position).or_raise(py)?;
        let (layers, output) = (cost.layers, cost.output);
        Ok((cost.weights, cost.kv_cache, (layers.integer, layers.float), (output.integer, output.float)))
    }
}
