//! Log-probabilities of the model itself: log-softmax of the logits before bias, penalties and filters, as OpenAI reports them.

use super::SampleError;
use super::math;
use super::select::largest;

/// Log-probabilities (natural logarithm) at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub logprob: f32,
    /// Of the most likely tokens, most likely first: (id, log-probability).
    pub top: Vec<(u32, f32)>,
}

/// For the token `id` and the `k` most likely ones, of any logits: what a token of a prompt is given.
///
/// # Errors
/// NaN or +infinity among the logits, or nothing above -infinity.
pub fn token_logprobs(logits: &[f32], id: u32, k: usize) -> Result<TokenLogprobs, SampleError> {
    let (max, valid) = math::max_and_validity(logits);
    if !valid {
        let invalid = logits.iter().enumerate().find(|(_, logit)| logit.is_nan() || **logit == f32::INFINITY);
        if let Some((index, &value)) = invalid {
            return Err(SampleError::InvalidLogit { id: index as u32, value });
        }
    }
    if max == f32::NEG_INFINITY { Err(SampleError::AllBanned) } else { Ok(of(logits, id, k)) }
}

/// For the token `id` and the `k` most likely ones. `logits` have a largest value and no NaN.
pub(super) fn of(logits: &[f32], id: u32, k: usize) -> TokenLogprobs {
    let (max, _) = math::max_and_validity(logits);
    let log_total = f64::from(max) + math::exp_shifted(logits, max, &mut Vec::new()).ln();
    let logprob = |id: u32| logits.get(id as usize).map_or(f32::NEG_INFINITY, |&logit| (f64::from(logit) - log_total) as f32);
    TokenLogprobs { logprob: logprob(id), top: largest(logits, k).into_iter().map(|id| (id, logprob(id))).collect() }
}
