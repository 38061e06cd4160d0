//! One row of a panel as floats.
use super::weight_type::WeightVisitor;
use crate::dense::Element;
use crate::format::{FileType, Format, GROUP};
use fastllm_simd::{ROWS, Scalar};

/// One row of a panel as floats.
pub(super) struct Row<'a> {
    pub panel: &'a [u8],
    /// Which of the 16.
    pub lane: usize,
    pub out: &'a mut [f32],
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
