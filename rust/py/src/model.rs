//! `Model`: weights in memory.
use crate::errors::{self, OrRaise};
use crate::file::{File, cache_type};
use fastllm_kernels::attention::CacheType;
use fastllm_model::packed_cache::CacheSettings;
use fastllm_model::{LoadOptions, WeightsFrom};
use fastllm_simd::Cpu;
use pyo3::prelude::*;
use std::sync::Arc;

/// The weights of a model, packed for this machine.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Model {
    pub(crate) inner: Arc<fastllm_model::Model>,
}

/// The instruction sets of this CPU, the fastest last.
#[pyfunction]
pub fn available_isas() -> Vec<&'static str> {
    Cpu::available().into_iter().map(Cpu::name).collect()
}

/// The ways to store keys and values.
#[pyfunction]
pub fn cache_types() -> Vec<&'static str> {
    CacheType::ALL.iter().map(|t| t.name()).collect()
}

/// The threads that a model uses unless told otherwise.
#[pyfunction]
pub fn default_threads() -> usize {
    fastllm_kernels::pool::default_threads()
}

#[pymethods]
impl Model {
    /// Loads, with `cache` from the packed cache if the environment allows; `progress(done, total)` hears of bytes packed, and what it
    /// raises stops the loading.
    #[new]
    fn new(
        py: Python<'_>,
        file: &File,
        isa: String,
        threads: Option<usize>,
        prefill_threads: Option<usize>,
        kv_dtype: &str,
        context_length: Option<usize>,
        cache: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Model> {
        let packed_cache = if cache { CacheSettings::from_env().or_raise(py)? } else { None };
        let cache_type = cache_type(py, kv_dtype)?;
        let options = LoadOptions { isa, threads, prefill_threads, cache_type, context_length, packed_cache };
        let file = Arc::clone(&file.file);
        let progress = progress.map(|progress| progress.clone().unbind());
        let mut raised = None;
        let mut report = |done: usize, total: usize| {
            raised = errors::report(progress.as_ref(), done, total).err();
            raised.is_none()
        };
        let loaded = py.detach(|| fastllm_model::Model::load(&file, &options, &mut report));
        raised.map_or(Ok(()), Err)?;
        Ok(Model { inner: Arc::new(loaded.or_raise(py)?) })
    }

    #[getter]
    fn architecture(&self) -> &str {
        &self.inner.config().architecture
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.config().vocab_size
    }

    #[getter]
    fn context_length(&self) -> usize {
        self.inner.context_length()
    }

    #[getter]
    fn isa(&self) -> &'static str {
        self.inner.cpu().name()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.inner.threads()
    }

    #[getter]
    fn prefill_threads(&self) -> usize {
        self.inner.prefill_threads()
    }

    #[getter]
    fn kv_dtype(&self) -> &'static str {
        self.inner.cache_type().name()
    }

    #[getter]
    fn weights_from(&self) -> &'static str {
        match self.inner.weights_from() {
            WeightsFrom::ModelFile => "model file",
            WeightsFrom::NewCache => "new cache",
            WeightsFrom::Cache => "cache",
        }
    }

    /// Bytes of the KV cache of one sequence that fills the context.
    #[getter]
    fn sequence_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.inner.sequence_bytes().or_raise(py)
    }

    #[getter]
    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes()
    }
}
