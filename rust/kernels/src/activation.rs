//! Activations in the form that the matrix kernels read: tiles of tokens, interleaved block by block.
//!
//! For quantized weights a block is 256 columns of a token as 8-bit codes, with one f32 scale per 32 columns and with the sums that
//! zero points, offsets and minima are multiplied by. For dense weights a tile holds plain floats, column by column.
use crate::buffer::{AlignedVec, OutOfMemory};
use crate::pool::Pool;
use bytemuck::{Pod, Zeroable};
use fastllm_simd::{Cpu, Isa, Kernel};

/// Columns of a block.
pub const SUPER: usize = 256;
const GROUPS: usize = SUPER / 32;
/// Tokens of a wide tile.
pub const WIDE: usize = 16;

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
    /// `scale * sum`.
    pub scaled_sums: [f32; GROUPS],
    /// `scaled_sums` as multiples of `min_unit`: what the minima of a K-quant are multiplied with.
    pub min_sums: [[i16; 2]; GROUPS / 2],
    /// The same for halves of groups.
    pub min_half_sums: [[i16; 2]; GROUPS],
    /// The unit of `min_sums` and `min_half_sums`.
    pub min_unit: f32,
    _pad: [u32; 11],
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
    /// 8-bit codes, for quantized weights.
    pub quantized: bool,
    /// Floats, for dense weights.
    pub dense: bool,
}

/// The activations of some tokens, ready to be multiplied with any weights of as many columns.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    tiles: Vec<Tile>,
    forms: Forms,
    quantized: AlignedVec<Block>,
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
    /// Bytes of a form with `cols` columns of `tokens` tokens: the quantized one, and the dense one.
    pub fn bytes(tokens: usize, quantized_cols: usize, dense_cols: usize) -> usize {
        let quantized = quantized_cols.div_ceil(SUPER) * size_of::<Block>();
        stored(tokens).saturating_mul(quantized + self::dense_cols(dense_cols) * size_of::<f32>())
    }

    /// Makes room for `tokens` tokens of `quantized_cols` columns in the quantized form and of `dense_cols` in the dense one, so that
    /// [`fill`](Self::fill) finds memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn reserve(&mut self, tokens: usize, quantized_cols: usize, dense_cols: usize) -> Result<(), OutOfMemory> {
        let stored = stored(tokens);
        self.quantized.reserve(stored.saturating_mul(quantized_cols.div_ceil(SUPER)))?;
        self.dense.reserve(stored.saturating_mul(self::dense_cols(dense_cols)))
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

    /// The quantized form of a tile: `[block][token of the tile]`.
    #[inline(always)]
    pub(crate) fn quantized(&self, tile: Tile) -> &[Block] {
        let blocks = self.cols.div_ceil(SUPER);
        &self.quantized[tile.first * blocks..][..tile.width * blocks]
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
        if forms.quantized {
            let blocks = cols.div_ceil(SUPER);
            self.quantized.resize(stored * blocks);
            let tiles = &self.tiles;
            let mut parts = split_tiles(&mut self.quantized, tiles, blocks);
            pool.for_each_mut(&mut parts, |i, part| {
                for t in 0..tiles[i].width {
                    let x = if t < tiles[i].tokens { row(tiles[i].first + t) } else { &[] };
                    cpu.run(Quantize { x, width: tiles[i].width, out: &mut part[t..] });
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
            if at + SUPER <= self.x.len() {
                quantize(isa, &self.x[at..at + SUPER], block);
            } else if at < self.x.len() {
                let mut padded = [0.0; SUPER];
                padded[..self.x.len() - at].copy_from_slice(&self.x[at..]);
                quantize(isa, &padded, block);
            } else {
                *block = Block::zeroed();
            }
            at += SUPER;
            b += self.width;
        }
    }
}

/// One block. An input that is not finite makes the scale of its group NaN, so that it cannot pass unseen.
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32], out: &mut Block) {
    let mut largest = 0f32;
    for g in 0..GROUPS {
        let x = &x[32 * g..32 * g + 32];
        let (mut most, mut poison) = (isa.splat(0.0), isa.splat(0.0));
        for at in (0..32).step_by(I::LANES) {
            let v = isa.load(&x[at..]);
            most = isa.max(isa.abs(v), most);
            poison = isa.fma(v, isa.splat(0.0), poison);
        }
        let mut lanes = [0.0; 16];
        isa.store(poison, &mut lanes);
        let mut bad = 0.0;
        for lane in lanes {
            bad += lane;
        }
        let step = isa.reduce_max(most) / 127.0;
        let inverse = 1.0 / step;
        let inverse = isa.splat(if inverse < f32::MAX { inverse } else { 0.0 });
        for at in (0..32).step_by(I::LANES) {
            let scaled = isa.mul(isa.load(&x[at..]), inverse);
            let clamped = isa.min(isa.max(scaled, isa.splat(-127.0)), isa.splat(127.0));
            isa.store_i8(clamped, &mut out.q[g][at..]);
        }
        let mut halves = [0i32; 2];
        for i in 0..16 {
            halves[0] += i32::from(out.q[g][i]);
            halves[1] += i32::from(out.q[g][16 + i]);
        }
        let step = step + bad;
        out.half_sums[g] = halves;
        out.sums[g] = halves[0] + halves[1];
        out.scale[g] = step;
        out.scaled_sums[g] = step * out.sums[g] as f32;
        let most = halves[0].abs().max(halves[1].abs()).max(out.sums[g].abs());
        largest = (step * most as f32).max(largest);
    }
    out.min_unit = largest / 32767.0;
    let inverse = 1.0 / out.min_unit;
    let inverse = if inverse < f32::MAX { inverse } else { 0.0 };
    for g in 0..GROUPS {
        let unit = out.scale[g] * inverse;
        out.min_sums[g / 2][g % 2] = (unit * out.sums[g] as f32).round_ties_even() as i16;
        out.min_half_sums[g] =
            [(unit * out.half_sums[g][0] as f32).round_ties_even() as i16, (unit * out.half_sums[g][1] as f32).round_ties_even() as i16];
    }
}
