//! Rotary position embedding (Su et al., 2021): frequencies, tables of angles, rotation. Knows heads, no models.
//!
//! Frequencies and angles are computed in f64 and rounded once. A rotation is two products and one sum, each rounded, so that results
//! agree bit for bit on every instruction set.
use fastllm_simd::{Cpu, Isa, Kernel};
use std::f64::consts::TAU;

/// Which channels of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(2i, 2i + 1)`: "norm" in GGUF terms.
    Interleaved,
    /// `(i, i + rope_dim / 2)`: "NeoX" in GGUF terms.
    Halves,
}

/// The `rope_dim / 2` frequencies `base^(-2i / rope_dim)`, in radians per position.
pub fn frequencies(base: f64, rope_dim: usize) -> Vec<f64> {
    (0..rope_dim / 2).map(|i| base.powf(-2.0 * i as f64 / rope_dim as f64)).collect()
}

/// Linear scaling: positions are divided by `factor`.
pub fn scale_linear(frequencies: &mut [f64], factor: f64) {
    for f in frequencies {
        *f /= factor;
    }
}

/// One divisor per frequency: the tensor `rope_freqs` of GGUF files, or the short or long factors of LongRoPE.
///
/// # Panics
/// If there are fewer divisors than frequencies.
pub fn divide(frequencies: &mut [f64], divisors: &[f32]) {
    assert!(divisors.len() >= frequencies.len(), "{} divisors for {} frequencies", divisors.len(), frequencies.len());
    for (f, divisor) in frequencies.iter_mut().zip(divisors) {
        *f /= f64::from(*divisor);
    }
}

/// The scaling of Llama 3.1: short waves stay, long ones are stretched by `factor`, with a linear ramp between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How much longer the context is.
    pub factor: f64,
    /// Waves longer than `original_context / low_freq_factor` are stretched.
    pub low_freq_factor: f64,
    /// Waves shorter than `original_context / high_freq_factor` stay.
    pub high_freq_factor: f64,
    /// Positions of the training context.
    pub original_context: f64,
}

impl Llama3Scaling {
    /// Scales `frequencies`.
    pub fn apply(&self, frequencies: &mut [f64]) {
        for f in frequencies {
            // Turns over the training context decide.
            let turns = self.original_context * *f / TAU;
            let keep = if turns > self.high_freq_factor {
                1.0
            } else if turns < self.low_freq_factor {
                0.0
            } else {
                (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
            };
            *f *= keep + (1.0 - keep) / self.factor;
        }
    }
}

/// YaRN (Peng et al., 2023): frequencies that turn more than `beta_fast` times over the training context stay, those that turn less
/// than `beta_slow` times are divided by `factor`, with a ramp over the index between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How much longer the context is.
    pub factor: f64,
    /// Positions of the training context.
    pub original_context: f64,
    /// Usually 32.
    pub beta_fast: f64,
    /// Usually 1.
    pub beta_slow: f64,
    /// Whether the ends of the ramp are rounded outwards to whole indices: almost always, but not for gpt-oss.
    pub truncate: bool,
}

impl Yarn {
    /// Scales `frequencies`, which came from `base`.
    pub fn apply(&self, frequencies: &mut [f64], base: f64) {
        let rope_dim = 2.0 * frequencies.len() as f64;
        // The index whose frequency turns `turns` times over the training context.
        let index = |turns: f64| rope_dim * (self.original_context / (turns * TAU)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (index(self.beta_fast), index(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(rope_dim - 1.0));
        for (i, f) in frequencies.iter_mut().enumerate() {
            let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            *f *= (1.0 - ramp) + ramp / self.factor;
        }
    }

    /// What cosines and sines are multiplied by, unless a model says otherwise: `0.1 ln(factor) + 1`.
    pub fn mscale(&self) -> f64 {
        yarn_mscale(self.factor, 1.0)
    }
}

/// `0.1 * weight * ln(factor) + 1`, and 1 for factors up to 1.
pub fn yarn_mscale(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// What LongRoPE multiplies cosines and sines by: `sqrt(1 + ln(factor) / ln(original_context))`, and 1 for factors up to 1.
pub fn longrope_mscale(factor: f64, original_context: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() }
}

/// The cosines and sines of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Angles of position 0 for `rope_dim` rotated channels.
    pub fn new(rope_dim: usize) -> Self {
        Angles { cos: vec![1.0; rope_dim / 2], sin: vec![0.0; rope_dim / 2] }
    }

    /// The angles of `position` under `table`, reusing the memory.
    pub fn set(&mut self, table: &RopeTable, position: usize) {
        self.cos.clear();
        self.sin.clear();
        for f in &table.frequencies {
            let (sin, cos) = (position as f64 * f).sin_cos();
            self.cos.push((cos * table.mscale) as f32);
            self.sin.push((sin * table.mscale) as f32);
        }
    }

    /// Number of rotated channels.
    pub fn rope_dim(&self) -> usize {
        2 * self.cos.len()
    }
}

/// Frequencies, scaled, and what cosines and sines are multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    frequencies: Vec<f64>,
    mscale: f64,
}

impl RopeTable {
    /// One frequency for each pair of rotated channels; `mscale` is usually 1.
    pub fn new(frequencies: Vec<f64>, mscale: f64) -> Self {
        RopeTable { frequencies, mscale }
    }

    /// Number of rotated channels of a head.
    pub fn rope_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The angles of `position`.
    pub fn angles(&self, position: usize) -> Angles {
        let mut angles = Angles::new(self.rope_dim());
        angles.set(self, position);
        angles
    }
}

/// Rotation of heads in place, as a [`Kernel`].
pub struct Rope<'a> {
    /// Heads of `head_dim` channels, of which the first `rope_dim` turn.
    pub heads: &'a mut [f32],
    /// Channels of a head.
    pub head_dim: usize,
    /// The angles of the heads' position.
    pub angles: &'a Angles,
    /// Which channels turn together.
    pub pairing: Pairing,
}

impl Kernel for Rope<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Rope { heads, head_dim, angles, pairing } = self;
        let (half, cos) = (angles.cos.len(), &angles.cos[..]);
        let sin = &angles.sin[..half];
        assert!(
            head_dim >= 2 * half && heads.len().is_multiple_of(head_dim.max(1)),
            "{} rotated channels of heads of {head_dim}",
            2 * half
        );
        for at in (0..heads.len()).step_by(head_dim.max(1)) {
            let head = &mut heads[at..at + 2 * half];
            match pairing {
                Pairing::Interleaved => {
                    let pairs = &mut head.as_chunks_mut::<2>().0[..half];
                    for i in 0..half {
                        let [x, y] = pairs[i];
                        pairs[i] = [x * cos[i] - y * sin[i], x * sin[i] + y * cos[i]];
                    }
                }
                Pairing::Halves => {
                    let (first, second) = head.split_at_mut(half);
                    let second = &mut second[..half];
                    for i in 0..half {
                        let (x, y) = (first[i], second[i]);
                        (first[i], second[i]) = (x * cos[i] - y * sin[i], x * sin[i] + y * cos[i]);
                    }
                }
            }
        }
    }
}

/// Turns the first `rope_dim` channels of every head of `head_dim` channels in place.
///
/// # Panics
/// If `heads` is not whole heads, or more channels turn than a head has.
pub fn rope(cpu: Cpu, heads: &mut [f32], head_dim: usize, angles: &Angles, pairing: Pairing) {
    cpu.run(Rope { heads, head_dim, angles, pairing });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{i}: {a}, not {b}");
        }
    }

    #[test]
    fn frequencies_fall_geometrically() {
        assert_close(&frequencies(10000.0, 8), &[1.0, 0.1, 0.01, 0.001]);
        let mut f = frequencies(10000.0, 4);
        scale_linear(&mut f, 4.0);
        assert_close(&f, &[0.25, 0.0025]);
        divide(&mut f, &[0.25, 2.5]);
        assert_close(&f, &[1.0, 0.001]);
    }

    /// The published form, in wave lengths.
    #[test]
    fn llama3_scaling_follows_its_definition() {
        let scaling = Llama3Scaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
        let plain = frequencies(500_000.0, 128);
        let mut f = plain.clone();
        scaling.apply(&mut f);
        let mut kinds = [0; 3];
        let expected: Vec<f64> = plain
            .iter()
            .map(|&f| {
                let wave = TAU / f;
                if wave < 8192.0 / 4.0 {
                    kinds[0] += 1;
                    return f;
                }
                if wave > 8192.0 {
                    kinds[1] += 1;
                    return f / 8.0;
                }
                kinds[2] += 1;
                let smooth = (8192.0 / wave - 1.0) / (4.0 - 1.0);
                (1.0 - smooth) * f / 8.0 + smooth * f
            })
            .collect();
        assert!(kinds.iter().all(|&n| n > 3), "{kinds:?}");
        assert_close(&f, &expected);
    }

    /// The paper's form: interpolation and extrapolation mixed by a ramp whose ends are found by search instead of logarithms.
    #[test]
    fn yarn_follows_its_definition() {
        for (base, rope_dim, truncate) in [(10000.0, 128, true), (150_000.0, 64, false), (1e6, 64, true)] {
            let yarn = Yarn { factor: 32.0, original_context: 4096.0, beta_fast: 32.0, beta_slow: 1.0, truncate };
            let plain = frequencies(base, rope_dim);
            let mut f = plain.clone();
            yarn.apply(&mut f, base);
            let crossing = |turns: f64| {
                let (mut low, mut high) = (-1.0f64, 200.0f64);
                for _ in 0..200 {
                    let middle = f64::midpoint(low, high);
                    let frequency = base.powf(-2.0 * middle / f64::from(rope_dim as u32));
                    if 4096.0 * frequency / TAU > turns { low = middle } else { high = middle }
                }
                low
            };
            let (fast, slow) = (crossing(32.0), crossing(1.0));
            let (low, high) = if truncate { (fast.floor(), slow.ceil()) } else { (fast, slow) };
            assert!(low > 1.0 && high < plain.len() as f64 - 1.0);
            for (i, (f, plain)) in f.iter().zip(&plain).enumerate() {
                let i = i as f64;
                let mask = if i <= low {
                    1.0
                } else if i >= high {
                    0.0
                } else {
                    1.0 - (i - low) / (high - low)
                };
                let expected = plain / 32.0 * (1.0 - mask) + plain * mask;
                assert!((f - expected).abs() <= 1e-11 * expected, "{i}: {f}, not {expected}");
            }
            assert_eq!(f[0], plain[0]);
        }
    }

    #[test]
    fn mscales() {
        assert_eq!(yarn_mscale(1.0, 1.0), 1.0);
        assert!((yarn_mscale(40.0, 0.707) - 1.260_804).abs() < 1e-6);
        assert!((longrope_mscale(32.0, 4096.0) - 1.190_238).abs() < 1e-6);
        let table = RopeTable::new(vec![0.5], 2.0);
        assert_eq!(table.angles(3), Angles { cos: vec![(1.5f64.cos() * 2.0) as f32], sin: vec![(1.5f64.sin() * 2.0) as f32] });
    }

    /// Complex multiplication in f64.
    #[test]
    fn rotation_is_a_complex_product_with_the_same_bits_on_every_isa() {
        for (head_dim, rope_dim) in [(64, 64), (80, 32), (20, 20), (6, 2), (96, 74)] {
            let table = RopeTable::new(frequencies(10000.0, rope_dim), 1.0);
            let angles = table.angles(1234);
            let x: Vec<f32> = (0..3 * head_dim).map(|i| (i as f32 * 0.7).cos()).collect();
            for pairing in [Pairing::Interleaved, Pairing::Halves] {
                let mut reference = x.clone();
                rope(Cpu::scalar(), &mut reference, head_dim, &angles, pairing);
                for cpu in Cpu::available() {
                    let mut y = x.clone();
                    rope(cpu, &mut y, head_dim, &angles, pairing);
                    assert_eq!(y, reference, "{}", cpu.name());
                }
                let mut expected: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                for head in expected.chunks_exact_mut(head_dim) {
                    for i in 0..rope_dim / 2 {
                        let (a, b) = if pairing == Pairing::Halves { (i, i + rope_dim / 2) } else { (2 * i, 2 * i + 1) };
                        let angle = 1234.0 * 10000f64.powf(-2.0 * i as f64 / rope_dim as f64);
                        let (x, y) = (head[a], head[b]);
                        head[a] = x * angle.cos() - y * angle.sin();
                        head[b] = y * angle.cos() + x * angle.sin();
                    }
                }
                assert!(reference.iter().zip(&expected).all(|(y, e)| (f64::from(*y) - e).abs() < 3e-7));
            }
        }
    }
}
