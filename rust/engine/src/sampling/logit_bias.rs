//! OpenAI's `logit_bias`: a number added to the logit of an id; -infinity bans the id.

use std::collections::BTreeMap;

use super::candidates::Candidates;

pub(super) fn apply(candidates: &mut Candidates, bias: &BTreeMap<u32, f32>) {
    for (&id, &bias) in bias {
        if let Some(logit) = candidates.logit_of(id) {
            *logit += bias;
        }
    }
}
