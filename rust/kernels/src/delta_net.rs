//! One step of a gated delta rule (Yang et al., 2024): a head's matrix of keys and values, forgotten a little, corrected and read.
//!
//! Sums over the key channels run in ascending order for every value channel, so results agree bit for bit on every instruction set.
use fastllm_simd::{Cpu, Isa, Kernel, ROWS};

/// One token of one head, as a [`Kernel`].
pub struct DeltaStep<'a> {
    /// `[key channels, value channels]`.
    pub state: &'a mut [f32],
    /// One float per key channel.
    pub q: &'a [f32],
    /// One float per key channel.
    pub k: &'a [f32],
    /// One float per value channel: a multiple of 16 of them.
    pub v: &'a [f32],
    /// Multiplies the state first.
    pub decay: f32,
    /// How much of the correction is made.
    pub beta: f32,
    /// One float per value channel.
    pub out: &'a mut [f32],
}

impl Kernel for DeltaStep<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let DeltaStep { state, q, k, v, decay, beta, out } = self;
        let (keys, values) = (k.len(), v.len());
        let fits = q.len() == keys && out.len() == values && state.len() == keys * values && values.is_multiple_of(ROWS);
        assert!(fits, "a state of {} for {keys} key and {values} value channels", state.len());
        let (decay, beta) = (isa.splat(decay), isa.splat(beta));
        for at in (0..values).step_by(I::LANES) {
            let mut known = isa.splat(0.0);
            for i in 0..keys {
                let s = isa.mul(isa.load(&state[i * values + at..]), decay);
                isa.store(s, &mut state[i * values + at..]);
                known = isa.fma(s, isa.splat(k[i]), known);
            }
            let delta = isa.mul(isa.sub(isa.load(&v[at..]), known), beta);
            let mut read = isa.splat(0.0);
            for i in 0..keys {
                let s = isa.fma(isa.splat(k[i]), delta, isa.load(&state[i * values + at..]));
                isa.store(s, &mut state[i * values + at..]);
                read = isa.fma(s, isa.splat(q[i]), read);
            }
            isa.store(read, &mut out[at..]);
        }
    }
}

/// `state *= decay; state += k (v - k^T state)^T beta; out = q^T state`.
///
/// # Panics
/// If the lengths do not fit, or `v` is not a multiple of 16 long.
pub fn delta_step(cpu: Cpu, step: DeltaStep) {
    cpu.run(step);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_its_formula_with_the_same_bits_on_every_isa() {
        let data = |n: usize, seed: f32| -> Vec<f32> { (0..n).map(|i| ((i as f32 + 1.0) * seed).sin()).collect() };
        for (keys, values) in [(1, 16), (7, 32), (32, 48), (128, 128)] {
            let (state, q, k, v) = (data(keys * values, 0.7), data(keys, 1.3), data(keys, 0.3), data(values, 2.1));
            let step = |cpu: Cpu| {
                let (mut state, mut out) = (state.clone(), vec![0.0; values]);
                delta_step(cpu, DeltaStep { state: &mut state, q: &q, k: &k, v: &v, decay: 0.9, beta: 0.4, out: &mut out });
                (state, out)
            };
            let reference = step(Cpu::scalar());
            for cpu in Cpu::available() {
                assert_eq!(step(cpu), reference, "{}", cpu.name());
            }
            for j in 0..values {
                let old = |i: usize| f64::from(state[i * values + j]) * f64::from(0.9f32);
                let known: f64 = (0..keys).map(|i| old(i) * f64::from(k[i])).sum();
                let delta = (f64::from(v[j]) - known) * f64::from(0.4f32);
                let new = |i: usize| old(i) + f64::from(k[i]) * delta;
                let read: f64 = (0..keys).map(|i| new(i) * f64::from(q[i])).sum();
                assert!((f64::from(reference.1[j]) - read).abs() < 1e-4, "{read}");
                assert!((0..keys).all(|i| (f64::from(reference.0[i * values + j]) - new(i)).abs() < 1e-5));
            }
        }
    }
}
