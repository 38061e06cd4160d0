//! Draws one of the candidates by inverting the cumulative distribution.

use super::candidates::Candidates;

/// `uniform` is in [0, 1). A candidate with weight zero is never drawn.
pub(super) fn draw(candidates: &mut Candidates, uniform: f64) -> u32 {
    let (weights, total) = candidates.weights();
    let target = uniform * total;
    let mut sum = 0.0;
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        sum += f64::from(weight);
        // When rounding leaves the sum below the target, the last possible candidate is the one.
        last = index;
        if target < sum {
            break;
        }
    }
    candidates.id(last)
}
