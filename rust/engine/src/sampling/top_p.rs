//! Nucleus sampling (Holtzman et al., arXiv:1904.09751): keeps the fewest most likely tokens that together have probability p.

use super::candidates::Candidates;
use super::select::nucleus;

pub(super) fn apply(candidates: &mut Candidates, p: f32) {
    let (weights, total) = candidates.weights();
    let kept = nucleus(weights, weights, p, total);
    candidates.keep(&kept);
}
