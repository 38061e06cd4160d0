//! Q4_0: 4 bits and a scale per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q4_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    q: Nibbles,
}

impl FileType for Q4_0 {
    type Format = Self;
    const BYTES: usize = 18;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        split_nibbles(&src[2..18], &mut out.codes);
    }
}

impl Format for Q4_0 {
    const COLS: usize = 32;
    const RANGE: Range = Range { max: 15, zero: 8 };
    const UNPACK: bool = false;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        put_nibbles(&mut b.q, row, &x.codes);
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, _: usize) -> [I::U8; 8] {
        nibbles(isa, &b.q, row)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.d[row..])
    }
}
