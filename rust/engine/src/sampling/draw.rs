//! Draws one of the candidates by inverting the cumulative distribution.

use super::candidates::Candidates;

/// A drawn token and its probability among the candidates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) id: u32,
    pub(super) probability: f64,
}

/// `uniform` is in [0, 1). A candidate with weight zero is never drawn.
pub(super) fn draw(candidates: &mut Candidates, uniform: f64) -> Drawn {
    let (weights, total) = candidates.weights();
    let target = uniform * total;
    let mut sum = 0.0;
    let mut drawn = (0, 0.0);
    for (index, weight) in weights.iter().map(|&weight| f64::from(weight)).enumerate().filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        // When rounding leaves the sum below the target, the last possible candidate is the one.
        drawn = (index, weight);
        if target < sum {
            break;
        }
    }
    Drawn { id: candidates.id(drawn.0), probability: drawn.1 / total }
}
