//! IQ2_XXS, IQ2_XS, IQ2_S: points of a grid of the levels 8, 25 and 43 in 8 columns, their signs, and a 4-bit scale per 16 columns.
//!
//! In memory a weight has 3 bits: level and sign. File: 66, 74, 82 bytes a block; memory: 106.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq2;
pub struct Iq2Xxs;
pub struct Iq2Xs;
pub struct Iq2S;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[u8; ROWS]; 8],
    q: [Triples; 8],
}

/// The levels, then the negative ones, plus 43.
const VALUES: [u8; 16] = [51, 68, 86, 43, 35, 18, 0, 43, 43, 43, 43, 43, 43, 43, 43, 43];

/// Level and sign of 8 columns.
fn put_point(codes: &mut [u8], point: [u8; 8], signs: u8) {
    for col in 0..8 {
        codes[col] = point[col] | ((signs >> col) & 1) << 2;
    }
}

impl FileType for Iq2Xxs {
    type Format = Iq2;
    const BYTES: usize = 66;

    /// 32 columns share a scale.
    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for group in 0..8 {
            let src = &src[2 + 8 * group..][..8];
            let rest = u32_at(src, 4);
            out.scales[2 * group] = (rest >> 28) as i8;
            out.scales[2 * group + 1] = (rest >> 28) as i8;
            for k in 0..4 {
                let codes = &mut out.codes[32 * group + 8 * k..][..8];
                put_point(codes, grid::IQ2_XXS[usize::from(src[k])], grid::even_signs(rest >> (7 * k)));
            }
        }
    }
}

impl FileType for Iq2Xs {
    type Format = Iq2;
    const BYTES: usize = 74;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for run in 0..16 {
            out.scales[run] = ((src[66 + run / 2] >> (4 * (run % 2))) & 15) as i8;
        }
        for k in 0..32 {
            let index = u16_at(src, 2 + 2 * k);
            let codes = &mut out.codes[8 * k..][..8];
            put_point(codes, grid::IQ2_XS[usize::from(index & 511)], grid::even_signs(u32::from(index >> 9)));
        }
    }
}

impl FileType for Iq2S {
    type Format = Iq2;
    const BYTES: usize = 82;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for run in 0..16 {
            out.scales[run] = ((src[74 + run / 2] >> (4 * (run % 2))) & 15) as i8;
        }
        for k in 0..32 {
            let high = usize::from((src[66 + k / 4] >> (2 * (k % 4))) & 3);
            put_point(&mut out.codes[8 * k..][..8], grid::IQ2_S[usize::from(src[2 + k]) | high << 8], src[34 + k]);
        }
    }
}

impl Format for Iq2 {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 86, zero: 43 };
    const SCALE_RUN: usize = 16;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..16 {
            put_half_scale(&mut b.scale, row, run, x.scales[run]);
        }
        for group in 0..8 {
            put_triples(&mut b.q[group], row, &x.codes[32 * group..][..32]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        let mut q = triples(isa, &b.q[group], row);
        for j in 0..8 {
            q[j] = isa.lookup(&VALUES, q[j]);
        }
        q
    }
    /// The scale of a run is `(2n + 1) / 8`.
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.mul(isa.load_f16(&b.d[row..]), isa.splat(0.125))
    }
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_odd_scales(&b.scale[run / 2], row, run % 2)
    }
}
