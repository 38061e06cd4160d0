//! Divides the logits by the temperature.

use super::candidates::Candidates;

/// Shifts the logits so that `max`, the largest, becomes zero, and divides: no temperature above zero overflows.
pub(super) fn apply(candidates: &mut Candidates, max: f32, temperature: f32) {
    for logit in candidates.logits_mut() {
        *logit = (*logit - max) / temperature;
    }
}
