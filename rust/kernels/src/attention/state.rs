//! The running triples (maximum, sum, weighted values) of query rows, and their end.
use super::{Attention, LANES, MAX_HEAD};
use fastllm_simd::math::exp2;
use fastllm_simd::{Cpu, Isa, Kernel};

/// Stands for "no key seen yet": finite, so that differences are never NaN.
pub(super) const FLOOR: f32 = -1e30;

/// The running triples of some rows. Used again and again, it stops allocating.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) max: Vec<f32>,
    pub(super) sum: Vec<f32>,
    /// Rows of `dim` floats.
    pub(super) acc: Vec<f32>,
    pub(super) dim: usize,
}

impl State {
    /// `rows` rows that have seen no key.
    pub fn reset(&mut self, attention: &Attention, rows: usize) {
        self.dim = attention.layout.padded_v();
        self.max.clear();
        self.max.resize(rows, FLOOR);
        self.sum.clear();
        self.sum.resize(rows, 0.0);
        self.acc.clear();
        self.acc.resize(rows * self.dim, 0.0);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.max.len()
    }

    /// Folds in the triples of the chunk that follows, computed on its own. To get the bits of the undivided context, every chunk must
    /// be folded by itself, from the left.
    ///
    /// # Panics
    /// If `part` has other rows.
    pub fn fold(&mut self, cpu: Cpu, part: &State) {
        assert!(self.rows() == part.rows() && self.dim == part.dim, "states of different shape");
        cpu.run(Fold { state: self, part });
    }

    /// Writes the result of row `row` (`dim_v` floats): the weighted sum of values, divided by the sum of exponentials. `sink` is one more
    /// logit, without a value. A row that saw no key at all, or a score that is not finite, is NaN.
    ///
    /// # Panics
    /// If there is no such row, or `out` is longer than the rows.
    pub fn finish(&self, cpu: Cpu, row: usize, sink: Option<f32>, out: &mut [f32]) {
        assert!(row < self.rows() && out.len() <= self.dim && self.dim <= MAX_HEAD);
        cpu.run(Finish { state: self, row, sink, out });
    }

    #[inline(always)]
    pub(super) fn triple(&mut self, row: usize) -> (&mut f32, &mut f32, &mut [f32]) {
        (&mut self.max[row], &mut self.sum[row], &mut self.acc[row * self.dim..][..self.dim])
    }
}

/// `(max, sum, acc)` of two disjoint sets of keys to that of both.
#[inline(always)]
pub(super) fn fold<I: Isa>(isa: I, (max, sum, acc): (&mut f32, &mut f32, &mut [f32]), (part_max, part_sum, part_acc): (f32, f32, &[f32])) {
    let top = if part_max > *max { part_max } else { *max };
    let a = exp2(isa, isa.splat(*max - top));
    let b = exp2(isa, isa.splat(part_max - top));
    let mut lanes = [0.0; LANES];
    isa.store(isa.fma(isa.splat(*sum), a, isa.mul(isa.splat(part_sum), b)), &mut lanes);
    (*max, *sum) = (top, lanes[0]);
    let part_acc = &part_acc[..acc.len()];
    for at in (0..acc.len()).step_by(I::LANES) {
        isa.store(isa.fma(isa.load(&acc[at..]), a, isa.mul(isa.load(&part_acc[at..]), b)), &mut acc[at..]);
    }
}

struct Fold<'a> {
    state: &'a mut State,
    part: &'a State,
}

impl Kernel for Fold<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (part, dim) = (self.part, self.part.dim);
        for row in 0..part.max.len() {
            fold(isa, self.state.triple(row), (part.max[row], part.sum[row], &part.acc[row * dim..][..dim]));
        }
    }
}

struct Finish<'a> {
    state: &'a State,
    row: usize,
    sink: Option<f32>,
    out: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Finish { state, row, sink, out } = self;
        let (max, mut sum, acc) = (state.max[row], state.sum[row], &state.acc[row * state.dim..][..state.dim]);
        let mut keep = isa.splat(1.0);
        if let Some(logit) = sink {
            let logit = logit * std::f32::consts::LOG2_E;
            let top = if logit > max { logit } else { max };
            keep = exp2(isa, isa.splat(max - top));
            let mut lanes = [0.0; LANES];
            isa.store(isa.fma(isa.splat(sum), keep, exp2(isa, isa.splat(logit - top))), &mut lanes);
            sum = lanes[0];
        }
        let mut result = [0.0; MAX_HEAD];
        for at in (0..acc.len()).step_by(I::LANES) {
            let x = isa.div(isa.mul(isa.load(&acc[at..]), keep), isa.splat(sum));
            // +0.0: a sum of products that underflowed has no sign.
            isa.store(isa.add(x, isa.splat(0.0)), &mut result[at..]);
        }
        // The bits of a NaN depend on the CPU.
        for i in 0..out.len() {
            out[i] = if result[i].is_nan() { f32::NAN } else { result[i] };
        }
    }
}
