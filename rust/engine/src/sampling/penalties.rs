//! Penalties for tokens that occurred.
//!
//! - `repetition_penalty` r, as in Hugging Face and vLLM (Keskar et al., CTRL, arXiv:1909.05858): the logit of every token of the prompt
//!   and the output is divided by r when positive and multiplied by r otherwise, once, however often the token occurred.
//! - `frequency_penalty` and `presence_penalty`, as OpenAI defines them: `logit -= count * frequency + (count > 0) * presence`, where
//!   `count` is how often the token was sampled before, so that the prompt does not count.

use std::collections::HashMap;

use super::candidates::Candidates;
use super::params::SamplingParams;

#[derive(Debug)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// How often each token of prompt and output was sampled.
    counts: HashMap<u32, u32>,
}

impl Penalties {
    /// `None` when every penalty is neutral.
    pub(super) fn new(params: &SamplingParams, prompt: &[u32]) -> Option<Self> {
        let (repetition, presence, frequency) = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty);
        let counts = if repetition == 1.0 { HashMap::new() } else { prompt.iter().map(|&id| (id, 0)).collect() };
        ((repetition, presence, frequency) != (1.0, 0.0, 0.0)).then_some(Self { repetition, presence, frequency, counts })
    }

    pub(super) fn record(&mut self, id: u32) {
        *self.counts.entry(id).or_insert(0) += 1;
    }

    pub(super) fn apply(&self, candidates: &mut Candidates) {
        for (&id, &count) in &self.counts {
            if let Some(logit) = candidates.logit_of(id) {
                *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
                if count > 0 {
                    *logit -= count as f32 * self.frequency + self.presence;
                }
            }
        }
    }
}
