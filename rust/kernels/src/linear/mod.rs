//! Weight matrices in memory: packing, products with activations, single rows.
mod multiply;
mod pack;
mod row;
mod storage;
mod weight_type;

pub use multiply::{Product, Scratch, UNPACKED_TILED, multiply};
pub use pack::PackError;
pub use storage::LAYOUT_VERSION;
pub use weight_type::WeightType;

use fastllm_simd::ROWS;
use row::Row;
use storage::Storage;

/// One or several (experts) weight matrices of the same shape, packed.
#[derive(Debug)]
pub struct Linear {
    kind: WeightType,
    rows: usize,
    cols: usize,
    matrices: usize,
    data: Storage,
    /// One for each matrix, unless they are all 1.
    factors: Vec<f32>,
}

impl Linear {
    /// Bytes in memory of `matrices` matrices of `rows` x `cols`, if that is a number.
    pub fn bytes_for(kind: WeightType, rows: usize, cols: usize, matrices: usize) -> Option<usize> {
        let panels = rows.div_ceil(ROWS).checked_mul(matrices)?;
        // Twice the columns times 16 rows of 4 bytes is more than any panel has.
        cols.checked_mul(128)?;
        panels.checked_mul(kind.panel_bytes(cols))
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
        &self.data.bytes()[at..at + count * panel_bytes]
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
