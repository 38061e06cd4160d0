//! What a cache type offers to the operator, and the scratch memory of a thread.
use super::layout::Block;
use super::{CHUNK, LANES, MAX_HEAD, PageLayout, Queries, ROWS};
use fastllm_simd::Isa;

/// Scratch memory of one thread, about 45 KB, of which a call touches what its heads need.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Workspace {
    /// Scores, then probabilities, of a row tile over a chunk: `[row][key]`.
    pub(super) scores: [[f32; CHUNK]; ROWS],
    /// The tile's query rows at a constant stride, which spares the inner loop an address register per row.
    pub(super) q: [[f32; MAX_HEAD]; ROWS],
    pub(super) q_codes: [[i8; MAX_HEAD]; ROWS],
    /// `[row][channel]`: the chunk's weighted sum of values.
    pub(super) acc: [[f32; MAX_HEAD]; ROWS],
    /// Probabilities as integers of two 7-bit digits.
    pub(super) high: [[u8; CHUNK]; ROWS],
    pub(super) low: [[u8; CHUNK]; ROWS],
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace {
            scores: [[0.0; CHUNK]; ROWS],
            q: [[0.0; MAX_HEAD]; ROWS],
            q_codes: [[0; MAX_HEAD]; ROWS],
            acc: [[0.0; MAX_HEAD]; ROWS],
            high: [[0; CHUNK]; ROWS],
            low: [[0; CHUNK]; ROWS],
        }
    }
}

/// One way to store keys and values. Pages are whole: their length was checked.
pub(super) trait Cache {
    /// Zeroes all positions.
    fn clear(layout: &PageLayout, page: &mut [u8]);
    /// Writes `block` from `slot` on, within 16 slots.
    fn write<I: Isa>(isa: I, layout: &PageLayout, page: &mut [u8], slot: usize, block: Block);
    /// Reads one position back.
    fn read(layout: &PageLayout, page: &[u8], slot: usize, k: &mut [f32], v: &mut [f32]);
    /// Appends the row `q`, padded with zeros; `scale` multiplies its scores.
    fn query<I: Isa>(isa: I, layout: &PageLayout, q: &[f32], scale: f32, queries: &mut Queries);
    /// Copies rows `row .. row + rows` to the workspace.
    fn load_query(layout: &PageLayout, q: &Queries, row: usize, rows: usize, work: &mut Workspace);
    /// `scores[m][at + key] = q[row + m] . k[key]` for the 64 keys of a page; meanwhile asks for the values of the page, if `fetch`.
    fn scores<I: Isa, const M: usize>(
        isa: I,
        layout: &PageLayout,
        page: &[u8],
        fetch: bool,
        q: &Queries,
        row: usize,
        work: &mut Workspace,
        at: usize,
    );
    /// `acc[m][channel] = sum over the pages' keys of p[m][key] * v[key][channel]`; meanwhile asks for the keys of the pages `next`.
    fn values<I: Isa, const M: usize>(isa: I, layout: &PageLayout, pages: &[&[u8]], next: &[&[u8]], work: &mut Workspace);
}

/// Work that is compiled once per cache type.
pub(super) trait Visit {
    type Output;
    fn visit<C: Cache>(self) -> Self::Output;
}

/// Asks for the cache lines of `src` little by little: requests in a burst beyond the memory's rate are lost.
pub(super) struct Prefetch<'a> {
    src: &'a [u8],
    line: usize,
    first: usize,
    /// Lines per step, times 256.
    rate: usize,
}

impl<'a> Prefetch<'a> {
    /// Part `part` of `parts` of `src`, asked for in `steps` steps.
    #[inline(always)]
    pub fn new(src: &'a [u8], (part, parts): (usize, usize), steps: usize) -> Self {
        let lines = src.len() / 64;
        let (first, end) = (part * lines / parts, (part + 1) * lines / parts);
        Prefetch { src, line: first, first, rate: (256 * (end - first)).div_ceil(steps) }
    }

    /// Nothing to ask for.
    #[inline(always)]
    pub fn nothing() -> Self {
        Prefetch { src: &[], line: 0, first: 0, rate: 0 }
    }

    /// Asks for the lines of step `step`. A line beyond the end may be asked for: it is a hint.
    #[inline(always)]
    pub fn step<I: Isa>(&mut self, isa: I, step: usize) {
        let until = self.first + (((step + 1) * self.rate) >> 8);
        while self.line < until {
            isa.prefetch(self.src, 64 * self.line);
            self.line += 1;
        }
    }
}

/// 16 channels of a row from `at` on, zeros beyond its end.
#[inline(always)]
pub(super) fn channels(row: &[f32], at: usize) -> [f32; LANES] {
    let rest = &row[at..];
    if let Some(full) = rest.first_chunk::<LANES>() {
        return *full;
    }
    let mut x = [0.0; LANES];
    x[..rest.len()].copy_from_slice(rest);
    x
}

/// Whether all numbers of a row are finite.
#[inline(always)]
pub(super) fn is_finite<I: Isa>(isa: I, row: &[f32]) -> bool {
    let zero = isa.splat(0.0);
    // 0 times a finite number is 0, all else is NaN.
    let mut sum = zero;
    for at in (0..row.len()).step_by(LANES) {
        let x = channels(row, at);
        for lane in (0..LANES).step_by(I::LANES) {
            sum = isa.fma(isa.load(&x[lane..]), zero, sum);
        }
    }
    let mut lanes = [0.0; LANES];
    isa.store(sum, &mut lanes);
    let mut all = 0.0;
    for lane in 0..LANES {
        all += lanes[lane];
    }
    all == 0.0
}

/// `x` within `-limit..=limit`, 0 for NaN.
#[inline(always)]
pub(super) fn clamp<I: Isa>(isa: I, x: I::F32, limit: f32) -> I::F32 {
    let x = isa.keep_ge(x, x, x);
    isa.max(isa.min(x, isa.splat(limit)), isa.splat(-limit))
}
