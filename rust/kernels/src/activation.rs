//! Activations in the form that the matrix kernels read: tiles of tokens, interleaved block by block.
//!
//! For quantized weights a block is 256 columns of a token as 8-bit codes, with a scale per 32 columns and with the sums that zero points,
//! offsets and minima are multiplied by. For dense weights a tile holds plain floats, column by column.
//!
//! Weights with integer scales get scales that are a unit times 1, 2, 4 or 8, so that all 256 columns are added up as integers: a multiply
//! less for 32 columns, the dearest thing beside the dot product itself. The other types get the best float for every 32 columns.
use crate::buffer::{AlignedVec, OutOfMemory};
use crate::pool::Pool;
use bytemuck::{Pod, Zeroable};
use fastllm_simd::{Cpu, Isa, Kernel};

/// Columns of a block.
pub const SUPER: usize = 256;
const GROUPS: usize = SUPER / 32;
/// Tokens of a wide tile.
pub const WIDE: usize = 16;

/// Largest exponent of a shifted scale. With it sums of 32 codes still fit 16 bits, and sums of products 31.
const MAX_SHIFT: u32 = 3;

/// 256 columns of one token.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Block {
    /// Codes, -127..=127; the value is `scale[group] * code`.
    pub q: [[i8; 32]; GROUPS],
    /// Sums of the codes of each half of a group.
    pub half_sums: [[i32; 2]; GROUPS],
    /// Sums of the codes of a group.
    pub sums: [i32; GROUPS],
    /// One scale per group.
    pub scale: [f32; GROUPS],
    /// Grouped form: `scale * sum`.
    pub scaled_sums: [f32; GROUPS],
    /// Shifted form: `scale = unit * 2^shift`.
    pub unit: f32,
    /// Shifted form: see `unit`.
    pub shift: [u32; GROUPS],
    /// Shifted form: `sum << shift`, which the minima of a K-quant are multiplied by.
    pub min_sums: [[i16; 2]; GROUPS / 2],
    /// The same for halves of groups.
    pub min_half_sums: [[i16; 2]; GROUPS],
    _pad: [u32; 3],
}

/// Tokens that a kernel takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// First token.
    pub first: usize,
    /// Tokens stored: 1, 4, 8 or [`WIDE`].
    pub width: usize,
    /// Tokens that exist; the others are zero.
    pub tokens: usize,
}

/// Which forms of the activations are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// 8-bit codes with a float for every 32 columns, for weights with float scales.
    pub grouped: bool,
    /// 8-bit codes with a float for 256 columns and a power of two for every 32, for weights with integer scales.
    pub shifted: bool,
    /// Floats, for dense weights.
    pub dense: bool,
}

impl Forms {
    /// What either wants.
    #[must_use]
    pub fn and(self, other: Forms) -> Forms {
        Forms { grouped: self.grouped || other.grouped, shifted: self.shifted || other.shifted, dense: self.dense || other.dense }
    }
}

/// Columns of the widest matrix that wants a form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormCols {
    /// Of [`Forms::grouped`].
    pub grouped: usize,
    /// Of [`Forms::shifted`].
    pub shifted: usize,
    /// Of [`Forms::dense`].
    pub dense: usize,
}

impl FormCols {
    /// Makes room for matrices of `cols` columns.
    pub fn widen(&mut self, forms: Forms, cols: usize) {
        for (widest, wanted) in [(&mut self.grouped, forms.grouped), (&mut self.shifted, forms.shifted), (&mut self.dense, forms.dense)] {
            if wanted {
                *widest = cols.max(*widest);
            }
        }
    }
}

/// The activations of some tokens, ready to be multiplied with any weights of as many columns.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    tiles: Vec<Tile>,
    forms: Forms,
    grouped: AlignedVec<Block>,
    shifted: AlignedVec<Block>,
    dense: AlignedVec<f32>,
}

/// Columns of the dense form: rounded up to the two chains of the dense kernel.
pub fn dense_cols(cols: usize) -> usize {
    cols.next_multiple_of(2)
}

/// The tile for the next of `left` tokens.
fn width(left: usize) -> usize {
    match left {
        0 | 1 => left,
        2..=4 => 4,
        5..=12 => 8,
        _ => WIDE,
    }
}

fn tiles(tokens: usize, out: &mut Vec<Tile>) {
    out.clear();
    let mut first = 0;
    while first < tokens {
        let left = tokens - first;
        let width = width(left);
        out.push(Tile { first, width, tokens: left.min(width) });
        first += width;
    }
}

/// Tokens stored for `tokens` tokens: those of whole tiles.
fn stored(tokens: usize) -> usize {
    let (whole, rest) = (tokens / WIDE * WIDE, tokens % WIDE);
    let first = width(rest);
    whole + first + width(rest.saturating_sub(first))
}

impl Activations {
    /// Bytes of all forms of `tokens` tokens.
    pub fn bytes(tokens: usize, cols: FormCols) -> usize {
        let blocks = cols.grouped.div_ceil(SUPER) + cols.shifted.div_ceil(SUPER);
        stored(tokens).saturating_mul(blocks * size_of::<Block>() + dense_cols(cols.dense) * size_of::<f32>())
    }

    /// Makes room for `tokens` tokens of as many columns in every form, so that [`fill`](Self::fill) finds memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn reserve(&mut self, tokens: usize, cols: FormCols) -> Result<(), OutOfMemory> {
        let stored = stored(tokens);
        self.grouped.reserve(stored.saturating_mul(cols.grouped.div_ceil(SUPER)))?;
        self.shifted.reserve(stored.saturating_mul(cols.shifted.div_ceil(SUPER)))?;
        self.dense.reserve(stored.saturating_mul(dense_cols(cols.dense)))
    }

    /// The tiles of the tokens.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Columns of a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.tiles.last().map_or(0, |t| t.first + t.tokens)
    }

    /// The forms that are filled in.
    pub fn forms(&self) -> Forms {
        self.forms
    }

    /// A quantized form of a tile: `[block][token of the tile]`.
    #[inline(always)]
    pub(crate) fn quantized(&self, tile: Tile, shifted: bool) -> &[Block] {
        let blocks = self.cols.div_ceil(SUPER);
        let form = if shifted { &self.shifted } else { &self.grouped };
        &form[tile.first * blocks..][..tile.width * blocks]
    }

    /// The dense form of a tile: `[column][token of the tile]`.
    #[inline(always)]
    pub(crate) fn dense(&self, tile: Tile) -> &[f32] {
        let cols = dense_cols(self.cols);
        &self.dense[tile.first * cols..][..tile.width * cols]
    }

    /// Fills in the wanted forms from `row(token)`, a row of `cols` floats.
    pub fn fill<'a>(&mut self, cpu: Cpu, pool: &Pool, tokens: usize, cols: usize, forms: Forms, row: impl Fn(usize) -> &'a [f32] + Sync) {
        self.cols = cols;
        self.forms = forms;
        tiles(tokens, &mut self.tiles);
        let stored = self.tiles.last().map_or(0, |t| t.first + t.width);
        let row = &row;
        for (wanted, form, shifted) in [(forms.grouped, &mut self.grouped, false), (forms.shifted, &mut self.shifted, true)] {
            if !wanted {
                continue;
            }
            let blocks = cols.div_ceil(SUPER);
            form.resize(stored * blocks);
            let tiles = &self.tiles;
            let mut parts = split_tiles(form, tiles, blocks);
            pool.for_each_mut(&mut parts, |i, part| {
                for t in 0..tiles[i].width {
                    let x = if t < tiles[i].tokens { row(tiles[i].first + t) } else { &[] };
                    cpu.run(Quantize { x, width: tiles[i].width, shifted, out: &mut part[t..] });
                }
            });
        }
        if forms.dense {
            let cols = dense_cols(cols);
            self.dense.resize(stored * cols);
            let tiles = &self.tiles;
            let mut parts = split_tiles(&mut self.dense, tiles, cols);
            pool.for_each_mut(&mut parts, |i, part| {
                let Tile { first, width, tokens } = tiles[i];
                part.fill(0.0);
                for t in 0..tokens {
                    for (x, out) in row(first + t).iter().zip(part[t..].iter_mut().step_by(width)) {
                        *out = *x;
                    }
                }
            });
        }
    }
}

fn split_tiles<'a, T>(mut all: &'a mut [T], tiles: &[Tile], per_token: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let (part, rest) = all.split_at_mut(tile.width * per_token);
        parts.push(part);
        all = rest;
    }
    parts
}

/// Quantizes a row to every `width`-th block of `out`; an empty row gives zeros.
struct Quantize<'a> {
    x: &'a [f32],
    width: usize,
    shifted: bool,
    out: &'a mut [Block],
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut at = 0;
        let mut b = 0;
        while b < self.out.len() {
            let block = &mut self.out[b];
            if let Some(x) = self.x.get(at..).and_then(|x| x.first_chunk()) {
                quantize(isa, x, self.shifted, block);
            } else if at < self.x.len() {
                let mut padded = [0.0; SUPER];
                padded[..self.x.len() - at].copy_from_slice(&self.x[at..]);
                quantize(isa, &padded, self.shifted, block);
            } else {
                *block = Block::zeroed();
            }
            at += SUPER;
            b += self.width;
        }
    }
}

/// One block. An input that is not finite makes the scales NaN, so that it cannot pass unseen.
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32; SUPER], shifted: bool, out: &mut Block) {
    let (largest, poison) = largest(isa, x);
    if shifted {
        (out.unit, out.shift) = shifted_scales(&largest);
        for g in 0..GROUPS {
            out.scale[g] = out.unit * (1 << out.shift[g]) as f32;
        }
    } else {
        (out.unit, out.shift) = (0.0, [0; GROUPS]);
        for g in 0..GROUPS {
            out.scale[g] = largest[g] / 127.0;
        }
    }
    for g in 0..GROUPS {
        let inverse = 1.0 / out.scale[g];
        let inverse = isa.splat(if inverse < f32::MAX { inverse } else { 0.0 });
        for at in (0..32).step_by(I::LANES) {
            let scaled = isa.mul(isa.load(&x[32 * g + at..]), inverse);
            let clamped = isa.min(isa.max(scaled, isa.splat(-127.0)), isa.splat(127.0));
            isa.store_i8(clamped, &mut out.q[g][at..]);
        }
    }
    for g in 0..GROUPS {
        let mut halves = [0i32; 2];
        for i in 0..16 {
            halves[0] += i32::from(out.q[g][i]);
            halves[1] += i32::from(out.q[g][16 + i]);
        }
        out.half_sums[g] = halves;
        out.sums[g] = halves[0] + halves[1];
        out.scale[g] += poison;
        out.scaled_sums[g] = out.scale[g] * out.sums[g] as f32;
        out.min_sums[g / 2][g % 2] = (out.sums[g] << out.shift[g]) as i16;
        out.min_half_sums[g] = [(halves[0] << out.shift[g]) as i16, (halves[1] << out.shift[g]) as i16];
    }
    out.unit += poison;
}

/// The largest size of each group, and 0, or NaN if an input is not finite.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32; SUPER]) -> ([f32; GROUPS], f32) {
    let mut largest = [0.0; GROUPS];
    let mut poison = isa.splat(0.0);
    for g in 0..GROUPS {
        let mut most = isa.splat(0.0);
        for at in (0..32).step_by(I::LANES) {
            let v = isa.load(&x[32 * g + at..]);
            most = isa.max(isa.abs(v), most);
            poison = isa.fma(v, isa.splat(0.0), poison);
        }
        largest[g] = isa.reduce_max(most);
    }
    let mut lanes = [0.0; 16];
    isa.store(poison, &mut lanes);
    let mut bad = 0.0;
    for lane in lanes {
        bad += lane;
    }
    (largest, bad)
}

/// The unit and the shift of each group with the least error, among four units of an octave: the error of a group grows with the square
/// of its scale.
#[inline(always)]
fn shifted_scales(largest: &[f32; GROUPS]) -> (f32, [u32; GROUPS]) {
    const MOST: f32 = (1 << MAX_SHIFT) as f32;
    /// Powers of 2^(1/4).
    const UNITS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_9];
    let mut most = 0.0;
    for g in 0..GROUPS {
        most = if largest[g] > most { largest[g] } else { most };
    }
    let least = most / (127.0 * MOST);
    let inverse = 1.0 / (127.0 * least);
    // All zero, or so small that codes are 0.
    let inverse = if inverse < f32::MAX { inverse } else { 0.0 };
    let mut best = (f32::INFINITY, least, [1.0f32; GROUPS]);
    for unit in UNITS {
        let (mut factors, mut error) = ([1.0; GROUPS], 0.0);
        for g in 0..GROUPS {
            // The least power of two that is not below.
            let ratio = largest[g] * inverse / unit;
            let power = f32::from_bits(ratio.to_bits().wrapping_add(0x007f_ffff) & 0x7f80_0000);
            let power = if power > 1.0 { power } else { 1.0 };
            factors[g] = if power < MOST { power } else { MOST };
            error += factors[g] * factors[g];
        }
        error *= unit * unit;
        if error < best.0 {
            best = (error, least * unit, factors);
        }
    }
    let mut shift = [0; GROUPS];
    for g in 0..GROUPS {
        shift[g] = (best.2[g].to_bits() >> 23) - 127;
    }
    (best.1, shift)
}
