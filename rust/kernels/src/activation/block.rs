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
    pub half_sums: [[i32; 2]; GROUPS],
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
    _pad: [u32; 11],
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
    for g in 0..GROUPS {
        out.scale[g] = largest[g] / 127.0;
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
    let mut most = 0f32;
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
        let largest = halves[0].abs().max(halves[1].abs()).max(out.sums[g].abs());
        most = (out.scale[g] * largest as f32).max(most);
    }
    out.min_unit = most / 32767.0;
    let inverse = 1.0 / out.min_unit;
    let inverse = if inverse < f32::MAX { inverse } else { 0.0 };
    for g in 0..GROUPS {
        let unit = out.scale[g] * inverse;
        out.min_sums[g / 2][g % 2] = (unit * out.sums[g] as f32).round_ties_even() as i16;
        out.min_half_sums[g] =
            [(unit * out.half_sums[g][0] as f32).round_ties_even() as i16, (unit * out.half_sums[g][1] as f32).round_ties_even() as i16];
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
