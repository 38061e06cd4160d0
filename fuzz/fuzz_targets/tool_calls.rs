//! Any output of a model, in every format, whole and cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<u8>)| {
    let (text, cuts) = input;
    fastllm_fuzz::check_tool_calls(text, &cuts);
});
