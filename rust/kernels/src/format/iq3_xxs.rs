//! IQ3_XXS: points of a grid of the levels 4, 12, … 52, 62 in 4 columns, signs of 8 columns, and a 4-bit scale per 32 columns.
//!
//! In memory a weight has 4 bits: level and sign. File: 98 bytes a block; memory: 134.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq3Xxs;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[u8; ROWS]; 4],
    q: [Nibbles; 8],
}

/// Half of the levels, then of the negative ones, plus 31.
const VALUES: [u8; 16] = [33, 37, 41, 45, 49, 53, 57, 62, 29, 25, 21, 17, 13, 9, 5, 0];

impl FileType for Iq3Xxs {
    type Format = Self;
    const BYTES: usize = 98;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for group in 0..8 {
            let rest = u32_at(src, 66 + 4 * group);
            out.scales[group] = (rest >> 28) as i8;
            for col in 0..32 {
                let point = grid::IQ3_XXS[usize::from(src[2 + 8 * group + col / 4])];
                let sign = (grid::even_signs(rest >> (7 * (col / 8))) >> (col % 8)) & 1;
                out.codes[32 * group + col] = point[col % 4] | sign << 3;
            }
        }
    }
}

impl Format for Iq3Xxs {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 62, zero: 31 };
    const SCALE_RUN: usize = 32;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..8 {
            put_half_scale(&mut b.scale, row, run, x.scales[run]);
            put_nibbles(&mut b.q[run], row, &x.codes[32 * run..]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        looked_up(isa, &b.q[group], row, &VALUES)
    }
    /// The scale of a run is `(2n + 1) / 4`, and the levels are halved.
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.mul(isa.load_f16(&b.d[row..]), isa.splat(0.5))
    }
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_odd_scales(&b.scale[run / 2], row, run % 2)
    }
}
