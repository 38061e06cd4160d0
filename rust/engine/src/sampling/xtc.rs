//! XTC, "exclude top choices" (p-e-w, text-generation-webui #6335): with probability `xtc_probability`, removes of the tokens with at
//! least probability `xtc_threshold` all but the least likely one.

use super::candidates::Candidates;

/// `uniform` is in [0, 1), independent of the number that draws the token.
pub(super) fn apply(candidates: &mut Candidates, probability: f32, threshold: f32, uniform: f64) {
    if uniform >= f64::from(probability) {
        return;
    }
    let (weights, total) = candidates.weights();
    let enough = f64::from(threshold) * total;
    let top = |weight: f32| f64::from(weight) >= enough;
    // Of equally unlikely ones the first stays.
    let least = weights.iter().copied().filter(|&weight| top(weight)).fold(f32::INFINITY, f32::min);
    let Some(stays) = weights.iter().position(|&weight| weight == least) else { return };
    let kept: Vec<u32> = (0..weights.len()).filter(|&i| i == stays || !top(weights[i])).map(|i| i as u32).collect();
    candidates.keep(&kept);
}
