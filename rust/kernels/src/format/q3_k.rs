//! Q3_K: 3 bits and a 6-bit scale per 16 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q3K;

/// 32 columns: two vectors of two low bits, then one of the third bits.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Group {
    low: [[u8; 64]; 2],
    high: [u8; 64],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[i8; ROWS]; 16],
    q: [Group; 8],
}

impl Format for Q3K {
    const COLS: usize = 256;
    const FILE_BYTES: usize = 110;
    const RANGE: Range = Range { max: 7, zero: 4 };
    const SCALE_RUN: usize = 16;
    type Block = Block;

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
    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..16 {
            b.scale[run][row] = x.scales[run];
        }
        for group in 0..8 {
            let codes = &x.codes[32 * group..][..32];
            put_crumbs(&mut b.q[group].low, row, codes);
            put_bits(&mut b.q[group].high, row, codes, 2);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        let mut q = crumbs(isa, &b.q[group].low, row);
        let h = isa.load_u8(&b.q[group].high, row);
        q[0] = isa.or(q[0], isa.and(isa.shl::<2>(h), 4));
        q[1] = isa.or(q[1], isa.and(isa.shl::<1>(h), 4));
        q[2] = isa.or(q[2], isa.and(h, 4));
        q[3] = isa.or(q[3], isa.and(isa.shr::<1>(h), 4));
        q[4] = isa.or(q[4], isa.and(isa.shr::<2>(h), 4));
        q[5] = isa.or(q[5], isa.and(isa.shr::<3>(h), 4));
        q[6] = isa.or(q[6], isa.and(isa.shr::<4>(h), 4));
        q[7] = isa.or(q[7], isa.and(isa.shr::<5>(h), 4));
        q
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
