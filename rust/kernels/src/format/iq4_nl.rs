//! IQ4_NL: 4 bits that select one of 16 values, and a scale per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq4Nl;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    q: Nibbles,
}

/// The values -127, -104, … 113, plus 128.
pub const VALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

impl FileType for Iq4Nl {
    type Format = Self;
    const BYTES: usize = 18;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        split_nibbles(&src[2..18], &mut out.codes);
    }
}

impl Format for Iq4Nl {
    const COLS: usize = 32;
    const RANGE: Range = Range { max: 255, zero: 128 };
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        put_nibbles(&mut b.q, row, &x.codes);
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, _: usize) -> [I::U8; 8] {
        looked_up(isa, &b.q, row, &VALUES)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
}
