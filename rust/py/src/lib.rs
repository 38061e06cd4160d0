//! The extension module `fastllm._native`: conversion, GIL release and error mapping only.
//!
//! No thread of the engine ever calls Python: a waiting caller polls in short slices and looks for signals, an event loop is woken
//! through a pipe ([`waker`]). What must not outlive a `fork` is held in [`process::Owned`].
#![deny(unsafe_code)]

mod cache;
mod cancellation;
mod chat;
mod decoder;
mod engine;
mod errors;
mod file;
mod grammar;
mod json;
mod metadata;
mod model;
mod process;
mod request;
mod roofline;
mod sampling;
mod tokenizer;
mod tools;
mod waker;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::cache::{cache_clear, cache_folder, cache_list, cache_verify};
    #[pymodule_export]
    use crate::cancellation::Cancellation;
    #[pymodule_export]
    use crate::chat::ChatTemplate;
    #[pymodule_export]
    use crate::decoder::Decoder;
    #[pymodule_export]
    use crate::engine::{Engine, shutdown};
    #[pymodule_export]
    use crate::file::File;
    #[pymodule_export]
    use crate::grammar::{Grammar, Grammars};
    #[pymodule_export]
    use crate::json::check_json;
    #[pymodule_export]
    use crate::model::{Model, available_isas, cache_types, default_threads};
    #[pymodule_export]
    use crate::request::{Finished, Prefill, PromptLogprobs, Request, Token};
    #[pymodule_export]
    use crate::roofline::{measure_compute, measure_read};
    #[pymodule_export]
    use crate::sampling::Sampling;
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::tools::{OutputParser, detect_tool_format, read_calls, reasons, tool_formats};
    #[pymodule_export]
    use crate::waker::Waker;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python expects")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
