//! The operator: chunks to triples, folded from the left.
use super::cache::{Cache, Visit};
use super::state::{FLOOR, fold};
use super::{Attention, CHUNK, LANES, PAGE, Queries, ROWS, State, Workspace};
use crate::rms_norm::tree_sum;
use fastllm_simd::math::{exp2_many, tanh};
use fastllm_simd::{Cpu, Isa, Kernel};
use std::ops::Range;

/// The score of a key that a row does not see: below everything, and finite.
const MASKED: f32 = f32::MIN;

/// Query rows against chunks of their sequence, folded into `state`.
pub struct Attend<'a> {
    /// What to compute.
    pub attention: &'a Attention,
    /// The pages of the KV head, in the order of positions.
    pub pages: &'a [&'a [u8]],
    /// The first page holds positions from `64 * first_page` on. Pages that no row sees (see [`Attention::first_page`]) may be absent.
    pub first_page: usize,
    /// Pages that this thread reads next, whose keys are to be prefetched; may be empty.
    pub after: &'a [&'a [u8]],
    /// The query rows.
    pub queries: &'a Queries,
    /// Those to compute.
    pub rows: Range<usize>,
    /// Those chunks of the context that shall be seen: for all of it, any range that holds [`Attention::chunks`].
    pub chunks: Range<usize>,
    /// As many rows as `rows`.
    pub state: &'a mut State,
    /// Scratch memory of this thread.
    pub work: &'a mut Workspace,
}

/// Runs `job`.
///
/// # Panics
/// If a page that some row sees is absent, or `state` does not fit `rows`, or a page does not fit the layout.
pub fn attend(cpu: Cpu, job: Attend) {
    let dim = job.attention.layout.padded_v();
    assert!(job.state.rows() == job.rows.len() && job.state.dim == dim, "a state of other rows");
    assert!(job.rows.end <= job.queries.len(), "rows {:?} of {}", job.rows, job.queries.len());
    cpu.run(job);
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.attention.layout.cache_type().visit((isa, self));
    }
}

impl<I: Isa> Visit for (I, Attend<'_>) {
    type Output = ();
    #[inline(always)]
    fn visit<C: Cache>(self) {
        let (isa, mut job) = self;
        let (start, end) = (job.rows.start, job.rows.end);
        if start == end {
            return;
        }
        let seen = job.attention.chunks(job.queries.positions[start], job.queries.positions[end - 1]);
        for chunk in job.chunks.start.max(seen.start)..job.chunks.end.min(seen.end) {
            let mut row = start;
            while row < end {
                row += if I::TILE == 1 {
                    // The reference gains nothing from taller tiles, and they take the compiler minutes.
                    job.tile::<C, I, 1>(isa, chunk, row)
                } else {
                    job.tallest_tile::<C, I>(isa, chunk, row, end - row)
                };
            }
        }
    }
}

impl Attend<'_> {
    /// The next tile of `rest` rows that are left; returns its height.
    #[inline(always)]
    fn tallest_tile<C: Cache, I: Isa>(&mut self, isa: I, chunk: usize, row: usize, rest: usize) -> usize {
        // Tiles of nearly equal height: 8 rows are 4 + 4, not 6 + 2. To spare the code of a tile of 5, 5 rows are 3 + 2, and 10 are 6 + 4.
        match (rest.div_ceil(rest.div_ceil(ROWS)), rest) {
            (1, _) => self.tile::<C, I, 1>(isa, chunk, row),
            (2, _) => self.tile::<C, I, 2>(isa, chunk, row),
            (3, _) | (5, 5) => self.tile::<C, I, 3>(isa, chunk, row),
            (4, _) => self.tile::<C, I, 4>(isa, chunk, row),
            _ => self.tile::<C, I, 6>(isa, chunk, row),
        }
    }

    /// One row tile, one chunk; returns `M`.
    #[inline(always)]
    fn tile<C: Cache, I: Isa, const M: usize>(&mut self, isa: I, chunk: usize, row: usize) -> usize {
        let layout = &self.attention.layout;
        let positions = &self.queries.positions[row..row + M];
        let (first, last) = (positions[0], positions[M - 1]);
        // Pages of the chunk that some row sees. Keys masked in all rows change nothing, so skipping them changes nothing.
        let begin = self.attention.first_page(first).max(chunk * CHUNK / PAGE);
        let end = (last / PAGE + 1).min((chunk + 1) * CHUNK / PAGE);
        if begin >= end {
            return M;
        }
        assert!(self.first_page <= begin && end - self.first_page <= self.pages.len(), "pages {begin}..{end} are absent");
        let pages = &self.pages[begin - self.first_page..end - self.first_page];
        // The first row tile asks for what comes next: values while it reads keys, the next chunk's keys while it reads values.
        let fetch = row == self.rows.start;
        let next = if !fetch {
            &[]
        } else if chunk + 1 < self.chunks.end && end - self.first_page < self.pages.len() {
            &self.pages[end - self.first_page..(end - self.first_page + CHUNK / PAGE).min(self.pages.len())]
        } else {
            self.after
        };
        let keys = pages.len() * PAGE;
        C::load_query(layout, self.queries, row, M, self.work);
        for i in 0..pages.len() {
            assert!(pages[i].len() == layout.bytes(), "a page of {} bytes, not {}", pages[i].len(), layout.bytes());
            C::scores::<I, M>(isa, layout, pages[i], fetch, self.queries, row, self.work, i * PAGE);
        }
        // The maxima of all rows first: the exponentials of one would wait for its own.
        let (mut max, mut sum, mut poison) = ([0.0; M], [0.0; M], [isa.splat(0.0); M]);
        for m in 0..M {
            let base = begin * PAGE;
            let low = self.attention.first_seen(positions[m]).saturating_sub(base).min(keys);
            let high = (positions[m] + 1).saturating_sub(base).min(keys);
            (max[m], poison[m]) = peak(isa, &mut self.work.scores[m][..keys], low..high.max(low), self.attention.softcap);
        }
        for m in 0..M {
            sum[m] = exponentials(isa, &mut self.work.scores[m][..keys], max[m], poison[m]);
        }
        C::values::<I, M>(isa, layout, pages, next, self.work);
        for m in 0..M {
            let dim = layout.padded_v();
            fold(isa, self.state.triple(row - self.rows.start + m), (max[m], sum[m], &self.work.acc[m][..dim]));
        }
        M
    }
}

/// Scores (log2 units, or units of the cap) to log2 units, below everything outside `valid`; returns the maximum, and zeros, which are NaN
/// if a score inside is not finite.
#[inline(always)]
fn peak<I: Isa>(isa: I, scores: &mut [f32], valid: Range<usize>, softcap: Option<f32>) -> (f32, I::F32) {
    let (keys, zero) = (scores.len(), isa.splat(0.0));
    if let Some(cap) = softcap {
        let cap = isa.splat(cap * std::f32::consts::LOG2_E);
        for at in (0..keys).step_by(I::LANES) {
            let s = isa.load(&scores[at..]);
            // Plus 0 times the score: tanh has a value for NaN and infinity.
            isa.store(isa.fma(s, zero, isa.mul(tanh(isa, s), cap)), &mut scores[at..]);
        }
    }
    if valid.start > 0 || valid.end < keys {
        scores[..valid.start].fill(MASKED);
        scores[valid.end..].fill(MASKED);
    }
    let mut most = [isa.splat(FLOOR); 4];
    let mut poison = [zero; 4];
    for at in (0..keys).step_by(4 * I::LANES) {
        for t in 0..4 {
            let s = isa.load(&scores[at + t * I::LANES..]);
            // In this order the maximum passes over NaN.
            most[t] = isa.max(s, most[t]);
            poison[t] = isa.fma(s, zero, poison[t]);
        }
    }
    let max = isa.reduce_max(isa.max(isa.max(most[0], most[1]), isa.max(most[2], most[3])));
    (max, isa.add(isa.add(poison[0], poison[1]), isa.add(poison[2], poison[3])))
}

/// Scores to `2^(score - max)`; returns their sum and that of `poison`.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, scores: &mut [f32], max: f32, poison: I::F32) -> f32 {
    let (mut sums, top) = ([poison, isa.splat(0.0)], isa.splat(max));
    for at in (0..scores.len()).step_by(4 * I::LANES) {
        let mut p = [top; 4];
        for t in 0..4 {
            p[t] = isa.sub(isa.load(&scores[at + t * I::LANES..]), top);
        }
        p = exp2_many(isa, p);
        for t in 0..4 {
            isa.store(p[t], &mut scores[at + t * I::LANES..]);
            // Sums of 16 lanes, whatever the instruction set.
            let lane = t % (LANES / I::LANES);
            sums[lane] = isa.add(sums[lane], p[t]);
        }
    }
    let mut lanes = [0.0; LANES];
    for t in 0..LANES / I::LANES {
        isa.store(sums[t], &mut lanes[t * I::LANES..]);
    }
    tree_sum(&lanes)
}
