//! 256 columns of a token, quantized.
use bytemuck::{Pod, Zeroable};
use fastllm_simd::{Isa, Kernel};

/// Columns of a block.
pub const SUPER: usize = 256;
const GROUPS: usize = SUPER / 32;

/// 256 columns of one token.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Block {
    /// Codes, -127..=127; the value is `scale[group] * code`.
    pub q: [[i8; 32]; GROUPS],
    /// Sums of the codes of each half of a group.
    pub half_sums: [[i16; 2]; GROUPS],
    /// Sums of the codes of a group.
    pub sums: [i32; GROUPS],
    /// One scale per group.
    pub scale: [f32; GROUPS],
    /// `scale * sum`.
    pub scaled_sums: [f32; GROUPS],
    /// `scaled_sums` as multiples of `min_unit`: what the minima of a K-quant are multiplied with.
    pub min_sums: [[i16; 2]; GROUPS / 2],
    /// The same for halves of groups.
    pub min_half_sums: [[i16; 2]; GROUPS],
    /// The unit of `min_sums` and `min_half_sums`.
    pub min_unit: f32,
    _pad: [u32; 3],
}

/// Quantizes a row to every `width`-th block of `out`; an empty row gives zeros.
pub(super) struct Quantize<'a> {
    pub x: &'a [f32],
    pub width: usize,
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
                quantize(isa, x, block);
            } else if at < self.x.len() {
                let mut padded = [0.0; SUPER];
                padded[..self.x.len() - at].copy_from_slice(&self.x[at..]);
                quantize(isa, &padded, block);
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
fn quantize<I: Isa>(isa: I, x: &[f32; SUPER], out: &mut Block) {
    let (largest, poison) = largest(isa, x);
    let mut inverse = [0.0; GROUPS];
    for g in 0..GROUPS {
        out.scale[g] = largest[g] / 127.0;
        inverse[g] = finite_inverse(out.scale[g]);
    }
    for g in 0..GROUPS {
        let inverse = isa.splat(inverse[g]);
        for at in (0..32).step_by(I::LANES) {
            let scaled = isa.mul(isa.load(&x[32 * g + at..]), inverse);
            let clamped = isa.min(isa.max(scaled, isa.splat(-127.0)), isa.splat(127.0));
            isa.store_i8(clamped, &mut out.q[g][at..]);
        }
    }
    let half_sums = isa.half_sums(&out.q);
    let mut most = [0.0; GROUPS];
    for g in 0..GROUPS {
        let halves = half_sums[g];
        out.half_sums[g] = [halves[0] as i16, halves[1] as i16];
        out.sums[g] = halves[0] + halves[1];
        out.scale[g] += poison;
        out.scaled_sums[g] = out.scale[g] * out.sums[g] as f32;
        most[g] = out.scale[g] * halves[0].abs().max(halves[1].abs()).max(out.sums[g].abs()) as f32;
    }
    sums_for_minima(isa, &most, out);
}

/// `1 / x`, or 0 if that is not a finite number.
#[inline(always)]
fn finite_inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse < f32::MAX { inverse } else { 0.0 }
}

/// The scaled sums as multiples of a unit, the largest of them / 32767.
#[inline(always)]
fn sums_for_minima<I: Isa>(isa: I, largest: &[f32; GROUPS], out: &mut Block) {
    let mut most = 0.0;
    for g in 0..GROUPS {
        most = if largest[g] > most { largest[g] } else { most };
    }
    out.min_unit = most / 32767.0;
    let inverse = finite_inverse(out.min_unit);
    // Each twice, as there are two halves; the sums of groups fill the first half of a vector.
    let (mut units, mut halves, mut sums) = ([0.0; 2 * GROUPS], [0.0; 2 * GROUPS], [0.0; 2 * GROUPS]);
    let mut group_units = [0.0; 2 * GROUPS];
    for g in 0..GROUPS {
        let unit = out.scale[g] * inverse;
        (units[2 * g], units[2 * g + 1], group_units[g]) = (unit, unit, unit);
        (halves[2 * g], halves[2 * g + 1]) = (f32::from(out.half_sums[g][0]), f32::from(out.half_sums[g][1]));
        sums[g] = out.sums[g] as f32;
    }
    let mut rounded = [[0; 2 * GROUPS]; 2];
    for at in (0..2 * GROUPS).step_by(I::LANES) {
        isa.store_i16(isa.mul(isa.load(&units[at..]), isa.load(&halves[at..])), &mut rounded[0][at..]);
        isa.store_i16(isa.mul(isa.load(&group_units[at..]), isa.load(&sums[at..])), &mut rounded[1][at..]);
    }
    for g in 0..GROUPS {
        out.min_half_sums[g] = [rounded[0][2 * g], rounded[0][2 * g + 1]];
        out.min_sums[g / 2][g % 2] = rounded[1][g];
    }
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
