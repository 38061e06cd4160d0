//! Keeps the tokens that are at least min_p times as likely as the most likely one (Nguyen et al., arXiv:2407.01082).

use super::candidates::Candidates;

pub(super) fn apply(candidates: &mut Candidates, min_p: f32) {
    let (weights, _) = candidates.weights();
    let kept: Vec<u32> = weights.iter().enumerate().filter(|(_, weight)| **weight >= min_p).map(|(index, _)| index as u32).collect();
    candidates.keep(&kept);
}
