//! The one place where an architecture's name becomes a [`Config`].
mod keys;
mod llama;

use crate::ModelError;
use crate::config::Config;
use crate::error::quoted;
use crate::weights::{Declared, Weights};
use fastllm_gguf::GgufFile;
use keys::Keys;

/// Names of the architectures that run.
pub const SUPPORTED: &[&str] = &["llama"];

/// Reads the configuration and declares the weights of a file, checking them against each other.
pub fn declare(file: &GgufFile) -> Result<(Config, Weights<Declared>), ModelError> {
    let name = file.metadata().str("general.architecture")?;
    let keys = |arch| Keys { metadata: file.metadata(), arch };
    match name {
        Some("llama") => llama::declare(file, &keys("llama")),
        Some(other) => Err(ModelError::Unsupported(format!(
            "architecture {} is not supported; supported are: {}",
            quoted(other),
            SUPPORTED.join(", ")
        ))),
        None => Err(ModelError::Invalid("the file has no key general.architecture: it holds no model".to_owned())),
    }
}
