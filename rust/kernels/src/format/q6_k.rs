//! Q6_K: 6 bits and an 8-bit scale per 16 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Q6K;

/// 32 columns: four vectors of low nibbles, then two of high bits, one stream for the prefetcher.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Group {
    low: Nibbles,
    high: [[u8; 64]; 2],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[i8; ROWS]; 16],
    q: [Group; 8],
}

impl FileType for Q6K {
    type Format = Self;
    const BYTES: usize = 210;

    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 208);
        for run in 0..16 {
            out.scales[run] = src[192 + run] as i8;
        }
        for half in 0..2 {
            let (low, high) = (&src[64 * half..][..64], &src[128 + 32 * half..][..32]);
            for col in 0..128 {
                let nibble = (low[col % 64] >> (4 * (col / 64))) & 15;
                out.codes[128 * half + col] = nibble | ((high[col % 32] >> (2 * (col / 32))) & 3) << 4;
            }
        }
    }
}

impl Format for Q6K {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 63, zero: 32 };
    const SCALE_RUN: usize = 16;
    type Block = Block;

    /// Vector `j` of a group takes its high bits from bits `2 * (j / 2)..` of `high[j % 2]`.
    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..16 {
            b.scale[run][row] = x.scales[run];
        }
        for group in 0..8 {
            let codes = &x.codes[32 * group..][..32];
            put_nibbles(&mut b.q[group].low, row, codes);
            for parity in 0..2 {
                for i in 0..4 {
                    let bits = |k: usize| (codes[4 * (2 * k + parity) + i] >> 4) << (2 * k);
                    b.q[group].high[parity][4 * row + i] = bits(0) | bits(1) | bits(2) | bits(3);
                }
            }
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        let Group { low, high } = &b.q[group];
        let q = nibbles(isa, low, row);
        let h = [isa.load_u8(&high[0], row), isa.load_u8(&high[1], row)];
        [
            isa.or(q[0], isa.and(isa.shl::<4>(h[0]), 0x30)),
            isa.or(q[1], isa.and(isa.shl::<4>(h[1]), 0x30)),
            isa.or(q[2], isa.and(isa.shl::<2>(h[0]), 0x30)),
            isa.or(q[3], isa.and(isa.shl::<2>(h[1]), 0x30)),
            isa.or(q[4], isa.and(h[0], 0x30)),
            isa.or(q[5], isa.and(h[1], 0x30)),
            isa.or(q[6], isa.and(isa.shr::<2>(h[0]), 0x30)),
            isa.or(q[7], isa.and(isa.shr::<2>(h[1]), 0x30)),
        ]
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
