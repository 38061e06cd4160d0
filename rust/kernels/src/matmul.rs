//! One matrix multiplication for every format, instruction set and number of tokens.
//!
//! `y[token][row] = sum over blocks of 256 columns of  d * sum_g xscale[g] * scale * <code - zero, q> - dmin * minunit * <min, sums>`
//! where the integer parts are exact (NVFP4's scales of runs are floats) and the float operations have one order, that of the columns.
use crate::activation::{Block, SUPER};
use crate::format::{Bytes, Format, GROUP, bytes};
use fastllm_simd::{Isa, ROWS};

/// Codes of a group, found in a packed block or unpacked before.
pub trait Codes<F: Format>: Copy {
    /// Whether the panel comes from memory, rather than from a cache.
    const STREAMED: bool;
    /// The 32 columns of group `group` of `block`, which is group `index` of the panel.
    fn get<I: Isa>(self, isa: I, block: &F::Block, row: usize, group: usize, index: usize) -> [I::U8; 8];
}

/// Unpacks when needed.
#[derive(Clone, Copy)]
pub struct Packed;

impl<F: Format> Codes<F> for Packed {
    const STREAMED: bool = true;
    #[inline(always)]
    fn get<I: Isa>(self, isa: I, block: &F::Block, row: usize, group: usize, _: usize) -> [I::U8; 8] {
        F::codes(isa, block, row, group)
    }
}

/// The codes of a panel, unpacked for many tokens.
#[derive(Clone, Copy)]
pub struct Unpacked<'a>(pub &'a [Bytes]);

impl<F: Format> Codes<F> for Unpacked<'_> {
    const STREAMED: bool = false;
    #[inline(always)]
    fn get<I: Isa>(self, isa: I, _: &F::Block, row: usize, _: usize, index: usize) -> [I::U8; 8] {
        bytes(isa, &self.0[index].0, row)
    }
}

/// `ROWS / LANES` of the narrowest instruction set.
const MAX_PARTS: usize = 2;

/// Products of a panel with `N` of the `W` tokens of a tile, from token `first` of the tile on.
///
/// # Panics
/// If the tile has fewer tokens or columns.
#[inline(always)]
pub fn tile<F: Format, I: Isa, C: Codes<F>, const W: usize, const N: usize>(
    isa: I,
    panel: &[F::Block],
    codes: C,
    x: &[Block],
    first: usize,
) -> [[f32; ROWS]; N] {
    let parts = ROWS / I::LANES;
    let groups = F::COLS / GROUP;
    let x = x.as_chunks::<W>().0;
    assert!(parts <= MAX_PARTS && first + N <= W);
    let mut y = [[isa.splat(0.0); N]; MAX_PARTS];
    let bytes: &[u8] = bytemuck::cast_slice(panel);
    for (s, blocks) in panel.chunks(SUPER / F::COLS).enumerate() {
        let x: &[Block; N] = x[s][first..].first_chunk().expect("a tile holds N tokens from `first` on");
        for p in 0..parts {
            let row = p * I::LANES;
            let mut part = [isa.splat(0.0); N];
            for (b, block) in blocks.iter().enumerate() {
                let mut acc = [isa.splat(0.0); N];
                for group in 0..groups {
                    let at = b * groups + group;
                    if C::STREAMED && p == 0 {
                        prefetch::<F, I>(isa, bytes, s * SUPER / GROUP + at);
                    }
                    let codes = codes.get(isa, block, row, group, s * SUPER / GROUP + at);
                    let dot = group_dot::<F, I, N>(isa, block, row, group, &codes, x, at);
                    for t in 0..N {
                        acc[t] = isa.fma(dot[t], isa.splat(x[t].scale[at]), acc[t]);
                    }
                }
                let d = F::d(isa, block, row);
                for t in 0..N {
                    part[t] = isa.fma(acc[t], d, part[t]);
                }
                if F::MIN_RUN != 0 {
                    subtract_mins::<F, I, N>(isa, block, row, x, &mut part);
                }
                if F::OFFSET {
                    let m = F::m(isa, block, row);
                    for t in 0..N {
                        part[t] = isa.fma(m, isa.splat(x[t].scaled_sums[b]), part[t]);
                    }
                }
            }
            for t in 0..N {
                y[p][t] = isa.add(y[p][t], part[t]);
            }
        }
    }
    let mut out = [[0.0; ROWS]; N];
    for p in 0..parts {
        for t in 0..N {
            isa.store(y[p][t], &mut out[t][p * I::LANES..]);
        }
    }
    out
}

/// Bytes between a read and the prefetch that serves it.
const AHEAD: usize = 2048;

/// Asks for the bytes of one group, `AHEAD` bytes further on: also across the end of the panel, where the next one starts. Spread over
/// the groups, since requests in bursts are lost. The hardware's own prefetcher stops at the end of a page.
#[inline(always)]
fn prefetch<F: Format, I: Isa>(isa: I, panel: &[u8], group: usize) {
    let per_group = size_of::<F::Block>() * GROUP / F::COLS;
    let mut line = (group * per_group).next_multiple_of(64);
    while line < (group + 1) * per_group {
        isa.prefetch(panel, line + AHEAD);
        line += 64;
    }
}

/// The 32 columns of a group times the activations, with the scales of its runs: where these are integers, an exact integer below 2^24.
#[inline(always)]
fn group_dot<F: Format, I: Isa, const N: usize>(
    isa: I,
    block: &F::Block,
    row: usize,
    group: usize,
    codes: &[I::U8; 8],
    x: &[Block; N],
    at: usize,
) -> [I::F32; N] {
    let mut q: [&[i8]; N] = [&[]; N];
    let mut sums = [0; N];
    for t in 0..N {
        q[t] = &x[t].q[at];
        sums[t] = x[t].sums[at];
    }
    let mut out = [isa.splat(0.0); N];
    if F::SCALE_RUN == 0 && !F::FLOAT_SCALES {
        let dot = isa.dot(codes, &q, &sums, F::RANGE);
        for t in 0..N {
            out[t] = isa.to_f32(dot[t]);
        }
        return out;
    }
    let mut acc = [isa.zero_sum(); N];
    if F::SCALE_RUN == GROUP {
        acc = isa.dot_scaled(acc, codes, &q, &sums, F::RANGE, F::scale(isa, block, row, group));
    } else {
        for half in 0..2 {
            for t in 0..N {
                q[t] = &x[t].q[at][16 * half..][..16];
                sums[t] = x[t].half_sums[at][half];
            }
            let (codes, run) = (&codes[4 * half..][..4], 2 * group + half);
            if F::FLOAT_SCALES {
                let dot = isa.dot(codes, &q, &sums, F::RANGE);
                let scale = F::float_scale(isa, block, row, run);
                for t in 0..N {
                    out[t] = isa.fma(isa.to_f32(dot[t]), scale, out[t]);
                }
            } else {
                acc = isa.dot_scaled(acc, codes, &q, &sums, F::RANGE, F::scale(isa, block, row, run));
            }
        }
    }
    if !F::FLOAT_SCALES {
        for t in 0..N {
            out[t] = isa.sum_to_f32(acc[t]);
        }
    }
    out
}

#[inline(always)]
fn subtract_mins<F: Format, I: Isa, const N: usize>(isa: I, block: &F::Block, row: usize, x: &[Block; N], part: &mut [I::F32; N]) {
    let mut acc = [isa.zero(); N];
    for pair in 0..F::COLS / F::MIN_RUN / 2 {
        let mins = F::mins(isa, block, row, pair);
        for t in 0..N {
            acc[t] = isa.dot_pair(acc[t], mins, if F::MIN_RUN == GROUP { x[t].min_sums[pair] } else { x[t].min_half_sums[pair] });
        }
    }
    let dmin = isa.mul(F::m(isa, block, row), isa.splat(-1.0));
    for t in 0..N {
        part[t] = isa.fma(isa.to_f32(acc[t]), isa.mul(dmin, isa.splat(x[t].min_unit)), part[t]);
    }
}

/// Writes the codes of a panel as bytes, to be used for many tokens.
#[inline(always)]
pub fn unpack<F: Format, I: Isa>(isa: I, panel: &[F::Block], codes: &mut [Bytes]) {
    let groups = F::COLS / GROUP;
    for (b, block) in panel.iter().enumerate() {
        for group in 0..groups {
            let out = &mut codes[b * groups + group].0;
            for row in (0..ROWS).step_by(I::LANES) {
                let codes = F::codes(isa, block, row, group);
                for j in 0..8 {
                    isa.store_u8(codes[j], &mut out[j], row);
                }
            }
        }
    }
}
