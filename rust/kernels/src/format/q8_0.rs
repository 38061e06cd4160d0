//! Q8_0: 8 bits, stored as `q + 128`, and a scale per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q8_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    q: [[u8; 64]; 8],
}

impl FileType for Q8_0 {
    type Format = Self;
    const BYTES: usize = 34;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for col in 0..32 {
            out.codes[col] = src[2 + col] ^ 128;
        }
    }
}

impl Format for Q8_0 {
    const COLS: usize = 32;
    const RANGE: Range = Range { max: 255, zero: 128 };
    const UNPACK: bool = false;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for col in 0..32 {
            let (vector, at) = place(row, col);
            b.q[vector][at] = x.codes[col];
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, _: usize) -> [I::U8; 8] {
        bytes(isa, &b.q, row)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
}
