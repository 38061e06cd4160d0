//! Q3_K: 3 bits and a 6-bit scale per 16 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q3K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[i8; ROWS]; 16],
    q: [Triples; 8],
}

impl FileType for Q3K {
    type Format = Self;
    const BYTES: usize = 110;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 108);
        let packed = &src[96..108];
        for run in 0..16 {
            let low = (packed[run % 8] >> (4 * (run / 8))) & 15;
            out.scales[run] = (low | ((packed[8 + run % 4] >> (2 * (run / 4))) & 3) << 4) as i8 - 32;
        }
        for col in 0..256 {
            let (half, part) = (col / 128, col % 128 / 32);
            let low = (src[32 + 32 * half + col % 32] >> (2 * part)) & 3;
            out.codes[col] = low | ((src[col % 32] >> (col / 32)) & 1) << 2;
        }
    }
}

impl Format for Q3K {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 7, zero: 4 };
    const SCALE_RUN: usize = 16;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..16 {
            b.scale[run][row] = x.scales[run];
        }
        for group in 0..8 {
            put_triples(&mut b.q[group], row, &x.codes[32 * group..][..32]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        triples(isa, &b.q[group], row)
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
