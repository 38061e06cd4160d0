//! Keeps the k most likely tokens (Fan et al., arXiv:1805.04833); of equal ones the lower ids.

use super::candidates::Candidates;
use super::select::largest;

pub(super) fn apply(candidates: &mut Candidates, k: usize) {
    if k < candidates.len() {
        let kept = largest(candidates.logits(), k);
        candidates.keep(&kept);
    }
}
