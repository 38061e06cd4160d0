//! IQ1_S, IQ1_M: points of a grid of the levels -1, 0 and 1 in 8 columns, all of them moved by 1/8 up or down, and a 3-bit scale per 32
//! or 16 columns.
//!
//! In memory a weight has 2 bits for the level; 8 columns have a bit for the direction and 16 columns half a byte for the scale.
//! File: 50, 56 bytes a block; memory: 78.
use super::*;

#[derive(Clone, Copy)]
pub struct Iq1;
pub struct Iq1S;
pub struct Iq1M;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    d: [u16; ROWS],
    scale: [[u8; ROWS]; 8],
    /// Bit `k` of byte `i` is set where columns `64i + 8k..` are moved up.
    up: [[u8; ROWS]; 4],
    q: [Crumbs; 8],
}

/// Bit 2 of a code says that the weight is moved up.
fn put_point(codes: &mut [u8], index: usize, up: bool) {
    for (code, level) in codes.iter_mut().zip(grid::IQ1[index]) {
        *code = level | u8::from(up) << 2;
    }
}

impl FileType for Iq1S {
    type Format = Iq1;
    const BYTES: usize = 50;

    /// 32 columns share scale and direction.
    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = u16_at(src, 0);
        for group in 0..8 {
            let rest = u16_at(src, 34 + 2 * group);
            out.scales[2 * group] = ((rest >> 12) & 7) as i8;
            out.scales[2 * group + 1] = out.scales[2 * group];
            for k in 0..4 {
                let high = usize::from((rest >> (3 * k)) & 7);
                let index = usize::from(src[2 + 4 * group + k]) | high << 8;
                put_point(&mut out.codes[32 * group + 8 * k..][..8], index, rest >> 15 == 0);
            }
        }
    }
}

impl FileType for Iq1M {
    type Format = Iq1;
    const BYTES: usize = 56;

    /// The scale is made of the high four bits of each of the words that hold four scales of runs.
    fn read(src: &[u8], out: &mut RowBlock) {
        out.d = (0..4).fold(0, |d, i| d | (u16_at(src, 48 + 2 * i) >> 12) << (4 * i));
        for run in 0..16 {
            out.scales[run] = ((u16_at(src, 48 + 2 * (run / 4)) >> (3 * (run % 4))) & 7) as i8;
        }
        for k in 0..32 {
            let rest = src[32 + k / 2] >> (4 * (k % 2));
            let index = usize::from(src[k]) | usize::from(rest & 7) << 8;
            put_point(&mut out.codes[8 * k..][..8], index, rest & 8 == 0);
        }
    }
}

impl Format for Iq1 {
    const COLS: usize = 256;
    const RANGE: Range = Range { max: 18, zero: 9 };
    const SCALE_RUN: usize = 16;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        b.d[row] = x.d;
        for run in 0..16 {
            put_half_scale(&mut b.scale, row, run, x.scales[run]);
        }
        for (i, up) in b.up.iter_mut().enumerate() {
            up[row] = (0..8).fold(0, |byte, k| byte | (x.codes[64 * i + 8 * k] >> 2) << k);
        }
        for group in 0..8 {
            put_crumbs(&mut b.q[group], row, &x.codes[32 * group..][..32]);
        }
    }
    /// Eight times the level, and 2 more if moved up.
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        let up = isa.load_spread(&b.up[group / 2], row);
        let up = if group.is_multiple_of(2) { up } else { isa.shr::<4>(up) };
        let up = [isa.and(isa.shl::<1>(up), 2), isa.and(up, 2), isa.and(isa.shr::<1>(up), 2), isa.and(isa.shr::<2>(up), 2)];
        let p = &b.q[group];
        let v = [isa.load_u8(&p[0], row), isa.load_u8(&p[1], row)];
        [
            isa.or(up[0], isa.and(isa.shl::<3>(v[0]), 24)),
            isa.or(up[0], isa.and(isa.shl::<3>(v[1]), 24)),
            isa.or(up[1], isa.and(isa.shl::<1>(v[0]), 24)),
            isa.or(up[1], isa.and(isa.shl::<1>(v[1]), 24)),
            isa.or(up[2], isa.and(isa.shr::<1>(v[0]), 24)),
            isa.or(up[2], isa.and(isa.shr::<1>(v[1]), 24)),
            isa.or(up[3], isa.and(isa.shr::<3>(v[0]), 24)),
            isa.or(up[3], isa.and(isa.shr::<3>(v[1]), 24)),
        ]
    }
    /// The scale of a run is `2n + 1`, and the codes are in eighths.
    #[inline(always)]
    fn d<I: Isa>(isa: I, b: &Block, row: usize) -> I::F32 {
        isa.mul(isa.load_f16(&b.d[row..]), isa.splat(0.125))
    }
    #[inline(always)]
    fn scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::Scale {
        isa.load_odd_scales(&b.scale[run / 2], row, run % 2)
    }
}
