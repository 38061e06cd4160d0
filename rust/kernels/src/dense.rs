//! Weights kept as floats: panels of 16 rows, column by column.
use crate::activation::dense_cols;
use bytemuck::Pod;
use fastllm_simd::half::{bf16_to_f32, f16_to_f32};
use fastllm_simd::{Isa, ROWS};

/// How a float is stored.
pub trait Element: Copy + Send + Sync + 'static {
    /// The stored bits.
    type Bits: Pod + Send + Sync;
    /// Loads a vector.
    fn load<I: Isa>(isa: I, src: &[Self::Bits]) -> I::F32;
    /// The value of one number.
    fn decode(x: Self::Bits) -> f32;
}

/// IEEE 754 binary32.
#[derive(Clone, Copy)]
pub struct F32;
/// IEEE 754 binary16.
#[derive(Clone, Copy)]
pub struct F16;
/// The upper half of binary32.
#[derive(Clone, Copy)]
pub struct Bf16;

impl Element for F32 {
    type Bits = f32;
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[f32]) -> I::F32 {
        isa.load(src)
    }
    fn decode(x: f32) -> f32 {
        x
    }
}

impl Element for F16 {
    type Bits = u16;
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[u16]) -> I::F32 {
        isa.load_f16(src)
    }
    fn decode(x: u16) -> f32 {
        f16_to_f32(x)
    }
}

impl Element for Bf16 {
    type Bits = u16;
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[u16]) -> I::F32 {
        isa.load_bf16(src)
    }
    fn decode(x: u16) -> f32 {
        bf16_to_f32(x)
    }
}

/// Elements of a panel of `cols` columns.
pub fn panel_len(cols: usize) -> usize {
    dense_cols(cols) * ROWS
}

/// Writes 16 rows of `cols` elements, `rows[row]` in file order, to a panel; missing rows stay zero.
pub fn pack<E: Element>(rows: &[&[E::Bits]], panel: &mut [E::Bits]) {
    for (row, src) in rows.iter().enumerate() {
        for (x, dst) in src.iter().zip(panel[row..].iter_mut().step_by(ROWS)) {
            *dst = *x;
        }
    }
}

/// `y[token][row] = sum_k w[row][k] x[token][k]` for `N` of the `W` tokens of a tile. Even and odd columns are summed in two chains of
/// fused multiply-adds, which are added at the end: the order depends on nothing else.
///
/// # Panics
/// If the panel and the tile have different columns.
#[inline(always)]
pub fn tile<E: Element, I: Isa, const W: usize, const N: usize>(isa: I, panel: &[E::Bits], x: &[f32], first: usize) -> [[f32; ROWS]; N] {
    let mut out = [[0.0; ROWS]; N];
    let (panel, x) = (panel.as_chunks::<{ 2 * ROWS }>().0, x.as_chunks::<W>().0.as_chunks::<2>().0);
    assert!(first + N <= W && panel.len() == x.len());
    for row in (0..ROWS).step_by(I::LANES) {
        let (mut even, mut odd) = ([isa.splat(0.0); N], [isa.splat(0.0); N]);
        for k in 0..panel.len() {
            let (w, x) = (&panel[k], &x[k]);
            let (a, b) = (E::load(isa, &w[row..]), E::load(isa, &w[ROWS + row..]));
            for t in 0..N {
                even[t] = isa.fma(a, isa.splat(x[0][first + t]), even[t]);
                odd[t] = isa.fma(b, isa.splat(x[1][first + t]), odd[t]);
            }
        }
        for t in 0..N {
            isa.store(isa.add(even[t], odd[t]), &mut out[t][row..]);
        }
    }
    out
}
