//! Where packed weights lie: in memory of their own, or in a mapped file.
use super::pack::room;
use super::{Linear, PackError, WeightType};
use crate::buffer::{AlignedVec, Line, OutOfMemory};
use crate::mapping::Mapping;
use crate::pool::Pool;
use std::ops::Range;
use std::sync::Arc;

/// The version of the packed layouts of all types. Whoever changes how any type is packed raises it: files of packed weights are found by
/// it, and `tests/layouts.rs` notices.
pub const LAYOUT_VERSION: u32 = 1;

/// Bytes that a thread reads at once.
const READ: usize = 4 << 20;

/// Packed weights.
#[derive(Debug)]
pub(super) enum Storage {
    Owned(AlignedVec<Line>),
    /// Starts on a cache line and lies inside the mapping.
    Mapped(Arc<Mapping>, Range<usize>),
}

impl Storage {
    /// The panels, and perhaps the rest of the last cache line.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Owned(data) => bytemuck::cast_slice(data),
            Storage::Mapped(mapping, range) => &mapping.bytes()[range.clone()],
        }
    }
}

impl Linear {
    /// Matrices that were packed before and lie in `mapping` from `offset` on. `None` if they would not lie inside it or on a cache line.
    pub fn mapped(
        kind: WeightType,
        (rows, cols): (usize, usize),
        matrices: usize,
        mapping: &Arc<Mapping>,
        offset: usize,
    ) -> Option<Linear> {
        let end = offset.checked_add(Self::bytes_for(kind, rows, cols, matrices)?)?;
        // A mapping begins on a page.
        if end > mapping.bytes().len() || !offset.is_multiple_of(size_of::<Line>()) {
            return None;
        }
        let data = Storage::Mapped(Arc::clone(mapping), offset..end);
        Some(Linear { kind, rows, cols, matrices, data, factors: Vec::new() })
    }

    /// Matrices that were packed before: `read(at, bytes)` fills `bytes` with panels from byte `at` on.
    ///
    /// # Errors
    /// If memory is short, or one of the errors of `read`.
    pub fn read_packed<E: Send>(
        kind: WeightType,
        (rows, cols): (usize, usize),
        matrices: usize,
        pool: &Pool,
        read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Linear, PackError<E>> {
        let bytes = Self::bytes_for(kind, rows, cols, matrices).ok_or(PackError::OutOfMemory(OutOfMemory { bytes: usize::MAX }))?;
        let mut data = room(bytes).map_err(PackError::OutOfMemory)?;
        let panels = &mut bytemuck::cast_slice_mut::<Line, u8>(&mut data)[..bytes];
        let mut pieces: Vec<_> = panels.chunks_mut(READ).map(|piece| (piece, Ok(()))).collect();
        pool.for_each_mut(&mut pieces, |i, (piece, result)| *result = read(i * READ, piece));
        pieces.into_iter().try_for_each(|(_, result)| result).map_err(PackError::Read)?;
        Ok(Linear { kind, rows, cols, matrices, data: Storage::Owned(data), factors: Vec::new() })
    }

    /// Whether the panels lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.data, Storage::Mapped(..))
    }

    /// The panels of all matrices, one after another.
    pub fn bytes(&self) -> &[u8] {
        &self.data.bytes()[..self.matrices * self.matrix_bytes()]
    }
}
