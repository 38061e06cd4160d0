//! Products of weights and activations, shared among threads.
use super::Linear;
use super::weight_type::WeightVisitor;
use crate::activation::{Activations, Inputs, Tile, WIDE};
use crate::buffer::{AlignedVec, Columns};
use crate::dense::{self, Element};
use crate::format::{Bytes, FileType, Format, GROUP};
use crate::matmul::{self, Panels, TileSums};
use crate::pool::Pool;
use fastllm_simd::tiles::Tiles;
use fastllm_simd::{Cpu, Isa, Kernel, ROWS, TileKernel};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// One product: `y[token][row] = sum_k w[row][k] * x[token][k]`.
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights.
    pub weights: &'a Linear,
    /// Which of the matrices.
    pub matrix: usize,
    /// The activations, in the form the weights want.
    pub x: Inputs<'a>,
    /// Rows of at least `padded_rows` floats, one per token.
    pub y: Columns<'a, f32>,
}

impl<'a> Product<'a> {
    /// The product with the first matrix; rows of `y` are `padded_rows` long.
    pub fn new(weights: &'a Linear, x: &'a Activations, y: &'a mut [f32]) -> Self {
        Product { weights, matrix: 0, x: x.all(), y: Columns::new(y, weights.padded_rows()) }
    }
}

/// Memory for the products of many tokens, one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    threads: Vec<Mutex<Unpacked>>,
}

/// What a thread keeps of a chunk of panels.
#[derive(Debug, Default)]
struct Unpacked {
    codes: AlignedVec<Bytes>,
    /// Running sums, where panels take turns.
    sums: Vec<TileSums>,
}

impl Scratch {
    /// For the threads of `pool`.
    pub fn new(pool: &Pool) -> Scratch {
        Scratch { threads: (0..pool.threads()).map(|_| Mutex::default()).collect() }
    }
}

/// Bytes of unpacked codes that a task works on at most: a part of a usual L2 cache.
const UNPACKED: usize = 256 << 10;
/// The same for CPUs with matrix tiles: the most that a thread keeps on any CPU.
pub const UNPACKED_TILED: usize = 1 << 20;
/// Least bytes of packed weights of a task, so that claiming it costs nothing.
const LEAST: usize = 32 << 10;

/// Consecutive panels of one of the products.
#[derive(Clone, Copy)]
struct Piece {
    product: usize,
    first: usize,
    count: usize,
}

/// Cuts the panels of all products into pieces that get smaller towards the end, so that threads finish together.
fn pieces(cpu: Cpu, products: &[Product<'_>], threads: usize) -> Vec<Piece> {
    let unpacked = if cpu.has_tiles() { UNPACKED_TILED } else { UNPACKED };
    let panels = |p: &Product<'_>| p.weights.rows.div_ceil(ROWS);
    let bytes = |p: &Product<'_>| p.weights.kind.panel_bytes(p.weights.cols).max(1);
    let mut left: usize = products.iter().map(|p| panels(p) * bytes(p)).sum();
    let mut pieces = Vec::new();
    for (product, p) in products.iter().enumerate() {
        let (panels, bytes) = (panels(p), bytes(p));
        let wide = p.x.tiles().iter().any(|t| t.width == WIDE);
        let most = if wide { (unpacked / (ROWS * p.weights.cols).max(1)).max(1) } else { panels };
        let least = if wide { 1 } else { LEAST.div_ceil(bytes) };
        let mut first = 0;
        while first < panels {
            let count = (left / (2 * threads * bytes)).max(least).min(most).min(panels - first);
            pieces.push(Piece { product, first, count });
            first += count;
            left -= count * bytes;
        }
    }
    pieces
}

/// Computes the products, sharing the work among the threads of `pool`. Stops early, with undefined outputs, once `cancel` is set.
pub fn multiply(cpu: Cpu, pool: &Pool, scratch: &Scratch, products: &[Product<'_>], cancel: &AtomicBool) {
    let pieces = pieces(cpu, products, pool.threads());
    pool.run(pieces.len(), |task, thread| {
        if cancel.load(Ordering::Relaxed) {
            return;
        }
        let Piece { product, first, count } = pieces[task];
        let Product { weights, matrix, x, y } = &products[product];
        let mut unpacked = scratch.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = Chunk {
            panels: weights.panels(*matrix, first, count),
            factor: weights.factor(*matrix),
            count,
            first,
            cols: weights.cols,
            x: *x,
            y,
            unpacked: &mut unpacked,
            tiles: x.tiles(),
        };
        weights.kind.visit(Multiply { cpu, chunk });
    });
}

/// Some panels times all tokens.
struct Chunk<'a, 'b> {
    panels: &'a [u8],
    factor: f32,
    count: usize,
    first: usize,
    cols: usize,
    x: Inputs<'a>,
    y: &'a Columns<'b, f32>,
    unpacked: &'a mut Unpacked,
    tiles: &'a [Tile],
}

impl Chunk<'_, '_> {
    /// Stores the products of a panel with the existing ones of `N` tokens.
    #[inline(always)]
    fn store<const N: usize>(&self, panel: usize, token: usize, tile: Tile, out: &[[f32; ROWS]; N]) {
        for t in 0..N {
            if token + t < tile.first + tile.tokens {
                // SAFETY: a task owns the columns of its panels.
                #[allow(unsafe_code)]
                let y = unsafe { self.y.part(token + t - self.x.first(), (self.first + panel) * ROWS, ROWS) };
                for i in 0..ROWS {
                    y[i] = out[t][i] * self.factor;
                }
            }
        }
    }
}

struct Multiply<'a, 'b> {
    cpu: Cpu,
    chunk: Chunk<'a, 'b>,
}

impl WeightVisitor for Multiply<'_, '_> {
    type Output = ();
    fn dense<E: Element>(self) {
        self.cpu.run(DenseChunk::<E>(self.chunk, std::marker::PhantomData));
    }
    fn quantized<T: FileType>(self) {
        // Wide tiles come first.
        let (wide, narrow) = self.chunk.tiles.split_at(self.chunk.tiles.partition_point(|t| t.width == WIDE));
        let mut chunk = QuantizedChunk::<T::Format>(self.chunk, std::marker::PhantomData);
        chunk.0.tiles = wide;
        if !wide.is_empty() && self.cpu.run_tiled(&mut chunk).is_ok() {
            chunk.0.tiles = narrow;
        } else {
            chunk.0.tiles = chunk.0.x.tiles();
        }
        if !chunk.0.tiles.is_empty() {
            self.cpu.run(chunk);
        }
    }
}

struct DenseChunk<'a, 'b, E>(Chunk<'a, 'b>, std::marker::PhantomData<E>);

impl<E: Element> Kernel for DenseChunk<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let chunk = self.0;
        let panels: &[E::Bits] = bytemuck::cast_slice(chunk.panels);
        let len = dense::panel_len(chunk.cols);
        for &tile in chunk.tiles {
            let x = chunk.x.dense(tile);
            for p in 0..chunk.count {
                let panel = &panels[p * len..][..len];
                match tile.width {
                    1 => chunk.store(p, tile.first, tile, &dense::tile::<E, I, 1, 1>(isa, panel, x, 0)),
                    4 => chunk.store(p, tile.first, tile, &dense::tile::<E, I, 4, 4>(isa, panel, x, 0)),
                    8 => {
                        for first in [0, 4] {
                            chunk.store(p, tile.first + first, tile, &dense::tile::<E, I, 8, 4>(isa, panel, x, first));
                        }
                    }
                    _ => {
                        for first in (0..WIDE).step_by(4) {
                            chunk.store(p, tile.first + first, tile, &dense::tile::<E, I, WIDE, 4>(isa, panel, x, first));
                        }
                    }
                }
            }
        }
    }
}

struct QuantizedChunk<'a, 'b, F>(Chunk<'a, 'b>, std::marker::PhantomData<F>);

impl<F: Format> Kernel for QuantizedChunk<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        // Tokens of a register tile: with two scales for a group, fewer fit.
        let tokens = if F::SCALE_RUN == GROUP / 2 { 4 } else { I::TOKENS };
        let wide = self.0.tiles.iter().any(|t| t.width == WIDE);
        if wide && F::UNPACK {
            self.unpack(isa, 0);
        }
        let chunk = &mut self.0;
        let panels = Panels::<F>::new(chunk.panels, chunk.cols);
        let Unpacked { codes, mut sums } = std::mem::take(chunk.unpacked);
        if wide {
            sums.resize(chunk.count, Default::default());
        }
        let last = chunk.tiles.last().map_or(0, |t| t.first);
        for &tile in chunk.tiles {
            let x = chunk.x.quantized(tile);
            if tile.width == WIDE {
                let last = tile.first == last;
                if tokens == 8 {
                    matmul::wide::<F, I, 8>(isa, panels, &codes, x, &mut sums, last);
                } else {
                    matmul::wide::<F, I, 4>(isa, panels, &codes, x, &mut sums, last);
                }
                for (p, sums) in sums.iter().enumerate() {
                    chunk.store(p, tile.first, tile, sums);
                }
                continue;
            }
            for p in 0..chunk.count {
                let panel = panels.panel(p);
                match tile.width {
                    1 => chunk.store(p, tile.first, tile, &matmul::narrow::<F, I, 1, 1>(isa, panel, x, 0)),
                    4 => chunk.store(p, tile.first, tile, &matmul::narrow::<F, I, 4, 4>(isa, panel, x, 0)),
                    _ if tokens == 8 => chunk.store(p, tile.first, tile, &matmul::narrow::<F, I, 8, 8>(isa, panel, x, 0)),
                    _ => {
                        for first in [0, 4] {
                            chunk.store(p, tile.first + first, tile, &matmul::narrow::<F, I, 8, 4>(isa, panel, x, first));
                        }
                    }
                }
            }
        }
        *chunk.unpacked = Unpacked { codes, sums };
    }
}

/// Wide tiles only.
impl<F: Format> TileKernel for &mut QuantizedChunk<'_, '_, F> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I, tiles: Tiles) {
        self.unpack(isa, F::RANGE.zero as u8);
        let chunk = &mut self.0;
        let panels = Panels::<F>::new(chunk.panels, chunk.cols);
        let configured = tiles.configure(matmul::tile_columns::<F>());
        let Unpacked { codes, mut sums } = std::mem::take(chunk.unpacked);
        sums.resize(chunk.count, Default::default());
        for &tile in chunk.tiles {
            matmul::tiled::<F, I>(isa, &configured, panels, &codes, chunk.x.quantized(tile), &mut sums);
            for (p, sums) in sums.iter().enumerate() {
                chunk.store(p, tile.first, tile, sums);
            }
        }
        *chunk.unpacked = Unpacked { codes, sums };
    }
}

impl<F: Format> QuantizedChunk<'_, '_, F> {
    /// Unpacks the codes, less `zero`.
    #[inline(always)]
    fn unpack<I: Isa>(&mut self, isa: I, zero: u8) {
        let chunk = &mut self.0;
        let panels = Panels::<F>::new(chunk.panels, chunk.cols);
        let groups = panels.groups();
        chunk.unpacked.codes.resize(chunk.count * groups);
        for p in 0..chunk.count {
            matmul::unpack::<F, I>(isa, panels.panel(p), zero, &mut chunk.unpacked.codes[p * groups..][..groups]);
        }
    }
}
