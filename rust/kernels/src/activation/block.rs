//! 256 columns of a token, quantized.
use bytemuck::{Pod, Zeroable};
use fastllm_simd::{Isa, Kernel};

/// Columns of a block.
pub const SUPER: usize = 256;
const GROUPS: usize = SUPER / 32;
/// Largest exponent of a shifted scale. With it sums of 32 codes still fit 16 bits, and sums of products 31.
const MAX_SHIFT: u32 = 3;

/// 256 columns of one token.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Block {
    /// Codes, -127..=127; the value is `scale[group] * code`.
    pub q: [[i8; 32]; GROUPS],
    /// Sums of the codes of each half of a group.
    pub half_sums: [[i32; 2]; GROUPS],
    /// Sums of the codes of a group.
    pub sums: [i32; GROUPS],
    /// One scale per group.
    pub scale: [f32; GROUPS],
    /// Grouped form: `scale * sum`.
    pub scaled_sums: [f32; GROUPS],
    /// Shifted form: `scale = unit * 2^shift`.
    pub unit: f32,
    /// Shifted form: see `unit`.
    pub shift: [u32; GROUPS],
    /// Shifted form: `sum << shift`, which the minima of a K-quant are multiplied by.
    pub min_sums: [[i16; 2]; GROUPS / 2],
    /// The same for halves of groups.
    pub min_half_sums: [[i16; 2]; GROUPS],
    _pad: [u32; 3],
}

/// Quantizes a row to every `width`-th block of `out`; an empty row gives zeros.
pub(super) struct Quantize<'a> {
    pub x: &'a [f32],
    pub width: usize,
    pub shifted: bool,
    pub out: &'a mut [Block],
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut at = 0;
        let mut b = 0;
        while b < self.out.len() {
            let block = &mut self.out[b];
            if let Some(x) = self.x.get(at..).and_then(|x| x.first_chunk()) {
                quantize(isa, x, self.shifted, block);
            } else if at < self.x.len() {
                let mut padded = [0.0; SUPER];
                padded[..self.x.len() - at].copy_from_slice(&self.x[at..]);
                quantize(isa, &padded, self.shifted, block);
            } else {
                *block = Block::zeroed();
            }
            at += SUPER;
            b += self.width;
        }
    }
}

/// One block. An input that is not finite makes the scales NaN, so that it cannot pass unseen.
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32; SUPER], shifted: bool, out: &mut Block) {
    let (largest, poison) = largest(isa, x);
    if shifted {
        (out.unit, out.shift) = shifted_scales(&largest);
        for g in 0..GROUPS {
            out.scale[g] = out.unit * (1 << out.shift[g]) as f32;
        }
    } else {
        (out.unit, out.shift) = (0.0, [0; GROUPS]);
        for g in 0..GROUPS {
            out.scale[g] = largest[g] / 127.0;
        }
    }
    for g in 0..GROUPS {
        let inverse = 1.0 / out.scale[g];
        let inverse = isa.splat(if inverse < f32::MAX { inverse } else { 0.0 });
        for at in (0..32).step_by(I::LANES) {
            let scaled = isa.mul(isa.load(&x[32 * g + at..]), inverse);
            let clamped = isa.min(isa.max(scaled, isa.splat(-127.0)), isa.splat(127.0));
            isa.store_i8(clamped, &mut out.q[g][at..]);
        }
    }
    for g in 0..GROUPS {
        let mut halves = [0i32; 2];
        for i in 0..16 {
            halves[0] += i32::from(out.q[g][i]);
            halves[1] += i32::from(out.q[g][16 + i]);
        }
        out.half_sums[g] = halves;
        out.sums[g] = halves[0] + halves[1];
        out.scale[g] += poison;
        out.scaled_sums[g] = out.scale[g] * out.sums[g] as f32;
        out.min_sums[g / 2][g % 2] = (out.sums[g] << out.shift[g]) as i16;
        out.min_half_sums[g] = [(halves[0] << out.shift[g]) as i16, (halves[1] << out.shift[g]) as i16];
    }
    out.unit += poison;
}

/// The largest size of each group, and 0, or NaN if an input is not finite.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32; SUPER]) -> ([f32; GROUPS], f32) {
    let mut largest = [0.0; GROUPS];
    let mut poison = isa.splat(0.0);
    for g in 0..GROUPS {
        let mut most = isa.splat(0.0);
        for at in (0..32).step_by(I::LANES) {
            let v = isa.load(&x[32 * g + at..]);
            most = isa.max(isa.abs(v), most);
            poison = isa.fma(v, isa.splat(0.0), poison);
        }
        largest[g] = isa.reduce_max(most);
    }
    let mut lanes = [0.0; 16];
    isa.store(poison, &mut lanes);
    let mut bad = 0.0;
    for lane in lanes {
        bad += lane;
    }
    (largest, bad)
}

/// The unit and the shift of each group with the least error, among four units of an octave: the error of a group grows with the square
/// of its scale.
#[inline(always)]
fn shifted_scales(largest: &[f32; GROUPS]) -> (f32, [u32; GROUPS]) {
    const MOST: f32 = (1 << MAX_SHIFT) as f32;
    /// Powers of 2^(1/4).
    const UNITS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_9];
    let mut most = 0.0;
    for g in 0..GROUPS {
        most = if largest[g] > most { largest[g] } else { most };
    }
    let least = most / (127.0 * MOST);
    let inverse = 1.0 / (127.0 * least);
    // All zero, or so small that codes are 0.
    let inverse = if inverse < f32::MAX { inverse } else { 0.0 };
    let mut best = (f32::INFINITY, least, [1.0f32; GROUPS]);
    for unit in UNITS {
        let (mut factors, mut error) = ([1.0; GROUPS], 0.0);
        for g in 0..GROUPS {
            // The least power of two that is not below.
            let ratio = largest[g] * inverse / unit;
            let power = f32::from_bits(ratio.to_bits().wrapping_add(0x007f_ffff) & 0x7f80_0000);
            let power = if power > 1.0 { power } else { 1.0 };
            factors[g] = if power < MOST { power } else { MOST };
            error += factors[g] * factors[g];
        }
        error *= unit * unit;
        if error < best.0 {
            best = (error, least * unit, factors);
        }
    }
    let mut shift = [0; GROUPS];
    for g in 0..GROUPS {
        shift[g] = (best.2[g].to_bits() >> 23) - 127;
    }
    (best.1, shift)
}
