//! Any bytes, as a whole file and as the start of a longer one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fastllm_fuzz::check_gguf(bytes, bytes.len() as u64);
    fastllm_fuzz::check_gguf(bytes, u64::MAX);
});
