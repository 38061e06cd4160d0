//! MXFP4 (OCP Microscaling): 4-bit floats E2M1 and a power of two per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Mxfp4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    /// The scale is `2^(exponent - 127)`, or 0.
    exponent: [u8; ROWS],
    q: Nibbles,
}

/// Twice the values of E2M1, plus 12.
pub const VALUES: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// Range of the values.
pub const RANGE: Range = Range { max: 24, zero: 12 };

impl FileType for Mxfp4 {
    type Format = Self;
    const BYTES: usize = 17;

    /// The exponent is lowered by one, because the values are doubled. Scales below 2^-126 become 0.
    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16::from(src[0].saturating_sub(1));
        split_nibbles(&src[1..17], &mut out.codes);
    }
}

impl Format for Mxfp4 {
    const COLS: usize = 32;
    const RANGE: Range = RANGE;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.exponent[row] = x.d as u8;
        put_nibbles(&mut b.q, row, &x.codes);
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, _: usize) -> [I::U8; 8] {
        looked_up(isa, &b.q, row, &VALUES)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_exponents(&b.exponent[row..])
    }
}
