//! Mirostat v2 (Basu et al., arXiv:2007.14966): keeps the surprise of the text near `mirostat_tau` bits. Tokens with a surprise above a
//! bound `mu` are removed, and after each token `mu -= mirostat_eta * (surprise - mirostat_tau)`. As in llama.cpp, `mu` starts at twice
//! tau, and the surprise of the drawn token is that among the tokens that were left.

use super::candidates::Candidates;

#[derive(Clone, Copy, Debug)]
pub(super) struct Mirostat {
    tau: f64,
    eta: f64,
    mu: f64,
}

impl Mirostat {
    pub(super) fn new(tau: f32, eta: f32) -> Self {
        Self { tau: f64::from(tau), eta: f64::from(eta), mu: 2.0 * f64::from(tau) }
    }

    /// Removes what is too surprising; the most likely tokens stay.
    pub(super) fn apply(&self, candidates: &mut Candidates) {
        let (weights, total) = candidates.weights();
        // -log2(weight / total) <= mu; the largest weight is 1.
        let least = (total * (-self.mu).exp2()).min(1.0);
        let kept: Vec<u32> = (0..weights.len()).filter(|&i| f64::from(weights[i]) >= least).map(|i| i as u32).collect();
        candidates.keep(&kept);
    }

    /// A token with this probability was drawn.
    pub(super) fn record(&mut self, probability: f64) {
        self.mu -= self.eta * (-probability.log2() - self.tau);
    }
}
