//! Rows of a file to panels.
use super::storage::Storage;
use super::weight_type::WeightVisitor;
use super::{Linear, WeightType};
use crate::buffer::{AlignedVec, Columns, Line, OutOfMemory};
use crate::dense::{self, Element};
use crate::format::{FileType, Format, RowBlock};
use crate::pool::Pool;
use bytemuck::Zeroable;
use fastllm_simd::ROWS;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of all threads' buffers of file rows while weights are packed.
const READ_BUFFERS: usize = 16 << 20;
/// Least bytes of such a buffer.
const LEAST_BUFFER: usize = 32 << 10;

/// Why a matrix could not be packed.
#[derive(Debug)]
pub enum PackError<E> {
    /// No memory.
    OutOfMemory(OutOfMemory),
    /// Reading failed.
    Read(E),
}

impl Linear {
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
        let mut data = room(bytes).map_err(PackError::OutOfMemory)?;
        let per_matrix = rows.div_ceil(ROWS);
        let panel_bytes = kind.panel_bytes(cols);
        // Panels that a task reads at once: up to a megabyte, so that positional reads are few, but with many threads less: buffers are
        // small beside any model.
        let buffer = (READ_BUFFERS / pool.threads()).clamp(LEAST_BUFFER, 1 << 20);
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
            let mut src = match room(file_rows * row_bytes) {
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
            None => Ok(Linear { kind, rows, cols, matrices, data: Storage::Owned(data), factors: Vec::new() }),
        }
    }
}

/// Room for so many bytes.
pub(super) fn room(bytes: usize) -> Result<AlignedVec<Line>, OutOfMemory> {
    AlignedVec::try_zeroed(bytes.div_ceil(size_of::<Line>()))
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
