//! Locally typical sampling (Meister et al., arXiv:2202.00666): keeps the tokens whose surprise is nearest to the entropy, until they
//! have probability p.

use super::candidates::Candidates;
use super::select::nucleus;

pub(super) fn apply(candidates: &mut Candidates, p: f32) {
    let (weights, total) = candidates.weights();
    let total_ln = total.ln();
    // -ln(probability); the logits are not used, so that a weight that is zero stays out.
    let surprises: Vec<f64> = weights.iter().map(|&weight| total_ln - f64::from(weight).ln()).collect();
    let entropy: f64 = weights.iter().zip(&surprises).filter(|(w, _)| **w > 0.0).map(|(&w, s)| f64::from(w) / total * s).sum();
    let nearness: Vec<f32> = surprises.iter().map(|surprise| -(surprise - entropy).abs() as f32).collect();
    let kept = nucleus(&nearness, weights, p, total);
    candidates.keep(&kept);
}
