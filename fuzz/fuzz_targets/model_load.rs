//! Any bytes as a model: loaded, and run if they are one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("fastllm-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, bytes).expect("a file for the input");
    let _ = fastllm_fuzz::load_model(&path);
});
