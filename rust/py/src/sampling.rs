//! `Sampling`: the checked options of a request.
use crate::errors::{self, OrRaise};
use fastllm_engine::StopParams;
use fastllm_engine::sampling::SamplingParams;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Options of a request, all of them in range.
#[pyclass(frozen, module = "fastllm._native")]
pub struct Sampling {
    pub(crate) params: SamplingParams,
    pub(crate) stop: StopParams,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) prompt_logprobs: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) priority: i32,
    pub(crate) cache_salt: Arc<str>,
}

#[pymethods]
impl Sampling {
    #[new]
    #[pyo3(signature = (*, max_tokens, temperature, top_k, top_p, min_p, typical_p, repetition_penalty, presence_penalty,
        frequency_penalty, dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers, xtc_probability,
        xtc_threshold, mirostat, mirostat_tau, mirostat_eta, seed, stop, stop_token_ids, ignore_eos, logit_bias, logprobs, prompt_logprobs, timeout,
        priority, cache_salt))]
    fn new(
        py: Python<'_>,
        max_tokens: Option<u32>,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        typical_p: f32,
        repetition_penalty: f32,
        presence_penalty: f32,
        frequency_penalty: f32,
        dry_multiplier: f32,
        dry_base: f32,
        dry_allowed_length: u32,
        dry_penalty_last_n: Option<u32>,
        dry_sequence_breakers: Vec<u32>,
        xtc_probability: f32,
        xtc_threshold: f32,
        mirostat: u32,
        mirostat_tau: f32,
        mirostat_eta: f32,
        seed: Option<u64>,
        stop: Vec<String>,
        stop_token_ids: Vec<u32>,
        ignore_eos: bool,
        logit_bias: BTreeMap<u32, f32>,
        logprobs: Option<u32>,
        prompt_logprobs: Option<u32>,
        timeout: Option<f64>,
        priority: i32,
        cache_salt: &str,
    ) -> PyResult<Sampling> {
        let params = SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            dry_multiplier,
            dry_base,
            dry_allowed_length,
            dry_penalty_last_n,
            dry_sequence_breakers: dry_sequence_breakers.into_iter().collect(),
            xtc_probability,
            xtc_threshold,
            mirostat,
            mirostat_tau,
            mirostat_eta,
            logit_bias,
            logprobs,
            seed,
        };
        params.validate().or_raise(py)?;
        let stop = StopParams { strings: stop, token_ids: stop_token_ids, ignore_eos };
        stop.validate().or_raise(py)?;
        let seconds = |s: f64| {
            let duration = Duration::try_from_secs_f64(s).ok().filter(|d| !d.is_zero());
            duration.ok_or_else(|| errors::parameter(py, format!("timeout = {s} is not allowed: seconds above 0")))
        };
        let (timeout, cache_salt) = (timeout.map(seconds).transpose()?, cache_salt.into());
        Ok(Sampling { params, stop, max_tokens, prompt_logprobs, timeout, priority, cache_salt })
    }
}
