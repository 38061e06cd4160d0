//! NVFP4: 4-bit floats E2M1 and an unsigned 8-bit float E4M3 per 16 columns.
//!
//! File and memory: 36 bytes a block of 64 columns.
use super::*;

#[derive(Clone, Copy)]
pub struct Nvfp4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    scale: [[u8; ROWS]; 4],
    q: [Nibbles; 2],
}

impl FileType for Nvfp4 {
    type Format = Self;
    const BYTES: usize = 36;

    /// The code of NaN in a scale stands for 0.
    fn read(src: &[u8], out: &mut RowBlock) {
        for run in 0..4 {
            out.scales[run] = if src[run] == 0x7f { 0 } else { (src[run] & 0x7f) as i8 };
            for j in 0..8 {
                let byte = src[4 + 8 * run + j];
                (out.codes[16 * run + j], out.codes[16 * run + 8 + j]) = (byte & 15, byte >> 4);
            }
        }
    }
}

impl Format for Nvfp4 {
    const COLS: usize = 64;
    const RANGE: Range = mxfp4::RANGE;
    const FLOAT_SCALES: bool = true;
    type Block = Block;

    fn put(b: &mut Block, row: usize, x: &RowBlock) {
        for run in 0..4 {
            b.scale[run][row] = x.scales[run] as u8;
        }
        for group in 0..2 {
            put_nibbles(&mut b.q[group], row, &x.codes[32 * group..]);
        }
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, b: &Block, row: usize, group: usize) -> [I::U8; 8] {
        looked_up(isa, &b.q[group], row, &mxfp4::VALUES)
    }
    /// The values are doubled, and the scales are loaded as `2^-8` of what they are.
    #[inline(always)]
    fn d<I: Isa>(isa: I, _: &Block, _row: usize) -> I::F32 {
        isa.splat(128.0)
    }
    #[inline(always)]
    fn float_scale<I: Isa>(isa: I, b: &Block, row: usize, run: usize) -> I::F32 {
        isa.load_e4m3(&b.scale[run][row..])
    }
}
