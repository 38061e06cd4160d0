//! The bytes of a page: keys, key scales, values, value scales, each part a multiple of 64 bytes.
use super::cache::{Cache, Visit};
use super::dense::{Dense, F16, F32};
use super::q8_0::Q8;
use super::{LANES, MAX_HEAD, PAGE};
use fastllm_simd::{Cpu, Isa, Kernel};
use std::ops::Range;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// Half precision; numbers beyond its range saturate.
    F16,
    /// 8 bits with a half-precision scale: for keys one per 32 channels (16 where 32 does not divide the head), for values one per
    /// position.
    Q8_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Q8_0];

    /// The name users write: `f32`, `f16`, `q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// The type called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<CacheType> {
        CacheType::ALL.into_iter().find(|cache_type| cache_type.name() == name)
    }

    /// The one place where a cache type becomes a Rust type.
    #[inline(always)]
    pub(super) fn visit<V: Visit>(self, visitor: V) -> V::Output {
        match self {
            CacheType::F32 => visitor.visit::<Dense<F32>>(),
            CacheType::F16 => visitor.visit::<Dense<F16>>(),
            CacheType::Q8_0 => visitor.visit::<Q8>(),
        }
    }
}

/// A head that no page can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a KV cache holds heads of 1 to {MAX_HEAD} channels, not {dim_k} (keys) and {dim_v} (values)")]
pub struct LayoutError {
    /// Channels of a key.
    pub dim_k: usize,
    /// Channels of a value.
    pub dim_v: usize,
}

/// Rows of floats at a constant distance: row `i` starts at `data[i * stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The first row and all that follows.
    pub data: &'a [f32],
    /// Floats from one row to the next.
    pub stride: usize,
}

impl<'a> Strided<'a> {
    #[inline(always)]
    pub(super) fn row(self, i: usize, dim: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..dim]
    }
}

/// Where everything lies in a page: 64 consecutive positions of one KV head of one layer.
///
/// Pages are slices of exactly [`PageLayout::bytes`] bytes that start at a multiple of 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    cache_type: CacheType,
    dim_k: usize,
    dim_v: usize,
    /// Channels that share a key scale.
    pub(super) group: usize,
    key_scales: usize,
    values: usize,
    value_scales: usize,
    bytes: usize,
}

impl PageLayout {
    /// The layout for keys of `dim_k` and values of `dim_v` channels, any numbers from 1 to [`MAX_HEAD`].
    ///
    /// # Errors
    /// If a head is empty or wider than [`MAX_HEAD`].
    pub fn new(cache_type: CacheType, dim_k: usize, dim_v: usize) -> Result<Self, LayoutError> {
        if !(1..=MAX_HEAD).contains(&dim_k) || !(1..=MAX_HEAD).contains(&dim_v) {
            return Err(LayoutError { dim_k, dim_v });
        }
        let (k, v) = (dim_k.next_multiple_of(LANES), dim_v.next_multiple_of(LANES));
        let group = if k.is_multiple_of(32) { 32 } else { 16 };
        // Bytes of a position: keys, key scales, values, value scales.
        let parts = match cache_type {
            CacheType::F32 => [4 * dim_k, 0, 4 * v, 0],
            CacheType::F16 => [2 * dim_k, 0, 2 * v, 0],
            CacheType::Q8_0 => [k, 2 * (k / group), v, 2],
        };
        let key_scales = PAGE * parts[0];
        let values = key_scales + PAGE * parts[1];
        let value_scales = values + PAGE * parts[2];
        Ok(PageLayout { cache_type, dim_k, dim_v, group, key_scales, values, value_scales, bytes: value_scales + PAGE * parts[3] })
    }

    /// How numbers are stored.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Channels of a key.
    #[inline(always)]
    pub fn dim_k(&self) -> usize {
        self.dim_k
    }

    /// Channels of a value.
    #[inline(always)]
    pub fn dim_v(&self) -> usize {
        self.dim_v
    }

    /// Bytes of a page: a multiple of 64.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of a position.
    pub fn bytes_per_position(&self) -> usize {
        self.bytes / PAGE
    }

    /// Channels of a key with padding.
    #[inline(always)]
    pub(super) fn padded_k(&self) -> usize {
        self.dim_k.next_multiple_of(LANES)
    }

    /// Channels of a value with padding.
    #[inline(always)]
    pub(super) fn padded_v(&self) -> usize {
        self.dim_v.next_multiple_of(LANES)
    }

    #[inline(always)]
    pub(super) fn keys(&self) -> Range<usize> {
        0..self.key_scales
    }

    #[inline(always)]
    pub(super) fn key_scales(&self) -> Range<usize> {
        self.key_scales..self.values
    }

    #[inline(always)]
    pub(super) fn values(&self) -> Range<usize> {
        self.values..self.value_scales
    }

    #[inline(always)]
    pub(super) fn value_scales(&self) -> Range<usize> {
        self.value_scales..self.bytes
    }

    /// Keys with their scales: what to prefetch before computing scores.
    #[inline(always)]
    pub(super) fn key_half(&self) -> Range<usize> {
        0..self.values
    }

    /// Values with their scales: what to prefetch before weighing values.
    #[inline(always)]
    pub(super) fn value_half(&self) -> Range<usize> {
        self.values..self.bytes
    }

    /// Makes all positions of `page` zero. Needed before the first [`PageLayout::write`], also when a page is used again: the operator
    /// reads positions that nobody sees, and only asks that they be finite.
    ///
    /// # Panics
    /// If `page` is not [`PageLayout::bytes`] long.
    pub fn clear(&self, page: &mut [u8]) {
        assert!(page.len() == self.bytes, "a page of {} bytes, not {}", page.len(), self.bytes);
        self.cache_type.visit(Clear { layout: self, page });
    }

    /// Writes `count` positions from slot `first` on: their keys are rows of `dim_k` floats, their values rows of `dim_v`.
    ///
    /// Finite numbers beyond the range of the type saturate. A position with a number that is not finite gives NaN scores.
    ///
    /// # Panics
    /// If the slots are not in the page, the rows are not in the slices, or `page` is not a page.
    pub fn write(&self, cpu: Cpu, page: &mut [u8], first: usize, count: usize, k: Strided, v: Strided) {
        assert!(page.len() == self.bytes, "a page of {} bytes, not {}", page.len(), self.bytes);
        assert!(first <= PAGE && count <= PAGE - first, "slots {first}..{first} + {count} of a page of {PAGE}");
        cpu.run(Write { layout: self, page, slots: first..first + count, k, v });
    }

    /// Reads one position back as floats, without padding.
    ///
    /// # Panics
    /// If `slot` is not in the page, `k` is not `dim_k` or `v` not `dim_v` long, or `page` is not a page.
    pub fn read(&self, page: &[u8], slot: usize, k: &mut [f32], v: &mut [f32]) {
        assert!(page.len() == self.bytes && slot < PAGE && k.len() == self.dim_k && v.len() == self.dim_v);
        self.cache_type.visit(Read { layout: self, page, slot, k, v });
    }
}

struct Clear<'a> {
    layout: &'a PageLayout,
    page: &'a mut [u8],
}

impl Visit for Clear<'_> {
    type Output = ();
    fn visit<C: Cache>(self) {
        C::clear(self.layout, self.page);
    }
}

struct Read<'a> {
    layout: &'a PageLayout,
    page: &'a [u8],
    slot: usize,
    k: &'a mut [f32],
    v: &'a mut [f32],
}

impl Visit for Read<'_> {
    type Output = ();
    fn visit<C: Cache>(self) {
        C::read(self.layout, self.page, self.slot, self.k, self.v);
    }
}

struct Write<'a> {
    layout: &'a PageLayout,
    page: &'a mut [u8],
    slots: Range<usize>,
    k: Strided<'a>,
    v: Strided<'a>,
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.layout.cache_type.visit((isa, self));
    }
}

impl<I: Isa> Visit for (I, Write<'_>) {
    type Output = ();
    #[inline(always)]
    fn visit<C: Cache>(self) {
        let (isa, write) = self;
        let (mut slot, mut row) = (write.slots.start, 0);
        // Blocks that do not cross a multiple of 16 slots.
        while slot < write.slots.end {
            let count = (LANES - slot % LANES).min(write.slots.end - slot);
            C::write(isa, write.layout, write.page, slot, Block { k: write.k, v: write.v, row, count });
            (slot, row) = (slot + count, row + count);
        }
    }
}

/// Up to 16 positions to write: rows `row .. row + count` of `k` and `v`.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub k: Strided<'a>,
    pub v: Strided<'a>,
    pub row: usize,
    pub count: usize,
}
