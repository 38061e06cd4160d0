//! The sampling options and their ranges.

use std::collections::BTreeMap;
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
        let allowed = |bias: f32| (-100.0..=100.0).contains(&bias) || bias == f32::NEG_INFINITY;
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !allowed(**bias)) {
            return Err(ParamError::new("logit_bias", format!("{bias} for id {id}"), "-100 to 100, or -infinity"));
        }
        match self.logprobs.filter(|&k| k > MAX_LOGPROBS) {
            Some(k) => Err(ParamError::new("logprobs", k.to_string(), format!("0 to {MAX_LOGPROBS}"))),
            None => Ok(()),
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
