//! Normalisation of a vector: root mean square, and mean with variance.
//!
//! Sums run in 16 lanes and a fixed tree whatever the instruction set, so results agree bit for bit.
use fastllm_simd::{Cpu, Isa, Kernel, ROWS};

/// 16 lanes, added in a fixed order.
#[inline(always)]
pub(crate) fn tree_sum(x: &[f32; ROWS]) -> f32 {
    let mut x = *x;
    let mut half = ROWS / 2;
    while half > 0 {
        for i in 0..half {
            x[i] += x[i + half];
        }
        half /= 2;
    }
    x[0]
}

/// 16 elements from `at` on, `fill` beyond the end.
#[inline(always)]
pub(crate) fn lanes(x: &[f32], at: usize, fill: f32) -> [f32; ROWS] {
    let rest = &x[at..];
    if let Some(full) = rest.first_chunk::<ROWS>() {
        return *full;
    }
    let mut lanes = [fill; ROWS];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// `sum_i (x[i] - center)^2` in 16 lanes.
#[inline(always)]
fn sum_of_squares<I: Isa>(isa: I, x: &[f32], center: f32) -> f32 {
    let center_lanes = isa.splat(center);
    let mut sums = [isa.splat(0.0); ROWS];
    for at in (0..x.len()).step_by(ROWS) {
        // Padding is the center itself: it adds nothing.
        let x = lanes(x, at, center);
        for t in 0..ROWS / I::LANES {
            let d = isa.sub(isa.load(&x[t * I::LANES..]), center_lanes);
            sums[t] = isa.fma(d, d, sums[t]);
        }
    }
    store_sums(isa, &sums)
}

/// `sum_i x[i]` in 16 lanes.
#[inline(always)]
fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut sums = [isa.splat(0.0); ROWS];
    for at in (0..x.len()).step_by(ROWS) {
        let x = lanes(x, at, 0.0);
        for t in 0..ROWS / I::LANES {
            sums[t] = isa.add(sums[t], isa.load(&x[t * I::LANES..]));
        }
    }
    store_sums(isa, &sums)
}

#[inline(always)]
fn store_sums<I: Isa>(isa: I, sums: &[I::F32; ROWS]) -> f32 {
    let mut lanes = [0.0; ROWS];
    for t in 0..ROWS / I::LANES {
        isa.store(sums[t], &mut lanes[t * I::LANES..]);
    }
    tree_sum(&lanes)
}

/// Root mean square normalisation (Zhang and Sennrich, 2019), as a [`Kernel`].
pub struct RmsNorm<'a> {
    /// The input, `n` floats.
    pub x: &'a [f32],
    /// `n` floats.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// `n` floats.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let RmsNorm { x, weight, eps, out } = self;
        let n = x.len();
        assert!(weight.len() == n && out.len() == n, "{n} inputs, {} weights, {} outputs", weight.len(), out.len());
        let scale = 1.0 / (sum_of_squares(isa, x, 0.0) / n as f32 + eps).sqrt();
        // Two separate roundings, the same with or without vectors.
        for i in 0..n {
            out[i] = x[i] * scale * weight[i];
        }
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`, for vectors of one length.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(cpu: Cpu, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    cpu.run(RmsNorm { x, weight, eps, out });
}

/// [`RmsNorm`] in place.
struct RmsNormInPlace<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for RmsNormInPlace<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let RmsNormInPlace { x, weight, eps } = self;
        assert!(weight.len() == x.len(), "{} inputs, {} weights", x.len(), weight.len());
        let scale = 1.0 / (sum_of_squares(isa, x, 0.0) / x.len() as f32 + eps).sqrt();
        for i in 0..x.len() {
            x[i] = x[i] * scale * weight[i];
        }
    }
}

/// [`rms_norm`] in place, with the same bits: for the norms of queries and keys.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(cpu: Cpu, x: &mut [f32], weight: &[f32], eps: f32) {
    cpu.run(RmsNormInPlace { x, weight, eps });
}

/// Layer normalisation (Ba, Kiros and Hinton, 2016), as a [`Kernel`].
pub struct LayerNorm<'a> {
    /// The input, `n` floats.
    pub x: &'a [f32],
    /// `n` floats.
    pub weight: &'a [f32],
    /// `n` floats, or nothing.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub eps: f32,
    /// `n` floats.
    pub out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let LayerNorm { x, weight, bias, eps, out } = self;
        let n = x.len();
        let fits = weight.len() == n && out.len() == n && bias.is_none_or(|bias| bias.len() == n);
        assert!(fits, "{n} inputs, {} weights, {} outputs", weight.len(), out.len());
        let mean = sum(isa, x) / n as f32;
        let scale = 1.0 / (sum_of_squares(isa, x, mean) / n as f32 + eps).sqrt();
        for i in 0..n {
            out[i] = (x[i] - mean) * scale * weight[i];
        }
        if let Some(bias) = bias {
            for i in 0..n {
                out[i] += bias[i];
            }
        }
    }
}

/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`, for vectors of one length; the variance is that of the population.
///
/// # Panics
/// If the lengths differ.
pub fn layer_norm(cpu: Cpu, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    cpu.run(LayerNorm { x, weight, bias, eps, out });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 + 1.0) * seed).sin() * 3.0 + 0.25).collect()
    }

    fn assert_close(out: &[f32], exact: impl Fn(usize) -> f64) {
        for (i, y) in out.iter().enumerate() {
            assert!((f64::from(*y) - exact(i)).abs() <= 1e-6 * exact(i).abs() + 1e-6, "{i}: {y}, not {}", exact(i));
        }
    }

    #[test]
    fn norms_follow_their_formulae_with_the_same_bits_on_every_isa() {
        for n in [1, 2, 7, 8, 15, 16, 17, 31, 64, 80, 100, 2048, 4097] {
            let (x, weight, bias) = (data(n, 0.71), data(n, 1.3), data(n, 0.37));
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let mean = wide.iter().sum::<f64>() / n as f64;
            let square = wide.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let reference = norms(Cpu::scalar(), &x, &weight, &bias);
            assert_close(&reference[0], |i| wide[i] / (square + 1e-3).sqrt() * f64::from(weight[i]));
            assert_close(&reference[2], |i| (wide[i] - mean) / (variance + 1e-3).sqrt() * f64::from(weight[i]));
            assert_close(&reference[3], |i| (wide[i] - mean) / (variance + 1e-3).sqrt() * f64::from(weight[i]) + f64::from(bias[i]));
            assert_eq!(reference[0], reference[1]);
            for cpu in Cpu::available() {
                assert_eq!(norms(cpu, &x, &weight, &bias), reference, "{} {n}", cpu.name());
            }
        }
    }

    fn norms(cpu: Cpu, x: &[f32], weight: &[f32], bias: &[f32]) -> [Vec<f32>; 4] {
        let mut out = [x.to_vec(), x.to_vec(), x.to_vec(), x.to_vec()];
        rms_norm(cpu, x, weight, 1e-3, &mut out[0]);
        rms_norm_in_place(cpu, &mut out[1], weight, 1e-3);
        layer_norm(cpu, x, weight, None, 1e-3, &mut out[2]);
        layer_norm(cpu, x, weight, Some(bias), 1e-3, &mut out[3]);
        out
    }
}
