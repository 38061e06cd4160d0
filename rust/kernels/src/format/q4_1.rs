//! Q4_1: 4 bits, a scale and an offset per 32 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q4_1;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    m: [u16; ROWS],
    q: Nibbles,
}

impl FileType for Q4_1 {
    type Format = Self;
    const BYTES: usize = 20;

    fn read(src: &[u8], out: &mut RowBlock) {
        (out.d, out.m) = (u16_at(src, 0), u16_at(src, 2));
        split_nibbles(&src[4..20], &mut out.codes);
    }
}

impl Format for Q4_1 {
    const COLS: usize = 32;
    const RANGE: Range = Range { max: 15, zero: 0 };
    const OFFSET: bool = true;
    const UNPACK: bool = false;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        (b.d[row], b.m[row]) = (x.d, x.m);
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
    #[inline(always)]
    fn m<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.load_f16(&b.m[row..])
    }
}
