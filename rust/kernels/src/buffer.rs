//! Memory: aligned vectors, and disjoint columns of a matrix that several threads write.
#![allow(unsafe_code)]
use bytemuck::{Pod, Zeroable};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const CACHE_LINE: usize = 64;
/// From this size on memory comes in whole huge pages, where the system has them.
const HUGE_PAGE: usize = 2 << 20;
/// Whole pages on every system: the largest in use have 64 KiB. What is not touched costs nothing.
#[cfg(unix)]
const PAGES: usize = 64 << 10;

/// A vector of plain data that starts on a cache line, zeroed at first; large ones ask for huge pages.
#[derive(Debug)]
pub struct AlignedVec<T: Pod> {
    data: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: an `AlignedVec` owns its memory, like a `Vec`.
unsafe impl<T: Pod + Send> Send for AlignedVec<T> {}
// SAFETY: shared references give shared slices only.
unsafe impl<T: Pod + Sync> Sync for AlignedVec<T> {}

/// There is not enough memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {bytes} bytes could not be allocated")]
pub struct OutOfMemory {
    /// Size of the allocation that failed.
    pub bytes: usize,
}

impl<T: Pod> AlignedVec<T> {
    /// `len` zeroed elements.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn try_zeroed(len: usize) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() <= CACHE_LINE) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(OutOfMemory { bytes: usize::MAX })?;
        if bytes == 0 {
            return Ok(AlignedVec { data: NonNull::dangling(), len, capacity: len });
        }
        let data = map(bytes).ok_or(OutOfMemory { bytes })?;
        Ok(AlignedVec { data: data.cast(), len, capacity: len })
    }

    /// `len` zeroed elements; aborts like `Vec` if there is no memory. For small scratch space.
    pub fn zeroed(len: usize) -> Self {
        match AlignedVec::try_zeroed(len) {
            Ok(v) => v,
            Err(e) => handle_alloc_error(layout(e.bytes).unwrap_or(Layout::new::<T>())),
        }
    }

    /// Makes the length `len`. What the elements hold afterwards is unspecified. Aborts like `Vec` if there is no memory, unless
    /// [`reserve`](Self::reserve) has made room.
    pub fn resize(&mut self, len: usize) {
        if len > self.capacity {
            // The old memory first: both at once are more than anyone planned for.
            *self = AlignedVec::default();
            *self = AlignedVec::zeroed(len);
        }
        self.len = len;
    }

    /// Makes room, so that a [`resize`](Self::resize) up to `len` finds memory. What the elements hold afterwards is unspecified.
    ///
    /// # Errors
    /// If the memory cannot be had; then the vector is empty.
    pub fn reserve(&mut self, len: usize) -> Result<(), OutOfMemory> {
        if len > self.capacity {
            *self = AlignedVec::default();
            *self = AlignedVec::try_zeroed(len)?;
        }
        Ok(())
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
    Layout::from_size_align(bytes, align).ok()
}

/// Bytes that a mapping of `bytes` keeps, whole pages, and those that are mapped at first: wherever they start, what is kept begins on a
/// huge page and ends within them. The ends are given back. No slice may be larger than `isize::MAX`.
#[cfg(unix)]
fn extent(bytes: usize) -> Option<(usize, usize)> {
    let kept = bytes.checked_next_multiple_of(PAGES)?;
    let room = kept.checked_add(HUGE_PAGE).filter(|&room| isize::try_from(room).is_ok())?;
    Some((kept, room))
}

#[cfg(unix)]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    if bytes < HUGE_PAGE {
        let layout = layout(bytes)?;
        // SAFETY: the size is not zero.
        return NonNull::new(unsafe { alloc_zeroed(layout) });
    }
    let (kept, room) = extent(bytes)?;
    // SAFETY: a new private mapping; the ends that are unmapped lie inside it, and so does what is kept.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), room, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = start.cast::<u8>();
        let skip = start.align_offset(HUGE_PAGE);
        let data = start.add(skip);
        if skip > 0 {
            libc::munmap(start.cast(), skip);
        }
        if room > skip + kept {
            libc::munmap(data.add(kept).cast(), room - skip - kept);
        }
        #[cfg(target_os = "linux")]
        libc::madvise(data.cast(), kept, libc::MADV_HUGEPAGE);
        NonNull::new(data)
    }
}

#[cfg(not(unix))]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let layout = layout(bytes)?;
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

impl<T: Pod> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        let bytes = self.capacity * size_of::<T>();
        if bytes == 0 {
            return;
        }
        #[cfg(unix)]
        if bytes >= HUGE_PAGE {
            // SAFETY: the mapping of `map`, of this start and size; nobody borrows it any more.
            unsafe { libc::munmap(self.data.as_ptr().cast(), bytes.next_multiple_of(PAGES)) };
            return;
        }
        if let Some(layout) = layout(bytes) {
            // SAFETY: allocated by `map` with this layout.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Pod> Default for AlignedVec<T> {
    fn default() -> Self {
        AlignedVec { data: NonNull::dangling(), len: 0, capacity: 0 }
    }
}

impl<T: Pod> Deref for AlignedVec<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len <= capacity` elements are allocated, and zero or later bytes are valid for plain data.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for AlignedVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

/// 64 bytes on a cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u8; CACHE_LINE]);

/// A matrix of rows of `stride` elements, from which disjoint ranges of columns are handed to threads.
#[derive(Debug)]
pub struct Columns<'a, T> {
    data: *mut T,
    rows: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: hands out disjoint parts of an exclusive borrow only, see `part`.
unsafe impl<T: Send> Sync for Columns<'_, T> {}
// SAFETY: as an exclusive borrow.
unsafe impl<T: Send> Send for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// The rows of `matrix`, `stride` elements each.
    pub fn new(matrix: &'a mut [T], stride: usize) -> Self {
        let rows = matrix.len().checked_div(stride).unwrap_or(0);
        Columns { data: matrix.as_mut_ptr(), rows, stride, matrix: PhantomData }
    }

    /// Elements of a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `len` elements of a row, from `column` on.
    ///
    /// # Panics
    /// If the part is not inside the matrix.
    ///
    /// # Safety
    /// No two live parts overlap.
    ///
    /// # Panics
    /// If the part is not inside the matrix.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, row: usize, column: usize, len: usize) -> &mut [T] {
        assert!(row < self.rows && len <= self.stride && column <= self.stride - len);
        // SAFETY: in bounds by the assertion; disjoint from other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride + column), len) }
    }
}

/// A rectangle of a matrix that its holder alone may touch.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its elements.
unsafe impl<T: Send> Send for TileMut<'_, T> {}
// SAFETY: shared references to a tile give nothing away.
unsafe impl<T: Sync> Sync for TileMut<'_, T> {}

impl<T> TileMut<'_, T> {
    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A row of the tile.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: inside the tile, which overlaps no other (see `tiles_mut`).
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.cols) }
    }
}

/// Cuts the rows of `matrix` (`stride` elements each) at the ascending row numbers `cuts`, and its first `cols * count` columns into
/// `count` equal parts. Tiles come row by row.
///
/// # Panics
/// If the cuts fall or lie outside, or the columns do not fit a row.
pub fn tiles_mut<'a, T>(matrix: &'a mut [T], stride: usize, cuts: &[usize], cols: usize, count: usize) -> Vec<TileMut<'a, T>> {
    let rows = matrix.len().checked_div(stride).unwrap_or(0);
    assert!(cols.checked_mul(count).is_some_and(|c| c <= stride) && cuts.is_sorted() && cuts.last().is_none_or(|&last| last <= rows));
    let data = matrix.as_mut_ptr();
    let mut tiles = Vec::with_capacity(cuts.len() * count);
    for pair in cuts.windows(2) {
        for part in 0..count {
            // Inside the matrix by the assertion, unless the tile has no rows. Cuts ascend and parts are side by side, so no two tiles
            // overlap.
            let data = data.wrapping_add(pair[0] * stride + part * cols);
            tiles.push(TileMut { data, rows: pair[1] - pair[0], cols, stride, matrix: PhantomData });
        }
    }
    tiles
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_lies_within_the_mapping_wherever_it_starts() {
        for bytes in [HUGE_PAGE, HUGE_PAGE + 1, HUGE_PAGE + 4096, (5 << 20) + 60_000, (7 << 20) - 1] {
            let (kept, room) = extent(bytes).unwrap();
            assert!(kept >= bytes);
            for start in (0..HUGE_PAGE).step_by(4096) {
                let skip = start.next_multiple_of(HUGE_PAGE) - start;
                assert!(skip + kept <= room, "{bytes} bytes from {start}: {skip} + {kept} > {room}");
            }
        }
        assert_eq!(extent(usize::MAX), None);
        assert_eq!(extent(isize::MAX as usize), None);
    }

    /// Large vectors come and go beside others, which stay as they are: each page is touched at the end.
    #[test]
    fn neighbours_survive() {
        let mut kept: Vec<AlignedVec<u8>> = Vec::new();
        for i in 0..600 {
            // Odd sizes move the next mapping by odd numbers of pages.
            let neighbour = filled(1 + i % 17);
            drop(AlignedVec::<u8>::try_zeroed(HUGE_PAGE + 4096 * (i % 13) + 1).unwrap());
            kept.push(neighbour);
        }
        assert!(kept.iter().all(|pages| pages.iter().step_by(4096).all(|&byte| byte == 7)));
    }

    fn filled(pages: usize) -> AlignedVec<u8> {
        let mut vec = AlignedVec::zeroed(HUGE_PAGE - 4096 * pages);
        vec.fill(7);
        vec
    }
}
