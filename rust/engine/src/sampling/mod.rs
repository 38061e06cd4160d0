//! From logits to a token.
//!
//! The filters run in this order, each on the distribution that the ones before it left, renormalised. A filter at its neutral value
//! does not run.
//!
//! 1. the mask of a constraint: all other logits become -infinity; then `logit_bias`: added to the logits
//! 2. `penalties`: repetition, then presence and frequency
//! 3. `dry`
//! 4. `temperature`: zero ends the chain here with the most likely token (of equal ones the lowest id)
//! 5. `top_k`
//! 6. `top_p`
//! 7. `min_p`
//! 8. `typical_p`
//! 9. `xtc`
//! 10. `mirostat`, which stands for 5 to 9: it cannot be combined with them
//! 11. `draw`: one token, by the random number of (seed, step)
//!
//! The result depends on logits, options, seed and step alone. `logprobs` report the distribution of the model before all of this.

mod candidates;
mod draw;
mod dry;
mod logit_bias;
mod logprobs;
mod math;
mod min_p;
mod mirostat;
mod params;
mod penalties;
mod random;
mod select;
mod temperature;
mod top_k;
mod top_p;
mod typical_p;
mod xtc;

pub use candidates::Scratch;
pub use logprobs::{TokenLogprobs, token_logprobs};
pub use params::{MAX_LOGPROBS, SamplingParams};
pub use random::{entropy_seed, philox4x32, uniform};

use crate::error::ParamError;
use candidates::Candidates;
use dry::Dry;
use mirostat::Mirostat;
use penalties::Penalties;

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// The model gave NaN or +infinity (or an option drove a logit there).
    #[error("the logit of token {id} is {value}")]
    InvalidLogit {
        /// The first such token.
        id: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token has probability zero.
    #[error("every token is banned: no logit is above -infinity")]
    AllBanned,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// Log-probabilities, when asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Chooses the tokens of one request.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    step: u64,
    penalties: Option<Penalties>,
    dry: Option<Dry>,
    mirostat: Option<Mirostat>,
}

impl Sampler {
    /// A sampler for the continuation of `prompt`. Without a seed in `params` one is drawn from the system.
    ///
    /// # Errors
    /// The option that is out of range.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Result<Self, ParamError> {
        params.validate()?;
        let seed = params.seed.unwrap_or_else(entropy_seed);
        let penalties = Penalties::new(&params, prompt);
        let dry = Dry::new(&params, prompt);
        let mirostat = (params.mirostat == 2).then(|| Mirostat::new(params.mirostat_tau, params.mirostat_eta));
        Ok(Self { params, seed, step: 0, penalties, dry, mirostat })
    }

    /// Chooses the next token from `logits` (one per id) and remembers it.
    ///
    /// # Errors
    /// When the logits allow no choice.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut Scratch) -> Result<Choice, SampleError> {
        self.sample_within(None, logits, scratch)
    }

    /// As [`sample`](Self::sample), among the ids whose bits in `mask` are set (id `i` is bit `i % 32` of word `i / 32`).
    ///
    /// # Errors
    /// When mask and logits allow no choice.
    pub fn sample_within(&mut self, mask: Option<&[u32]>, logits: &[f32], scratch: &mut Scratch) -> Result<Choice, SampleError> {
        let id = self.choose(mask, logits, scratch)?;
        self.record(id);
        let logprobs = self.params.logprobs.map(|k| logprobs::of(logits, id, k as usize));
        Ok(Choice { id, logprobs })
    }

    /// Remembers `id` as if it had been chosen with a mask that allows nothing else, for which no logits are needed.
    ///
    /// # Errors
    /// When it is banned.
    pub fn force(&mut self, id: u32) -> Result<Choice, SampleError> {
        if self.params.logit_bias.get(&id) == Some(&f32::NEG_INFINITY) {
            return Err(SampleError::AllBanned);
        }
        if let Some(mirostat) = self.mirostat.as_mut().filter(|_| self.params.temperature != 0.0) {
            mirostat.record(1.0);
        }
        self.record(id);
        Ok(Choice { id, logprobs: None })
    }

    fn record(&mut self, id: u32) {
        self.step += 1;
        if let Some(penalties) = &mut self.penalties {
            penalties.record(id);
        }
        if let Some(dry) = &mut self.dry {
            dry.record(id);
        }
    }

    fn choose(&mut self, mask: Option<&[u32]>, logits: &[f32], scratch: &mut Scratch) -> Result<u32, SampleError> {
        let params = &self.params;
        let candidates = scratch.load(logits);
        if let Some(mask) = mask {
            candidates.restrict(mask);
        }
        logit_bias::apply(candidates, &params.logit_bias);
        if let Some(penalties) = &self.penalties {
            penalties.apply(candidates);
        }
        if let Some(dry) = &self.dry {
            dry.apply(candidates);
        }
        let max = candidates.check()?;
        if params.temperature == 0.0 {
            return Ok(candidates.first_equal(max));
        }
        temperature::apply(candidates, max, params.temperature);
        let [for_draw, for_xtc] = uniform(self.seed, self.step);
        filter(candidates, params, for_xtc);
        if let Some(mirostat) = &self.mirostat {
            mirostat.apply(candidates);
        }
        let drawn = draw::draw(candidates, for_draw);
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.record(drawn.probability);
        }
        Ok(drawn.id)
    }
}

/// The truncating filters. The logits are shifted so that the largest is zero, and every filter keeps the largest or renormalises.
fn filter(candidates: &mut Candidates, params: &SamplingParams, uniform: f64) {
    if params.top_k > 0 {
        top_k::apply(candidates, params.top_k as usize);
    }
    if params.top_p < 1.0 {
        top_p::apply(candidates, params.top_p);
    }
    if params.min_p > 0.0 {
        min_p::apply(candidates, params.min_p);
    }
    if params.typical_p < 1.0 {
        typical_p::apply(candidates, params.typical_p);
    }
    if params.xtc_probability > 0.0 {
        xtc::apply(candidates, params.xtc_probability, params.xtc_threshold, uniform);
    }
}
