//! TQ1_0, TQ2_0: the values -1, 0 and 1, in five to a byte or four to a byte, and a scale per 256 columns.
//!
//! In memory a weight has 2 bits. File: 54, 66 bytes a block; memory: 66.
use super::*;

#[derive(Clone, Copy)]
pub struct Tq;
pub struct Tq1_0;
pub struct Tq2_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    q: [Crumbs; 8],
}

/// Powers of 3.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// A byte is a fraction of 256 in base 3: digit `k` behind the point.
fn digit(byte: u8, k: usize) -> u8 {
    ((u16::from(byte.wrapping_mul(POWERS[k])) * 3) >> 8) as u8
}

impl FileType for Tq1_0 {
    type Format = Tq;
    const BYTES: usize = 54;

    /// 32 bytes of five columns, 16 bytes of five, 4 bytes of four.
    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 52);
        for (first, bytes, digits) in [(0, &src[..32], 5), (160, &src[32..48], 5), (240, &src[48..52], 4)] {
            for k in 0..digits {
                for (j, &byte) in bytes.iter().enumerate() {
                    out.codes[first + bytes.len() * k + j] = digit(byte, k);
                }
            }
        }
    }
}

impl FileType for Tq2_0 {
    type Format = Tq;
    const BYTES: usize = 66;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 64);
        for col in 0..256 {
            let (half, part) = (col / 128, col % 128 / 32);
            out.codes[col] = (src[32 * half + col % 32] >> (2 * part)) & 3;
        }
    }
}

impl Format for Tq {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 3, zero: 1 };
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for group in 0..8 {
            put_crumbs(&mut b.q[group], row, &x.codes[32 * group..][..32]);
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
}
