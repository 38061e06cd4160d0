//! Q2_K: 2 bits; a 4-bit scale and a 4-bit minimum per 16 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q2K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    m: [u16; ROWS],
    scale: [[i8; ROWS]; 16],
    min: [[u8; 2 * ROWS]; 8],
    q: [Crumbs; 8],
}

impl FileType for Q2K {
    type Format = Self;
    const BYTES: usize = 84;

    fn read(src: &[u8], out: &mut RowBlock) {
        (out.d, out.m) = (u16_at(src, 80), u16_at(src, 82));
        for run in 0..16 {
            (out.scales[run], out.mins[run]) = ((src[run] & 15) as i8, src[run] >> 4);
        }
        for col in 0..256 {
            let (half, part) = (col / 128, col % 128 / 32);
            out.codes[col] = (src[16 + 32 * half + col % 32] >> (2 * part)) & 3;
        }
    }
}

impl Format for Q2K {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 3, zero: 0 };
    const SCALE_RUN: usize = 16;
    const MIN_RUN: usize = 16;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        (b.d[row], b.m[row]) = (x.d, x.m);
        put_pairs(&mut b.min, row, &x.mins);
        for run in 0..16 {
            b.scale[run][row] = x.scales[run];
        }
        for group in 0..8 {
            put_crumbs(&mut b.q[group], row, &x.codes[32 * group..]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        crumbs(isa, &b.q[group], row)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_scales(&b.scale[run], row)
    }
    #[inline(always)]
    fn m<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.m[row..])
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, b: &Block, row: usize, pair: usize) -> I::Pairs {
        isa.load_pairs(&b.min[pair], row)
    }
}
