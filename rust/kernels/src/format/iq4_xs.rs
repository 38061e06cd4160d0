//! IQ4_XS: 4 bits that select one of 16 values, and a 6-bit scale per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq4Xs;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[i8; ROWS]; 8],
    q: [Nibbles; 8],
}

impl FileType for Iq4Xs {
    type Format = Self;
    const BYTES: usize = 136;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        let high = u16_at(src, 2);
        for run in 0..8 {
            let low = (src[4 + run / 2] >> (4 * (run % 2))) & 15;
            out.scales[run] = (low | ((high >> (2 * run)) as u8 & 3) << 4) as i8 - 32;
            split_nibbles(&src[8 + 16 * run..][..16], &mut out.codes[32 * run..]);
        }
    }
}

impl Format for Iq4Xs {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 255, zero: 128 };
    const SCALE_RUN: usize = 32;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..8 {
            b.scale[run][row] = x.scales[run];
            put_nibbles(&mut b.q[run], row, &x.codes[32 * run..]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        looked_up(isa, &b.q[group], row, &iq4_nl::VALUES)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_scales(&b.scale[run], row)
    }
}
