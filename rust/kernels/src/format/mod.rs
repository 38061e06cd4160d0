//! Packed weight formats: blocks of 16 rows x [`Format::COLS`] columns, 4 columns of a row side by side.
//!
//! `weight = d * scale[run] * (code - zero) - dmin * min[run] + offset`, where a run is 16 or 32 columns. A [`Format`] says how codes,
//! scales and minima are found in a block; it knows no instruction set. A [`FileType`] says how the blocks of a file are read. Types with
//! the same levels share a format, and so the compiled kernels.
//!
//! The file layouts are those of the GGUF specification (ggml's block structures). Types whose file holds indices into a grid of points
//! are expanded to a code per weight: kernels do without gathers, for more bytes in memory.
//! `docs/formats.md` has all layouts, in files and in memory.
use bytemuck::{Pod, Zeroable};
use fastllm_simd::{Isa, ROWS, Range};

mod grid;
mod iq1;
mod iq2;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod tq;

/// Columns of a group, the unit of unpacking.
pub const GROUP: usize = 32;

/// 32 columns of 16 rows, one byte each: vector `j` holds columns `4j..4j + 4` of every row.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Bytes(pub [[u8; 64]; 8]);

/// 32 columns of 16 rows, half a byte each: vector `j` holds the codes of vector `j` of [`Bytes`] and, above them, of vector `j + 4`.
type Nibbles = [[u8; 64]; 4];

/// One row of one block of a file, taken apart.
#[derive(Clone, Debug)]
pub struct RowBlock {
    /// Bits of the f16 scale (MXFP4: the exponent; NVFP4: unused).
    pub d: u16,
    /// Bits of the f16 minimum or offset.
    pub m: u16,
    /// Scales, one per run: integers, or what a format makes them from.
    pub scales: [i8; 16],
    /// Integer minima, one per run.
    pub mins: [u8; 16],
    /// Codes before any table.
    pub codes: [u8; 256],
}

impl Default for RowBlock {
    fn default() -> Self {
        RowBlock { d: 0, m: 0, scales: [0; 16], mins: [0; 16], codes: [0; 256] }
    }
}

/// A type of weights in a file.
pub trait FileType: 'static {
    /// What the weights become in memory. Blocks have as many columns there as in the file.
    type Format: Format;
    /// Bytes of one row of a block.
    const BYTES: usize;

    /// Takes one row of a block apart; `src` holds `BYTES` bytes.
    fn read(src: &[u8], out: &mut RowBlock);
}

/// How 16 rows of weights are stored in memory.
pub trait Format: Copy + Send + Sync + 'static {
    /// Columns of a block.
    const COLS: usize;
    /// Range of the codes.
    const RANGE: Range;
    /// Columns that share an integer scale (16 or 32), or 0 if there is none.
    const SCALE_RUN: usize = 0;
    /// Whether every 16 columns have a float scale.
    const FLOAT_SCALES: bool = false;
    /// Columns that share an integer minimum (16 or 32), or 0 if there is none.
    const MIN_RUN: usize = 0;
    /// Whether a float is added to all weights of a row of a block.
    const OFFSET: bool = false;
    /// Whether the codes are worth unpacking once for many tokens: not where masks and shifts give them, which cost next to nothing
    /// beside the products and read half the bytes.
    const UNPACK: bool = true;
    /// A block in memory.
    type Block: Pod + Send + Sync;

    /// Puts a row into a block.
    fn put(block: &mut Self::Block, row: usize, x: &RowBlock);

    /// The 32 columns of `group`.
    fn codes<I: Isa>(isa: I, b: &Self::Block, row: usize, group: usize) -> [I::U8; 8];
    /// The float scales.
    fn d<I: Isa>(isa: I, b: &Self::Block, row: usize) -> I::F32;
    /// The integer scales of a run.
    #[inline(always)]
    fn scale<I: Isa>(_: I, _: &Self::Block, _row: usize, _run: usize) -> I::Scale {
        unreachable!("the format has no integer scales")
    }
    /// The float scales of 16 columns.
    #[inline(always)]
    fn float_scale<I: Isa>(_: I, _: &Self::Block, _row: usize, _run: usize) -> I::F32 {
        unreachable!("the format has no float scales of runs")
    }
    /// The float scale of the minima, or the offset.
    #[inline(always)]
    fn m<I: Isa>(_: I, _: &Self::Block, _row: usize) -> I::F32 {
        unreachable!("the format has no minima")
    }
    /// The minima of runs `2 * pair` and `2 * pair + 1`.
    #[inline(always)]
    fn mins<I: Isa>(_: I, _: &Self::Block, _row: usize, _pair: usize) -> I::Pairs {
        unreachable!("the format has no integer minima")
    }
}

/// Work on weights of a format that is known at run time only.
pub trait Visitor {
    /// What the work returns.
    type Output;
    /// Does the work for `T`.
    fn visit<T: FileType>(self) -> Self::Output;
}

macro_rules! quantized {
    ($($variant:ident $name:literal $type:ty,)*) => {
        /// A block-quantized weight type. Names are those of the GGUF specification, in lower case.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Quantized {
            $(#[doc = $name] $variant,)*
        }

        impl Quantized {
            /// Every type.
            pub const ALL: &'static [Quantized] = &[$(Quantized::$variant,)*];

            /// The name in lower case, such as `q4_k`.
            pub fn name(self) -> &'static str {
                match self { $(Quantized::$variant => $name,)* }
            }

            /// Runs `visitor` with this type: the one place where a type becomes a Rust type.
            pub fn visit<V: Visitor>(self, visitor: V) -> V::Output {
                match self { $(Quantized::$variant => visitor.visit::<$type>(),)* }
            }
        }
    };
}

quantized! {
    Q4_0 "q4_0" q4_0::Q4_0,
    Q4_1 "q4_1" q4_1::Q4_1,
    Q5_0 "q5_0" q5_0::Q5_0,
    Q5_1 "q5_1" q5_1::Q5_1,
    Q8_0 "q8_0" q8_0::Q8_0,
    Q2K "q2_k" q2_k::Q2K,
    Q3K "q3_k" q3_k::Q3K,
    Q4K "q4_k" q4_k::Q4K,
    Q5K "q5_k" q5_k::Q5K,
    Q6K "q6_k" q6_k::Q6K,
    Iq1S "iq1_s" iq1::Iq1S,
    Iq1M "iq1_m" iq1::Iq1M,
    Iq2Xxs "iq2_xxs" iq2::Iq2Xxs,
    Iq2Xs "iq2_xs" iq2::Iq2Xs,
    Iq2S "iq2_s" iq2::Iq2S,
    Iq3Xxs "iq3_xxs" iq3_xxs::Iq3Xxs,
    Iq3S "iq3_s" iq3_s::Iq3S,
    Iq4Nl "iq4_nl" iq4_nl::Iq4Nl,
    Iq4Xs "iq4_xs" iq4_xs::Iq4Xs,
    Tq1_0 "tq1_0" tq::Tq1_0,
    Tq2_0 "tq2_0" tq::Tq2_0,
    Mxfp4 "mxfp4" mxfp4::Mxfp4,
    Nvfp4 "nvfp4" nvfp4::Nvfp4,
}

impl Quantized {
    /// The type called `name` (lower case), if there is one.
    pub fn from_name(name: &str) -> Option<Quantized> {
        Quantized::ALL.iter().copied().find(|t| t.name() == name)
    }
}

/// Two bytes, little endian.
fn u16_at(src: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([src[at], src[at + 1]])
}

/// The nibbles of 16 bytes: low ones are columns 0..16, high ones columns 16..32.
fn split_nibbles(src: &[u8], codes: &mut [u8]) {
    for j in 0..16 {
        codes[j] = src[j] & 15;
        codes[j + 16] = src[j] >> 4;
    }
}

/// Four bytes, little endian.
fn u32_at(src: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([src[at], src[at + 1], src[at + 2], src[at + 3]])
}

/// The index of column `col` of row `row` in a vector of four columns of every row, and the vector's number.
#[inline(always)]
fn place(row: usize, col: usize) -> (usize, usize) {
    (col / 4, 4 * row + col % 4)
}

/// Puts 32 codes of a row, half a byte each (the low four bits of every code).
fn put_nibbles(dst: &mut Nibbles, row: usize, codes: &[u8]) {
    for col in 0..16 {
        let (vector, at) = place(row, col);
        dst[vector][at] = (codes[col] & 15) | (codes[col + 16] << 4);
    }
}

/// Puts one bit of each of 32 codes of a row: bit `j` of a byte belongs to vector `j`.
fn put_bits(dst: &mut [u8; 64], row: usize, codes: &[u8], bit: u32) {
    for i in 0..4 {
        dst[4 * row + i] = (0..8).fold(0, |byte, j| byte | ((codes[4 * j + i] >> bit) & 1) << j);
    }
}

/// Puts the minima of a row, two runs side by side.
fn put_pairs(dst: &mut [[u8; 2 * ROWS]], row: usize, mins: &[u8]) {
    for (pair, dst) in dst.iter_mut().enumerate() {
        dst[2 * row] = mins[2 * pair];
        dst[2 * row + 1] = mins[2 * pair + 1];
    }
}

#[inline(always)]
fn nibbles<I: Isa>(isa: I, p: &Nibbles, row: usize) -> [I::U8; 8] {
    let v = [isa.load_u8(&p[0], row), isa.load_u8(&p[1], row), isa.load_u8(&p[2], row), isa.load_u8(&p[3], row)];
    let low = [isa.and(v[0], 15), isa.and(v[1], 15), isa.and(v[2], 15), isa.and(v[3], 15)];
    [low[0], low[1], low[2], low[3], isa.shr::<4>(v[0]), isa.shr::<4>(v[1]), isa.shr::<4>(v[2]), isa.shr::<4>(v[3])]
}

/// Nibbles that select one of 16 values.
#[inline(always)]
fn looked_up<I: Isa>(isa: I, p: &Nibbles, row: usize, table: &[u8; 16]) -> [I::U8; 8] {
    let mut q = nibbles(isa, p, row);
    for j in 0..8 {
        q[j] = isa.lookup(table, q[j]);
    }
    q
}

/// Adds a fifth bit, stored by `put_bits`, to codes of four bits.
#[inline(always)]
fn add_fifth_bit<I: Isa>(isa: I, mut q: [I::U8; 8], high: &[u8; 64], row: usize) -> [I::U8; 8] {
    let h = isa.load_u8(high, row);
    q[0] = isa.or(q[0], isa.and(isa.shl::<4>(h), 16));
    q[1] = isa.or(q[1], isa.and(isa.shl::<3>(h), 16));
    q[2] = isa.or(q[2], isa.and(isa.shl::<2>(h), 16));
    q[3] = isa.or(q[3], isa.and(isa.shl::<1>(h), 16));
    q[4] = isa.or(q[4], isa.and(h, 16));
    q[5] = isa.or(q[5], isa.and(isa.shr::<1>(h), 16));
    q[6] = isa.or(q[6], isa.and(isa.shr::<2>(h), 16));
    q[7] = isa.or(q[7], isa.and(isa.shr::<3>(h), 16));
    q
}

/// Codes that need no unpacking.
#[inline(always)]
pub(crate) fn bytes<I: Isa>(isa: I, b: &[[u8; 64]; 8], row: usize) -> [I::U8; 8] {
    [
        isa.load_u8(&b[0], row),
        isa.load_u8(&b[1], row),
        isa.load_u8(&b[2], row),
        isa.load_u8(&b[3], row),
        isa.load_u8(&b[4], row),
        isa.load_u8(&b[5], row),
        isa.load_u8(&b[6], row),
        isa.load_u8(&b[7], row),
    ]
}

/// The 6-bit scale and minimum of run `j` of a Q4_K or Q5_K block.
fn scale_min_6(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4)
    }
}

/// 32 columns of 16 rows, a quarter of a byte each: bits `2k..` of a byte of vector `j` belong to vector `j + 2k` of [`Bytes`].
type Crumbs = [[u8; 64]; 2];

/// Puts the low two bits of 32 codes of a row.
fn put_crumbs(dst: &mut Crumbs, row: usize, codes: &[u8]) {
    for (j, dst) in dst.iter_mut().enumerate() {
        for i in 0..4 {
            dst[4 * row + i] = (0..4).fold(0, |byte, k| byte | (codes[4 * (j + 2 * k) + i] & 3) << (2 * k));
        }
    }
}

#[inline(always)]
fn crumbs<I: Isa>(isa: I, p: &Crumbs, row: usize) -> [I::U8; 8] {
    let v = [isa.load_u8(&p[0], row), isa.load_u8(&p[1], row)];
    [
        isa.and(v[0], 3),
        isa.and(v[1], 3),
        isa.and(isa.shr::<2>(v[0]), 3),
        isa.and(isa.shr::<2>(v[1]), 3),
        isa.and(isa.shr::<4>(v[0]), 3),
        isa.and(isa.shr::<4>(v[1]), 3),
        isa.shr::<6>(v[0]),
        isa.shr::<6>(v[1]),
    ]
}

/// 32 columns of 16 rows, three bits each: the low two, then the third, as `put_bits` stores it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Triples {
    low: Crumbs,
    high: [u8; 64],
}

/// Puts the low three bits of 32 codes of a row.
fn put_triples(dst: &mut Triples, row: usize, codes: &[u8]) {
    put_crumbs(&mut dst.low, row, codes);
    put_bits(&mut dst.high, row, codes, 2);
}

#[inline(always)]
fn triples<I: Isa>(isa: I, p: &Triples, row: usize) -> [I::U8; 8] {
    let mut q = crumbs(isa, &p.low, row);
    let h = isa.load_u8(&p.high, row);
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

/// Puts a scale of four bits: half a byte of each row.
fn put_half_scale(dst: &mut [[u8; ROWS]], row: usize, run: usize, scale: i8) {
    let (byte, shift) = (&mut dst[run / 2][row], 4 * (run % 2));
    *byte = *byte & !(15 << shift) | (scale as u8 & 15) << shift;
}
