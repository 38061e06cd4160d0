//! The sampling options and their ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::error::ParamError;

/// Most alternatives that `logprobs` reports.
pub const MAX_LOGPROBS: u32 = 100;

/// How tokens are chosen. The defaults change nothing: the distribution of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits: 0 (greedy) to 100.
    pub temperature: f32,
    /// Keep this many tokens; 0: all.
    pub top_k: u32,
    /// Keep tokens up to this total probability: 0 (one token) to 1 (all).
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the most likely one: 0 (all) to 1.
    pub min_p: f32,
    /// Keep the most typical tokens up to this total probability: 0 (one token) to 1 (all).
    pub typical_p: f32,
    /// Divides the positive and multiplies the other logits of tokens of prompt and output: 0.01 to 100, 1: none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens of the output: -100 to 100.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens of the output, times their number: -100 to 100.
    pub frequency_penalty: f32,
    /// Scale of the DRY penalty: 0 (none) to 100.
    pub dry_multiplier: f32,
    /// Growth of the DRY penalty with each repeated token: 1 to 10.
    pub dry_base: f32,
    /// Repetitions shorter than this are free of the DRY penalty: at least 1.
    pub dry_allowed_length: u32,
    /// Tokens at the end of prompt and output in which DRY looks for repetitions; `None`: all.
    pub dry_penalty_last_n: Option<u32>,
    /// Ids at which a repetition ends.
    pub dry_sequence_breakers: BTreeSet<u32>,
    /// How often XTC removes the top choices: 0 (never) to 1.
    pub xtc_probability: f32,
    /// Least probability of a top choice: 0 to 1.
    pub xtc_threshold: f32,
    /// 2: mirostat version 2, 0: none.
    pub mirostat: u32,
    /// The surprise, in bits, that mirostat aims at: 0 to 100.
    pub mirostat_tau: f32,
    /// How fast mirostat adapts: 0 to 1.
    pub mirostat_eta: f32,
    /// Added to the logits of ids: -100 to 100, or -infinity to ban the id.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Report log-probabilities of the chosen token and this many alternatives: 0 to 100.
    pub logprobs: Option<u32>,
    /// Seed of the random numbers; `None`: from the system.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            dry_sequence_breakers: BTreeSet::new(),
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: BTreeMap::new(),
            logprobs: None,
            seed: None,
        }
    }
}

impl SamplingParams {
    /// The most likely token at every step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// Names the first option out of range, its value and the range.
    pub fn validate(&self) -> Result<(), ParamError> {
        check("temperature", self.temperature, 0.0..=100.0)?;
        check("top_p", self.top_p, 0.0..=1.0)?;
        check("min_p", self.min_p, 0.0..=1.0)?;
        check("typical_p", self.typical_p, 0.0..=1.0)?;
        check("repetition_penalty", self.repetition_penalty, 0.01..=100.0)?;
        check("presence_penalty", self.presence_penalty, -100.0..=100.0)?;
        check("frequency_penalty", self.frequency_penalty, -100.0..=100.0)?;
        check("dry_multiplier", self.dry_multiplier, 0.0..=100.0)?;
        check("dry_base", self.dry_base, 1.0..=10.0)?;
        check("xtc_probability", self.xtc_probability, 0.0..=1.0)?;
        check("xtc_threshold", self.xtc_threshold, 0.0..=1.0)?;
        check("mirostat_tau", self.mirostat_tau, 0.0..=100.0)?;
        check("mirostat_eta", self.mirostat_eta, 0.0..=1.0)?;
        if self.dry_allowed_length == 0 {
            return Err(ParamError::new("dry_allowed_length", "0", "at least 1"));
        }
        self.validate_mirostat()?;
        let allowed = |bias: f32| (-100.0..=100.0).contains(&bias) || bias == f32::NEG_INFINITY;
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !allowed(**bias)) {
            return Err(ParamError::new("logit_bias", format!("{bias} for id {id}"), "-100 to 100, or -infinity"));
        }
        match self.logprobs.filter(|&k| k > MAX_LOGPROBS) {
            Some(k) => Err(ParamError::new("logprobs", k.to_string(), format!("0 to {MAX_LOGPROBS}"))),
            None => Ok(()),
        }
    }

    /// Mirostat chooses how many tokens remain; a second filter that does so would be ignored or defeat it.
    fn validate_mirostat(&self) -> Result<(), ParamError> {
        if self.mirostat != 0 && self.mirostat != 2 {
            return Err(ParamError::new("mirostat", self.mirostat.to_string(), "0 or 2"));
        }
        let filters = [
            ("top_k", self.top_k > 0),
            ("top_p", self.top_p < 1.0),
            ("min_p", self.min_p > 0.0),
            ("typical_p", self.typical_p < 1.0),
            ("xtc_probability", self.xtc_probability > 0.0),
        ];
        match filters.iter().find(|(_, active)| *active) {
            Some((filter, _)) if self.mirostat == 2 => Err(ParamError::new("mirostat", "2", format!("0 together with {filter}"))),
            _ => Ok(()),
        }
    }
}

/// NaN is in no range.
fn check(field: &'static str, value: f32, range: RangeInclusive<f32>) -> Result<(), ParamError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(ParamError::new(field, value.to_string(), format!("{} to {}", range.start(), range.end())))
    }
}
