//! IQ3_S: points of a grid of the levels 1, 3, … 15 in 4 columns, signs, and a 4-bit scale per 32 columns.
//!
//! In memory a weight `w` of -15, -13, … 15 is the half byte `(w + 15) / 2`. File: 110 bytes a block; memory: 134.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq3S;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[u8; ROWS]; 4],
    q: [Nibbles; 8],
}

impl FileType for Iq3S {
    type Format = Self;
    const BYTES: usize = 110;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for run in 0..8 {
            out.scales[run] = ((src[106 + run / 2] >> (4 * (run % 2))) & 15) as i8;
        }
        for col in 0..256 {
            let quad = col / 4;
            let high = usize::from((src[66 + quad / 8] >> (quad % 8)) & 1);
            let level = grid::IQ3_S[usize::from(src[2 + quad]) | high << 8][col % 4];
            let negative = (src[74 + col / 8] >> (col % 8)) & 1 != 0;
            out.codes[col] = if negative { 7 - level } else { 8 + level };
        }
    }
}

impl Format for Iq3S {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 30, zero: 15 };
    const SCALE_RUN: usize = 32;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..8 {
            put_half_scale(&mut b.scale, row, run, x.scales[run]);
            put_nibbles(&mut b.q[run], row, &x.codes[32 * run..]);
        }
    }
    /// Twice the half bytes.
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        let p = &b.q[group];
        let v = [isa.load_u8(&p[0], row), isa.load_u8(&p[1], row), isa.load_u8(&p[2], row), isa.load_u8(&p[3], row)];
        [
            isa.and(isa.shl::<1>(v[0]), 30),
            isa.and(isa.shl::<1>(v[1]), 30),
            isa.and(isa.shl::<1>(v[2]), 30),
            isa.and(isa.shl::<1>(v[3]), 30),
            isa.and(isa.shr::<3>(v[0]), 30),
            isa.and(isa.shr::<3>(v[1]), 30),
            isa.and(isa.shr::<3>(v[2]), 30),
            isa.and(isa.shr::<3>(v[3]), 30),
        ]
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
    /// The scale of a run is `2n + 1`.
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_odd_scales(&b.scale[run / 2], row, run % 2)
    }
}
