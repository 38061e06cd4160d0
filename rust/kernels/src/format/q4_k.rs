//! Q4_K: 4 bits; a 6-bit scale and a 6-bit minimum per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q4K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    m: [u16; ROWS],
    scale: [[i8; ROWS]; 8],
    min: [[u8; 2 * ROWS]; 4],
    q: [Nibbles; 8],
}

impl FileType for Q4K {
    type Format = Self;
    const BYTES: usize = 144;

    fn read(src: &[u8], out: &mut RowBlock) {
        (out.d, out.m) = (u16_at(src, 0), u16_at(src, 2));
        for run in 0..8 {
            let (scale, min) = scale_min_6(&src[4..16], run);
            (out.scales[run], out.mins[run]) = (scale as i8, min);
            let quants = &src[16 + 32 * (run / 2)..][..32];
            for col in 0..32 {
                out.codes[32 * run + col] = (quants[col] >> (4 * (run % 2))) & 15;
            }
        }
    }
}

impl Format for Q4K {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 15, zero: 0 };
    const SCALE_RUN: usize = 32;
    const MIN_RUN: usize = 32;
    const UNPACK: bool = false;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        (b.d[row], b.m[row]) = (x.d, x.m);
        put_pairs(&mut b.min, row, &x.mins);
        for run in 0..8 {
            b.scale[run][row] = x.scales[run];
            put_nibbles(&mut b.q[run], row, &x.codes[32 * run..]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        nibbles(isa, &b.q[group], row)
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
