//! What can go wrong with a model.
use fastllm_kernels::buffer::OutOfMemory;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read, or is not what it says.
    #[error(transparent)]
    File(#[from] fastllm_gguf::Error),
    /// The file is sound, but this version cannot run it.
    #[error("{0}")]
    Unsupported(String),
    /// Metadata and tensors contradict each other or themselves.
    #[error("{0}")]
    Invalid(String),
    /// An option has a value that cannot be.
    #[error("{0}")]
    Option(String),
    /// There is not enough memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The cache of packed weights cannot be looked at or cleared. Loading never fails for its sake.
    #[error("the cache {}: {source}", folder.display())]
    Cache {
        /// Its folder.
        folder: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bit of the cached weights that the model runs on is not as it was written: the disk or the memory has changed it, or another
    /// process of this user. What was computed since the model was loaded may be wrong.
    #[error("the cached weights in {} are damaged: results since the model was loaded may be wrong; load the model again", path.display())]
    DamagedCache {
        /// The file, which has been deleted.
        path: std::path::PathBuf,
    },
    /// The caller asked for it.
    #[error("cancelled")]
    Cancelled,
    /// A batch that cannot be run: the caller's fault.
    #[error("{0}")]
    Batch(String),
}

/// A text from a file for a message: quoted, and cut off where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(64).collect();
    format!("{start:?}{}", if chars.next().is_some() { "…" } else { "" })
}

/// `Err(ModelError::Invalid)` with a formatted message.
macro_rules! invalid {
    ($($arg:tt)*) => { Err($crate::ModelError::Invalid(format!($($arg)*))) };
}
pub(crate) use invalid;
