//! One matrix multiplication for every format, instruction set and number of tokens.
//!
//! `y[token][row] = sum over blocks of 256 columns of  d * sum_g xscale[g] * scale * <code - zero, q> - dmin * minunit * <min, sums>`
//! where the integer parts are exact (NVFP4's scales of runs are floats) and the float operations have one order, that of the columns.
use crate::activation::{Block, SUPER, WIDE};
use crate::format::{Bytes, Format, GROUP, bytes};
use fastllm_simd::tiles::Configured;
use fastllm_simd::{Isa, ROWS};

/// Where the integer dot products of a superblock come from.
trait Dots<F: Format, const N: usize> {
    /// The 32 columns of group `group` of `block` times the activations' group `at`, with the scales of its runs: see [`group_dot`].
    fn group<I: Isa>(&self, isa: I, block: &F::Block, row: usize, group: usize, x: &[Block; N], at: usize) -> [I::F32; N];
}

/// Weights that stream from memory: asks for those that are read later.
#[derive(Clone, Copy)]
struct Stream<'a> {
    panel: &'a [u8],
    /// First group of the superblock in `panel`.
    first: usize,
    /// Bytes between a read and the request that serves it; 0 for no requests.
    ahead: usize,
}

impl Stream<'_> {
    /// Asks for the bytes of one group, `ahead` further on: also across the end of the panel, where the next one starts. Spread over the
    /// groups, since requests in bursts are lost. The hardware's own prefetcher stops at the end of a page.
    #[inline(always)]
    fn ask<F: Format, I: Isa>(self, isa: I, at: usize) {
        if self.ahead == 0 {
            return;
        }
        let (group, per_group) = (self.first + at, size_of::<F::Block>() * GROUP / F::COLS);
        let mut line = (group * per_group).next_multiple_of(64);
        while line < (group + 1) * per_group {
            isa.prefetch(self.panel, line + self.ahead);
            line += 64;
        }
    }
}

/// How far ahead `tokens` tokens ask for weights. The hardware keeps one token fed: on Zen 4 512 to 1024 read as fast as none or 4 % faster,
/// and 4096 10 % slower; on Sapphire Rapids it gains 14 %. With 4 or 8 tokens the hardware is too late: 213 GOP/s at 1024, 340 at 16384.
const fn ahead(tokens: usize) -> usize {
    if tokens == 1 { 1024 } else { 16384 }
}

/// Dot products of codes that are unpacked on the way.
struct Packed<'a>(Stream<'a>);

impl<F: Format, const N: usize> Dots<F, N> for Packed<'_> {
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, block: &F::Block, row: usize, group: usize, x: &[Block; N], at: usize) -> [I::F32; N] {
        if row == 0 {
            self.0.ask::<F, I>(isa, at);
        }
        group_dot::<F, I, N>(isa, block, row, group, &F::codes(isa, block, row, group), x, at)
    }
}

/// Dot products of codes that were unpacked for many tokens: those of the superblock.
struct Unpacked<'a>(&'a [Bytes], Stream<'a>);

impl<F: Format, const N: usize> Dots<F, N> for Unpacked<'_> {
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, block: &F::Block, row: usize, group: usize, x: &[Block; N], at: usize) -> [I::F32; N] {
        if row == 0 {
            self.1.ask::<F, I>(isa, at);
        }
        group_dot::<F, I, N>(isa, block, row, group, &bytes(isa, &self.0[at].0, row), x, at)
    }
}

/// Dot products that matrix tiles have computed: those of every run of the superblock, `[token][row]`.
struct Tiled<'a> {
    dots: &'a [[[i32; ROWS]; WIDE]; MAX_RUNS],
    first: usize,
}

impl Tiled<'_> {
    /// The dot products of a run with token `t`, of the rows from `row` on.
    #[inline(always)]
    fn dot<I: Isa>(&self, isa: I, run: usize, t: usize, row: usize) -> I::I32 {
        isa.load_i32(&self.dots[run][self.first + t][row..])
    }
}

impl<F: Format, const N: usize> Dots<F, N> for Tiled<'_> {
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, block: &F::Block, row: usize, group: usize, _: &[Block; N], at: usize) -> [I::F32; N] {
        let mut out = [isa.splat(0.0); N];
        for t in 0..N {
            out[t] = if F::FLOAT_SCALES {
                let (low, high) = (F::float_scale(isa, block, row, 2 * group), F::float_scale(isa, block, row, 2 * group + 1));
                let sum = isa.fma(isa.to_f32(self.dot(isa, 2 * at, t, row)), low, out[t]);
                isa.fma(isa.to_f32(self.dot(isa, 2 * at + 1, t, row)), high, sum)
            } else if F::SCALE_RUN == 0 {
                isa.to_f32(self.dot(isa, at, t, row))
            } else if F::SCALE_RUN == GROUP {
                isa.sum_to_f32(isa.add_scaled(isa.zero_sum(), self.dot(isa, at, t, row), F::scale(isa, block, row, group)))
            } else {
                let (low, high) = (F::scale(isa, block, row, 2 * group), F::scale(isa, block, row, 2 * group + 1));
                let sum = isa.add_scaled(isa.zero_sum(), self.dot(isa, 2 * at, t, row), low);
                isa.sum_to_f32(isa.add_scaled(sum, self.dot(isa, 2 * at + 1, t, row), high))
            };
        }
        out
    }
}

/// `ROWS / LANES` of the narrowest instruction set.
const MAX_PARTS: usize = 2;
/// Runs of 16 columns in a superblock.
const MAX_RUNS: usize = SUPER / 16;

/// Products of 256 columns (the last time perhaps fewer) of the rows from `row` on.
#[inline(always)]
fn superblock<F: Format, I: Isa, D: Dots<F, N>, const N: usize>(
    isa: I,
    blocks: &[F::Block],
    row: usize,
    x: &[Block; N],
    dots: &D,
) -> [I::F32; N] {
    let groups = F::COLS / GROUP;
    let mut part = [isa.splat(0.0); N];
    for (b, block) in blocks.iter().enumerate() {
        let mut acc = [isa.splat(0.0); N];
        for group in 0..groups {
            let at = b * groups + group;
            let dot = dots.group(isa, block, row, group, x, at);
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
    part
}

/// Products of a panel, as it streams from memory, with `N` tokens of a tile of `W`, from token `first` of the tile on.
///
/// # Panics
/// If the tile has fewer tokens or columns.
#[inline(always)]
pub fn narrow<F: Format, I: Isa, const W: usize, const N: usize>(
    isa: I,
    panel: &[F::Block],
    x: &[Block],
    first: usize,
) -> [[f32; ROWS]; N] {
    let x = x.as_chunks::<W>().0;
    // Another part of the tile has asked for the panel before.
    let ahead = if first == 0 { ahead(W) } else { 0 };
    let stream = Stream { panel: bytemuck::cast_slice(panel), first: 0, ahead };
    sum_superblocks::<F, I, N>(
        isa,
        panel,
        #[inline(always)]
        |s, blocks, row| {
            let x: &[Block; N] = x[s][first..].first_chunk().expect("a tile holds N tokens from `first` on");
            superblock::<F, I, _, N>(isa, blocks, row, x, &Packed(Stream { first: s * SUPER / GROUP, ..stream }))
        },
    )
}

/// Products of panels with the tokens of a wide tile, `N` at a time. `codes` are the unpacked ones of a [`Format::UNPACK`]. The `last` tile
/// asks for as many panels that follow these.
///
/// # Panics
/// If the tile has fewer tokens or columns, or `y` fewer panels.
#[inline(always)]
pub fn wide<F: Format, I: Isa, const N: usize>(
    isa: I,
    panels: Panels<'_, F>,
    codes: &[Bytes],
    x: &[Block],
    y: &mut [TileSums],
    last: bool,
) {
    let next = if last { size_of_val(panels.blocks) } else { 0 };
    take_turns::<F>(
        panels,
        x,
        y,
        #[inline(always)]
        |blocks, group, x, y| {
            for first in (0..WIDE).step_by(N) {
                let x: &[Block; N] = x[first..].first_chunk().expect("a part of a wide tile");
                let stream = Stream { panel: bytemuck::cast_slice(blocks), first: 0, ahead: if first == 0 { next } else { 0 } };
                for row in (0..ROWS).step_by(I::LANES) {
                    let part = if F::UNPACK {
                        superblock::<F, I, _, N>(isa, blocks, row, x, &Unpacked(&codes[group..], stream))
                    } else {
                        superblock::<F, I, _, N>(isa, blocks, row, x, &Packed(stream))
                    };
                    add_to(isa, &part, &mut y[first..], row);
                }
            }
        },
    );
}

/// Panels of the same number of blocks, one after the other.
#[derive(Clone, Copy)]
pub struct Panels<'a, F: Format> {
    blocks: &'a [F::Block],
    /// Blocks of a panel.
    len: usize,
}

impl<'a, F: Format> Panels<'a, F> {
    /// Panels of `cols` columns; `bytes` are theirs.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], cols: usize) -> Self {
        Panels { blocks: bytemuck::cast_slice(bytes), len: cols / F::COLS }
    }

    /// Panel `p`.
    #[inline(always)]
    pub fn panel(self, p: usize) -> &'a [F::Block] {
        &self.blocks[p * self.len..][..self.len]
    }

    /// 32-column groups of a panel.
    pub fn groups(self) -> usize {
        self.len * F::COLS / GROUP
    }
}

/// Calls `part(blocks, group, x, y)` for every superblock and panel: its blocks, its first group among those of all panels, the
/// activations of the superblock, and the panel's sums to add to. The panels take turns at every superblock, so that its activations
/// stay in the first cache. The sums of a panel are added up in the order of the columns.
#[inline(always)]
fn take_turns<F: Format>(
    panels: Panels<'_, F>,
    x: &[Block],
    y: &mut [TileSums],
    mut part: impl FnMut(&[F::Block], usize, &[Block; WIDE], &mut TileSums),
) {
    y.fill([[0.0; ROWS]; WIDE]);
    for (s, x) in x.as_chunks::<WIDE>().0.iter().enumerate() {
        let first = s * SUPER / F::COLS;
        let count = (panels.len - first).min(SUPER / F::COLS);
        for (p, y) in y.iter_mut().enumerate() {
            part(&panels.panel(p)[first..][..count], p * panels.groups() + s * SUPER / GROUP, x, y);
        }
    }
}

/// Adds the products of some tokens with the rows from `row` on.
#[inline(always)]
fn add_to<I: Isa, const N: usize>(isa: I, part: &[I::F32; N], y: &mut [[f32; ROWS]], row: usize) {
    for t in 0..N {
        let y = &mut y[t][row..];
        isa.store(isa.add(isa.load(y), part[t]), y);
    }
}

/// Adds up superblocks in their order, which depends on nothing but the number of columns.
#[inline(always)]
fn sum_superblocks<F: Format, I: Isa, const N: usize>(
    isa: I,
    panel: &[F::Block],
    part: impl Fn(usize, &[F::Block], usize) -> [I::F32; N],
) -> [[f32; ROWS]; N] {
    let parts = ROWS / I::LANES;
    assert!(parts <= MAX_PARTS);
    let mut y = [[isa.splat(0.0); N]; MAX_PARTS];
    for (s, blocks) in panel.chunks(SUPER / F::COLS).enumerate() {
        for p in 0..parts {
            let part = part(s, blocks, p * I::LANES);
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

/// Columns of a tile's dot product: those that share a scale, at most a group.
pub fn tile_columns<F: Format>() -> usize {
    if F::SCALE_RUN == GROUP / 2 || F::FLOAT_SCALES { GROUP / 2 } else { GROUP }
}

/// Sums of the products of a panel with the tokens of a wide tile: `[token][row]`.
pub type TileSums = [[f32; ROWS]; WIDE];

/// Products of panels, whose codes are unpacked as signed bytes, with the tokens of a wide tile. `tiles` are configured for
/// [`tile_columns`].
///
/// # Panics
/// If the tile has fewer tokens or columns, or `y` fewer panels.
#[inline(always)]
pub fn tiled<F: Format, I: Isa>(isa: I, tiles: &Configured, panels: Panels<'_, F>, codes: &[Bytes], x: &[Block], y: &mut [TileSums]) {
    const HALF: usize = WIDE / 2;
    let mut dots = [[[0; ROWS]; WIDE]; MAX_RUNS];
    take_turns::<F>(
        panels,
        x,
        y,
        #[inline(always)]
        |blocks, group, x, y| {
            tile_dots::<F>(tiles, &codes[group..][..blocks.len() * F::COLS / GROUP], x, &mut dots);
            for first in [0, HALF] {
                let x: &[Block; HALF] = x[first..].first_chunk().expect("half a tile");
                for row in (0..ROWS).step_by(I::LANES) {
                    let part = superblock::<F, I, _, HALF>(isa, blocks, row, x, &Tiled { dots: &dots, first });
                    add_to(isa, &part, &mut y[first..], row);
                }
            }
        },
    );
}

/// The dot products of every run of a superblock.
#[inline(always)]
fn tile_dots<F: Format>(tiles: &Configured, codes: &[Bytes], x: &[Block; WIDE], dots: &mut [[[i32; ROWS]; WIDE]; MAX_RUNS]) {
    let stride = size_of::<Block>();
    let all: &[i8] = bytemuck::cast_slice(x);
    let columns = tile_columns::<F>();
    let runs = GROUP / columns;
    for (g, codes) in codes.iter().enumerate() {
        for half in 0..runs {
            let run = g * runs + half;
            let weights = &codes.0[half * columns / 4..][..columns / 4];
            // Codes come first in a block, 32 for every group.
            let x = &all[run * columns..];
            match run % 4 {
                0 => tiles.dot::<0>(weights, x, stride, &mut dots[run]),
                1 => tiles.dot::<1>(weights, x, stride, &mut dots[run]),
                2 => tiles.dot::<2>(weights, x, stride, &mut dots[run]),
                _ => tiles.dot::<3>(weights, x, stride, &mut dots[run]),
            }
        }
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
                sums[t] = i32::from(x[t].half_sums[at][half]);
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
            acc[t] = isa.dot_pair(acc[t], mins, if F::MIN_RUN == GROUP { &x[t].min_sums[pair] } else { &x[t].min_half_sums[pair] });
        }
    }
    let dmin = isa.mul(F::m(isa, block, row), isa.splat(-1.0));
    for t in 0..N {
        part[t] = isa.fma(isa.to_f32(acc[t]), isa.mul(dmin, isa.splat(x[t].min_unit)), part[t]);
    }
}

/// Writes the codes of a panel, less `zero`, as bytes, to be used for many tokens.
#[inline(always)]
pub fn unpack<F: Format, I: Isa>(isa: I, panel: &[F::Block], zero: u8, codes: &mut [Bytes]) {
    let groups = F::COLS / GROUP;
    for (b, block) in panel.iter().enumerate() {
        for group in 0..groups {
            let out = &mut codes[b * groups + group].0;
            for row in (0..ROWS).step_by(I::LANES) {
                let codes = F::codes(isa, block, row, group);
                for j in 0..8 {
                    isa.store_u8(isa.sub_u8(codes[j], zero), &mut out[j], row);
                }
            }
        }
    }
}
