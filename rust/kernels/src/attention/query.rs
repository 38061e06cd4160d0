//! Query rows in the form that the scores of a cache type want.
use super::Attention;
use super::cache::{Cache, Visit};
use fastllm_simd::{Cpu, Isa, Kernel};

/// The query rows of one sequence that share a KV head, with their positions. Used again and again, it stops allocating.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    /// Dense caches: rows of padded `dim_k`, scaled.
    pub(super) values: Vec<f32>,
    /// 8-bit caches: rows of padded `dim_k`; per group a scale and the sum of codes.
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<i32>,
    pub(super) positions: Vec<usize>,
}

impl Queries {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.values.clear();
        self.codes.clear();
        self.scales.clear();
        self.sums.clear();
        self.positions.clear();
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The position of each row.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Adds a row of `dim_k` floats. All rows since [`Queries::clear`] belong to the same `attention`, and positions never fall.
    ///
    /// # Panics
    /// If `q` is not `dim_k` long, or `position` lies before that of the last row.
    pub fn push(&mut self, cpu: Cpu, attention: &Attention, q: &[f32], position: usize) {
        assert!(q.len() == attention.layout.dim_k(), "a query of {} channels for keys of {}", q.len(), attention.layout.dim_k());
        assert!(self.positions.last().is_none_or(|&last| last <= position), "query positions must not fall");
        self.positions.push(position);
        cpu.run(Push { attention, q, queries: self });
    }
}

struct Push<'a> {
    attention: &'a Attention,
    q: &'a [f32],
    queries: &'a mut Queries,
}

impl Kernel for Push<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.attention.layout.cache_type().visit((isa, self));
    }
}

impl<I: Isa> Visit for (I, Push<'_>) {
    type Output = ();
    #[inline(always)]
    fn visit<C: Cache>(self) {
        let (isa, push) = self;
        C::query(isa, &push.attention.layout, push.q, push.attention.query_scale(), push.queries);
    }
}
