//! Activations in the form that the matrix kernels read: tiles of tokens, interleaved block by block.
//!
//! For quantized weights a block is 256 columns of a token as 8-bit codes, with one f32 scale per 32 columns and with the sums that
//! zero points, offsets and minima are multiplied by. For dense weights a tile holds plain floats, column by column.
mod block;

pub use block::{Block, SUPER};

use crate::buffer::{AlignedVec, OutOfMemory};
use crate::pool::Pool;
use block::Quantize;
use fastllm_simd::Cpu;
use std::ops::Range;

/// Tokens of a wide tile.
pub const WIDE: usize = 16;

/// Tokens that a kernel takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// First token.
    pub first: usize,
    /// Tokens stored before, with those that do not exist.
    stored: usize,
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

impl Forms {
    /// What either wants.
    #[must_use]
    pub fn and(self, other: Forms) -> Forms {
        Forms { quantized: self.quantized || other.quantized, dense: self.dense || other.dense }
    }
}

/// Columns of the widest matrix that wants a form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormCols {
    /// Of [`Forms::quantized`].
    pub quantized: usize,
    /// Of [`Forms::dense`].
    pub dense: usize,
}

impl FormCols {
    /// Makes room for matrices of `cols` columns.
    pub fn widen(&mut self, forms: Forms, cols: usize) {
        for (widest, wanted) in [(&mut self.quantized, forms.quantized), (&mut self.dense, forms.dense)] {
            if wanted {
                *widest = cols.max(*widest);
            }
        }
    }
}

/// The activations of some tokens, ready to be multiplied with any weights of as many columns. Tokens may come in parts that share no
/// tile, to be multiplied with different weights.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    tiles: Vec<Tile>,
    /// The tiles of each part.
    parts: Vec<Range<usize>>,
    quantized: AlignedVec<Block>,
    dense: AlignedVec<f32>,
}

/// The activations of a part, or of all tokens: what a product reads.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    activations: &'a Activations,
    tiles: &'a [Tile],
}

impl<'a> Inputs<'a> {
    /// The tiles, wide ones first. Their tokens are counted over all parts.
    pub fn tiles(self) -> &'a [Tile] {
        self.tiles
    }

    /// First token, counted over all parts.
    #[inline(always)]
    pub fn first(self) -> usize {
        self.tiles.first().map_or(0, |t| t.first)
    }

    /// The quantized form of a tile: `[block][token of the tile]`.
    #[inline(always)]
    pub(crate) fn quantized(self, tile: Tile) -> &'a [Block] {
        let blocks = self.activations.cols.div_ceil(SUPER);
        &self.activations.quantized[tile.stored * blocks..][..tile.width * blocks]
    }

    /// The dense form of a tile: `[column][token of the tile]`.
    #[inline(always)]
    pub(crate) fn dense(self, tile: Tile) -> &'a [f32] {
        let cols = dense_cols(self.activations.cols);
        &self.activations.dense[tile.stored * cols..][..tile.width * cols]
    }
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

/// Tokens stored for `tokens` tokens: those of whole tiles.
fn stored(tokens: usize) -> usize {
    let (whole, rest) = (tokens / WIDE * WIDE, tokens % WIDE);
    let first = width(rest);
    whole + first + width(rest.saturating_sub(first))
}

impl Activations {
    /// Bytes of all forms of `tokens` tokens.
    pub fn bytes(tokens: usize, cols: FormCols) -> usize {
        let blocks = cols.quantized.div_ceil(SUPER);
        stored(tokens).saturating_mul(blocks * size_of::<Block>() + dense_cols(cols.dense) * size_of::<f32>())
    }

    /// Makes room for `tokens` tokens of as many columns in every form, so that [`fill`](Self::fill) finds memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn reserve(&mut self, tokens: usize, cols: FormCols) -> Result<(), OutOfMemory> {
        let stored = stored(tokens);
        self.quantized.reserve(stored.saturating_mul(cols.quantized.div_ceil(SUPER)))?;
        self.dense.reserve(stored.saturating_mul(dense_cols(cols.dense)))
    }

    /// The inputs of all tokens, if they are in one part.
    pub fn all(&self) -> Inputs<'_> {
        Inputs { activations: self, tiles: &self.tiles }
    }

    /// The inputs of a part.
    pub fn part(&self, part: usize) -> Inputs<'_> {
        Inputs { activations: self, tiles: &self.tiles[self.parts[part].clone()] }
    }

    /// Fills in the wanted forms from `row(token)`, a row of `cols` floats. `parts` are the numbers of tokens of the parts.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn fill<'a>(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        parts: &[usize],
        cols: usize,
        forms: Forms,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Result<(), OutOfMemory> {
        let mut tiles = self.prepare(parts, cols, forms)?;
        pool.for_each_mut(&mut tiles, |_, out| {
            for t in 0..out.tile.width {
                let x = if t < out.tile.tokens { row(out.tile.first + t) } else { &[] };
                out.put(cpu, t, x);
            }
        });
        Ok(())
    }

    /// Fills in the wanted forms from the first `cols` floats of rows of `stride`, of which `last(token, row)` makes what is wanted. It is
    /// called once for every row, just before the row is read.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn fill_in_place(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        parts: &[usize],
        cols: usize,
        forms: Forms,
        (rows, stride): (&mut [f32], usize),
        last: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<(), OutOfMemory> {
        let mut rest = rows;
        let mut tiles = Vec::new();
        for out in self.prepare(parts, cols, forms)? {
            let (rows, tail) = std::mem::take(&mut rest).split_at_mut(out.tile.tokens * stride);
            rest = tail;
            tiles.push((out, rows));
        }
        pool.for_each_mut(&mut tiles, |_, (out, rows)| {
            for (t, row) in rows.chunks_exact_mut(stride).enumerate() {
                last(out.tile.first + t, row);
                out.put(cpu, t, &row[..cols]);
            }
            for t in out.tile.tokens..out.tile.width {
                out.put(cpu, t, &[]);
            }
        });
        Ok(())
    }

    /// Makes room for tokens of so many parts, and takes it apart by tiles.
    fn prepare(&mut self, parts: &[usize], cols: usize, forms: Forms) -> Result<Vec<TileOut<'_>>, OutOfMemory> {
        self.cols = cols;
        let stored = self.cut(parts);
        let blocks = if forms.quantized { cols.div_ceil(SUPER) } else { 0 };
        let floats = if forms.dense { dense_cols(cols) } else { 0 };
        self.quantized.reserve(stored * blocks)?;
        self.quantized.resize(stored * blocks);
        self.dense.reserve(stored * floats)?;
        self.dense.resize(stored * floats);
        let (mut quantized, mut dense): (&mut [Block], &mut [f32]) = (&mut self.quantized, &mut self.dense);
        let mut tiles = Vec::with_capacity(self.tiles.len());
        for &tile in &self.tiles {
            let (q, rest) = quantized.split_at_mut(tile.width * blocks);
            quantized = rest;
            let (d, rest) = dense.split_at_mut(tile.width * floats);
            dense = rest;
            tiles.push(TileOut { tile, quantized: q, dense: d });
        }
        Ok(tiles)
    }

    /// Cuts parts of so many tokens into tiles; returns the tokens stored.
    fn cut(&mut self, parts: &[usize]) -> usize {
        self.tiles.clear();
        self.parts.clear();
        let (mut first, mut stored) = (0, 0);
        for &tokens in parts {
            let begin = self.tiles.len();
            let end = first + tokens;
            while first < end {
                let width = width(end - first);
                let tokens = width.min(end - first);
                self.tiles.push(Tile { first, stored, width, tokens });
                first += tokens;
                stored += width;
            }
            self.parts.push(begin..self.tiles.len());
        }
        stored
    }
}

/// The memory of a tile; a form that is not wanted is empty.
struct TileOut<'a> {
    tile: Tile,
    quantized: &'a mut [Block],
    dense: &'a mut [f32],
}

impl TileOut<'_> {
    /// Puts the row of token `t` of the tile; an empty row gives zeros.
    fn put(&mut self, cpu: Cpu, t: usize, x: &[f32]) {
        let width = self.tile.width;
        if !self.quantized.is_empty() {
            cpu.run(Quantize { x, width, out: &mut self.quantized[t..] });
        }
        if !self.dense.is_empty() {
            let padded = x.iter().copied().chain(std::iter::repeat(0.0));
            self.dense[t..].iter_mut().step_by(width).zip(padded).for_each(|(out, x)| *out = x);
        }
    }
}
