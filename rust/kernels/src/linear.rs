//! Weight matrices in memory: packing, products with activations, single rows.
use crate::activation::{Activations, Forms, NARROW, Tile, WIDE, dense_cols};
use crate::buffer::{AlignedVec, Columns, Line, OutOfMemory};
use crate::dense::{self, Bf16, Element, F16, F32};
use crate::format::{Bytes, FileType, Format, GROUP, Quantized, RowBlock, Visitor};
use crate::matmul::{self, TileSums};
use crate::pool::Pool;
use bytemuck::Zeroable;
use fastllm_simd::tiles::Tiles;
use fastllm_simd::{Cpu, Isa, Kernel, ROWS, Scalar, TileKernel};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// A block-quantized type.
    Quantized(Quantized),
}

impl WeightType {
    /// The type with this GGUF name in lower case.
    pub fn from_name(name: &str) -> Option<WeightType> {
        match name {
            "f32" => Some(WeightType::F32),
            "f16" => Some(WeightType::F16),
            "bf16" => Some(WeightType::Bf16),
            _ => Quantized::from_name(name).map(WeightType::Quantized),
        }
    }

    /// Every type.
    pub fn all() -> impl Iterator<Item = WeightType> {
        [WeightType::F32, WeightType::F16, WeightType::Bf16].into_iter().chain(Quantized::ALL.iter().copied().map(WeightType::Quantized))
    }

    /// The GGUF name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Bf16 => "bf16",
            WeightType::Quantized(q) => q.name(),
        }
    }

    /// The form of the activations that these weights are multiplied with.
    pub fn form(self) -> Forms {
        let quantized = matches!(self, WeightType::Quantized(_));
        Forms { quantized, dense: !quantized }
    }

    /// Columns of a block in the file.
    pub fn block_cols(self) -> usize {
        self.visit(BlockCols)
    }

    /// Bytes of a row in the file, if `cols` is a whole number of blocks.
    pub fn file_row_bytes(self, cols: usize) -> Option<usize> {
        (cols.is_multiple_of(self.block_cols())).then(|| self.visit(FileBytes { cols }))
    }

    /// Bytes of a panel of 16 rows in memory.
    pub fn panel_bytes(self, cols: usize) -> usize {
        self.visit(PanelBytes { cols })
    }

    fn visit<V: WeightVisitor>(self, v: V) -> V::Output {
        match self {
            WeightType::F32 => v.dense::<F32>(),
            WeightType::F16 => v.dense::<F16>(),
            WeightType::Bf16 => v.dense::<Bf16>(),
            WeightType::Quantized(q) => {
                struct Adapt<V>(V);
                impl<V: WeightVisitor> Visitor for Adapt<V> {
                    type Output = V::Output;
                    fn visit<T: FileType>(self) -> V::Output {
                        self.0.quantized::<T>()
                    }
                }
                q.visit(Adapt(v))
            }
        }
    }
}

/// Work on weights of a type known at run time only.
trait WeightVisitor {
    type Output;
    fn dense<E: Element>(self) -> Self::Output;
    fn quantized<T: FileType>(self) -> Self::Output;
}

struct BlockCols;
impl WeightVisitor for BlockCols {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        1
    }
    fn quantized<T: FileType>(self) -> usize {
        T::Format::COLS
    }
}

struct FileBytes {
    cols: usize,
}
impl WeightVisitor for FileBytes {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        self.cols * size_of::<E::Bits>()
    }
    fn quantized<T: FileType>(self) -> usize {
        self.cols / T::Format::COLS * T::BYTES
    }
}

struct PanelBytes {
    cols: usize,
}
impl WeightVisitor for PanelBytes {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        dense_cols(self.cols) * ROWS * size_of::<E::Bits>()
    }
    fn quantized<T: FileType>(self) -> usize {
        self.cols / T::Format::COLS * size_of::<<T::Format as Format>::Block>()
    }
}

/// One or several (experts) weight matrices of the same shape, packed.
#[derive(Debug)]
pub struct Linear {
    kind: WeightType,
    rows: usize,
    cols: usize,
    matrices: usize,
    data: AlignedVec<Line>,
    /// One for each matrix, unless they are all 1.
    factors: Vec<f32>,
}

/// Why a matrix could not be packed.
#[derive(Debug)]
pub enum PackError<E> {
    /// No memory.
    OutOfMemory(OutOfMemory),
    /// Reading failed.
    Read(E),
}

impl Linear {
    /// Bytes in memory of `matrices` matrices of `rows` x `cols`, if that is a number.
    pub fn bytes_for(kind: WeightType, rows: usize, cols: usize, matrices: usize) -> Option<usize> {
        let panels = rows.div_ceil(ROWS).checked_mul(matrices)?;
        // Twice the columns times 16 rows of 4 bytes is more than any panel has.
        cols.checked_mul(128)?;
        panels.checked_mul(kind.panel_bytes(cols))
    }

    /// Packs matrices of `rows` x `cols`; `read(row, bytes)` fills `bytes` with whole rows of the file from `row` on, where the
    /// matrices follow one another. `cols` is a whole number of blocks.
    ///
    /// # Errors
    /// If memory is short, or the first error of `read`.
    pub fn pack<E: Send>(
        kind: WeightType,
        (rows, cols): (usize, usize),
        matrices: usize,
        pool: &Pool,
        read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Linear, PackError<E>> {
        let too_large = PackError::OutOfMemory(OutOfMemory { bytes: usize::MAX });
        let (Some(bytes), Some(row_bytes)) = (Self::bytes_for(kind, rows, cols, matrices), kind.file_row_bytes(cols)) else {
            return Err(too_large);
        };
        let mut data = AlignedVec::<Line>::try_zeroed(bytes.div_ceil(size_of::<Line>())).map_err(PackError::OutOfMemory)?;
        let per_matrix = rows.div_ceil(ROWS);
        let panel_bytes = kind.panel_bytes(cols);
        // Panels that a task reads at once: up to a megabyte, so that positional reads are few, but with many threads less: buffers are
        // small beside any model.
        let buffer = (READ_BUFFERS / pool.threads()).clamp(LEAST, 1 << 20);
        let step = (buffer / (row_bytes * ROWS).max(1)).clamp(1, per_matrix.max(1));
        let tasks_per_matrix = per_matrix.div_ceil(step);
        let failure = Mutex::new(None);
        let failed = AtomicBool::new(false);
        let columns = Columns::new(&mut bytemuck::cast_slice_mut::<Line, u8>(&mut data)[..bytes], bytes.max(1));
        pool.run(tasks_per_matrix * matrices, |task, _| {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let (matrix, first) = (task / tasks_per_matrix, task % tasks_per_matrix * step);
            let panels = step.min(per_matrix - first);
            let file_rows = (rows - first * ROWS).min(panels * ROWS);
            let fail = |e| {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            };
            let mut src = match AlignedVec::<Line>::try_zeroed((file_rows * row_bytes).div_ceil(size_of::<Line>())) {
                Ok(src) => src,
                Err(e) => return fail(PackError::OutOfMemory(e)),
            };
            let src = &mut bytemuck::cast_slice_mut::<Line, u8>(&mut src)[..file_rows * row_bytes];
            if let Err(e) = read(matrix * rows + first * ROWS, src) {
                return fail(PackError::Read(e));
            }
            let at = (matrix * per_matrix + first) * panel_bytes;
            // SAFETY: every task has its own panels.
            #[allow(unsafe_code)]
            let dst = unsafe { columns.part(0, at, panels * panel_bytes) };
            kind.visit(Pack { src, row_bytes, dst, panel_bytes });
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e),
            None => Ok(Linear { kind, rows, cols, matrices, data, factors: Vec::new() }),
        }
    }

    /// The same matrices, each times a float of its own: products are multiplied by it, in f32.
    ///
    /// # Panics
    /// If there are not as many `factors` as matrices.
    #[must_use]
    pub fn scaled(self, factors: Vec<f32>) -> Linear {
        assert_eq!(factors.len(), self.matrices, "a factor for each matrix");
        Linear { factors, ..self }
    }

    /// What products with a matrix are multiplied by.
    fn factor(&self, matrix: usize) -> f32 {
        self.factors.get(matrix).copied().unwrap_or(1.0)
    }

    /// How the weights are stored.
    pub fn kind(&self) -> WeightType {
        self.kind
    }

    /// Rows: features out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows rounded up to whole panels: the least row length of outputs.
    pub fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(ROWS)
    }

    /// Columns: features in.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Matrices of this shape.
    pub fn matrices(&self) -> usize {
        self.matrices
    }

    /// Bytes of one matrix in memory.
    pub fn matrix_bytes(&self) -> usize {
        self.rows.div_ceil(ROWS) * self.kind.panel_bytes(self.cols)
    }

    /// Panels `first..first + count` of a matrix.
    fn panels(&self, matrix: usize, first: usize, count: usize) -> &[u8] {
        let panel_bytes = self.kind.panel_bytes(self.cols);
        let at = matrix * self.matrix_bytes() + first * panel_bytes;
        &bytemuck::cast_slice::<Line, u8>(&self.data)[at..at + count * panel_bytes]
    }

    /// Row `row` of the first matrix as floats, exactly as the file's type defines them.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let panel = self.panels(0, row / ROWS, 1);
        self.kind.visit(Row { panel, lane: row % ROWS, out: &mut out[..self.cols] });
        if !self.factors.is_empty() {
            out[..self.cols].iter_mut().for_each(|x| *x *= self.factors[0]);
        }
    }
}

/// One product: `y[token][row] = sum_k w[row][k] * x[token][k]`.
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights.
    pub weights: &'a Linear,
    /// Which of the matrices.
    pub matrix: usize,
    /// The activations, in the form the weights want.
    pub x: &'a Activations,
    /// Rows of at least `padded_rows` floats, one per token.
    pub y: Columns<'a, f32>,
}

impl<'a> Product<'a> {
    /// The product with the first matrix; rows of `y` are `padded_rows` long.
    pub fn new(weights: &'a Linear, x: &'a Activations, y: &'a mut [f32]) -> Self {
        Product { weights, matrix: 0, x, y: Columns::new(y, weights.padded_rows()) }
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
/// Bytes of all threads' buffers of file rows while weights are packed.
const READ_BUFFERS: usize = 16 << 20;
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
            x,
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
    x: &'a Activations,
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
                let y = unsafe { self.y.part(token + t, (self.first + panel) * ROWS, ROWS) };
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
                    NARROW => chunk.store(p, tile.first, tile, &dense::tile::<E, I, NARROW, NARROW>(isa, panel, x, 0)),
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
        let groups = self.unpack(isa, 0);
        let chunk = &self.0;
        let panels: &[F::Block] = bytemuck::cast_slice(chunk.panels);
        let len = chunk.cols / F::COLS;
        for &tile in chunk.tiles {
            let x = chunk.x.quantized(tile);
            for p in 0..chunk.count {
                let panel = &panels[p * len..][..len];
                match tile.width {
                    1 => chunk.store(p, tile.first, tile, &matmul::narrow::<F, I, 1>(isa, panel, x)),
                    NARROW => chunk.store(p, tile.first, tile, &matmul::narrow::<F, I, NARROW>(isa, panel, x)),
                    _ => {
                        let codes = &chunk.unpacked.codes[p * groups..][..groups];
                        for first in (0..WIDE).step_by(I::TOKENS) {
                            if I::TOKENS == 8 {
                                chunk.store(p, tile.first + first, tile, &matmul::wide::<F, I, 8>(isa, panel, codes, x, first));
                            } else {
                                chunk.store(p, tile.first + first, tile, &matmul::wide::<F, I, 4>(isa, panel, codes, x, first));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Wide tiles only.
impl<F: Format> TileKernel for &mut QuantizedChunk<'_, '_, F> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I, tiles: Tiles) {
        let groups = self.unpack(isa, F::RANGE.zero as u8);
        let chunk = &mut self.0;
        let panels: &[F::Block] = bytemuck::cast_slice(chunk.panels);
        let len = chunk.cols / F::COLS;
        let configured = tiles.configure(matmul::tile_columns::<F>());
        let mut sums = std::mem::take(&mut chunk.unpacked.sums);
        sums.resize(chunk.count, Default::default());
        for &tile in chunk.tiles {
            let x = chunk.x.quantized(tile);
            matmul::tiled::<F, I>(isa, &configured, (panels, len), (&chunk.unpacked.codes, groups), x, &mut sums);
            for (p, sums) in sums.iter().enumerate() {
                chunk.store(p, tile.first, tile, sums);
            }
        }
        chunk.unpacked.sums = sums;
    }
}

impl<F: Format> QuantizedChunk<'_, '_, F> {
    /// Unpacks the codes, less `zero`, if there are wide tiles; returns the groups of a panel.
    #[inline(always)]
    fn unpack<I: Isa>(&mut self, isa: I, zero: u8) -> usize {
        let chunk = &mut self.0;
        let panels: &[F::Block] = bytemuck::cast_slice(chunk.panels);
        let (len, groups) = (chunk.cols / F::COLS, chunk.cols / GROUP);
        if chunk.tiles.iter().any(|t| t.width == WIDE) {
            chunk.unpacked.codes.resize(chunk.count * groups);
            for p in 0..chunk.count {
                matmul::unpack::<F, I>(isa, &panels[p * len..][..len], zero, &mut chunk.unpacked.codes[p * groups..][..groups]);
            }
        }
        groups
    }
}

/// File rows to panels.
struct Pack<'a> {
    src: &'a [u8],
    row_bytes: usize,
    dst: &'a mut [u8],
    panel_bytes: usize,
}

impl WeightVisitor for Pack<'_> {
    type Output = ();
    fn dense<E: Element>(self) {
        for (src, dst) in self.src.chunks(ROWS * self.row_bytes).zip(self.dst.chunks_exact_mut(self.panel_bytes)) {
            let mut rows: [&[E::Bits]; ROWS] = [&[]; ROWS];
            let count = src.len() / self.row_bytes;
            for (row, src) in rows.iter_mut().zip(src.chunks_exact(self.row_bytes)) {
                *row = bytemuck::cast_slice(src);
            }
            dense::pack::<E>(&rows[..count], bytemuck::cast_slice_mut(dst));
        }
    }
    fn quantized<T: FileType>(self) {
        let mut x = RowBlock::default();
        for (src, dst) in self.src.chunks(ROWS * self.row_bytes).zip(self.dst.chunks_exact_mut(self.panel_bytes)) {
            let panel: &mut [<T::Format as Format>::Block] = bytemuck::cast_slice_mut(dst);
            panel.fill(Zeroable::zeroed());
            for (row, src) in src.chunks_exact(self.row_bytes).enumerate() {
                for (src, block) in src.chunks_exact(T::BYTES).zip(panel.iter_mut()) {
                    T::read(src, &mut x);
                    T::Format::put(block, row, &x);
                }
            }
        }
    }
}

/// One row of a panel as floats.
struct Row<'a> {
    panel: &'a [u8],
    /// Which of the 16.
    lane: usize,
    out: &'a mut [f32],
}

impl WeightVisitor for Row<'_> {
    type Output = ();
    fn dense<E: Element>(self) {
        let panel: &[E::Bits] = bytemuck::cast_slice(self.panel);
        for (x, out) in panel[self.lane..].iter().step_by(ROWS).zip(self.out) {
            *out = E::decode(*x);
        }
    }
    fn quantized<T: FileType>(self) {
        self.decode::<T::Format>();
    }
}

impl Row<'_> {
    fn decode<F: Format>(self) {
        let (isa, row) = (Scalar, self.lane);
        let panel: &[F::Block] = bytemuck::cast_slice(self.panel);
        for (block, out) in panel.iter().zip(self.out.chunks_exact_mut(F::COLS)) {
            let d = F::d(isa, block, 0)[row];
            for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
                let codes = F::codes(isa, block, 0, group);
                for (col, out) in out.iter_mut().enumerate() {
                    let code = i32::from(codes[col / 4][4 * row + col % 4]) - F::RANGE.zero;
                    let at = GROUP * group + col;
                    let mut scale = d;
                    if let Some(run) = at.checked_div(F::SCALE_RUN) {
                        scale *= F::scale(isa, block, 0, run)[row] as f32;
                    }
                    if F::FLOAT_SCALES {
                        scale *= F::float_scale(isa, block, 0, at / 16)[row];
                    }
                    *out = scale * code as f32;
                    if F::OFFSET {
                        *out += F::m(isa, block, 0)[row];
                    }
                    if let Some(run) = at.checked_div(F::MIN_RUN) {
                        let min = F::mins(isa, block, 0, run / 2)[row][run % 2];
                        *out -= F::m(isa, block, 0)[row] * min as f32;
                    }
                }
            }
        }
    }
}
