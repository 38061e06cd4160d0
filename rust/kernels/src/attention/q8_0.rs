//! 8-bit cache: exact integer dot products on both sides.
//!
//! Keys of a page: codes `k + 128` as `[padded dim_k / 4][64 keys][4]`, f16 scales `[groups][64 keys]`. Values: signed
//! `[16][padded dim_v][4 keys]`, one f16 scale per key, which is folded into the key's probability. The scaled probabilities of a row and
//! chunk become integers of two 7-bit digits relative to the largest, so that `u8 x i8` products are exact on every instruction set.
use super::cache::{Cache, Prefetch, Workspace, channels, clamp, is_finite};
use super::layout::Block;
use super::{CHUNK, LANES, MAX_HEAD, PAGE, PageLayout, Queries};
use bytemuck::{cast_slice, cast_slice_mut};
use fastllm_simd::Isa;
use fastllm_simd::half::{f16_to_f32, f32_to_f16};

/// The largest half-precision number.
const F16_MAX: f32 = 65504.0;
const F16_NAN: u16 = 0x7e00;
/// Largest integer of two 7-bit digits.
const DIGITS: f32 = 16383.0;

/// 8 bits with scales.
pub(super) struct Q8;

/// Nearest multiples of a scale, `round_scale(amax / 127)`, which is returned. NaN counts as 0, infinities as the largest floats.
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32], codes: &mut [i8], round_scale: impl Fn(f32) -> f32) -> f32 {
    let mut most = isa.splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        let x = channels(x, at);
        for lane in (0..LANES).step_by(I::LANES) {
            most = isa.max(isa.abs(clamp(isa, isa.load(&x[lane..]), f32::MAX)), most);
        }
    }
    let scale = round_scale(isa.reduce_max(most) / 127.0);
    // The inverse of a subnormal number may overflow.
    let inverse = isa.splat(if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 });
    for at in (0..codes.len()).step_by(LANES) {
        let x = channels(x, at.min(x.len()));
        for lane in (0..LANES).step_by(I::LANES) {
            let x = isa.mul(clamp(isa, isa.load(&x[lane..]), f32::MAX), inverse);
            isa.store_i8(clamp(isa, x, 127.0), &mut codes[at + lane..]);
        }
    }
    scale
}

/// Rounds a scale to what is stored.
#[inline(always)]
fn half(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(if x < F16_MAX { x } else { F16_MAX }))
}

/// The part of `row` that group `g` covers, without padding.
#[inline(always)]
fn group_of(row: &[f32], g: usize, group: usize) -> &[f32] {
    &row[(g * group).min(row.len())..((g + 1) * group).min(row.len())]
}

impl Cache for Q8 {
    fn clear(layout: &PageLayout, page: &mut [u8]) {
        page.fill(0);
        page[layout.keys()].fill(128);
    }

    #[inline(always)]
    fn write<I: Isa>(isa: I, layout: &PageLayout, page: &mut [u8], slot: usize, block: Block) {
        let Block { k, v, row, count } = block;
        let (padded_k, padded_v) = (layout.padded_k(), layout.padded_v());
        let mut codes = [0; MAX_HEAD];
        for i in 0..count {
            let (slot, key, value) = (slot + i, k.row(row + i, layout.dim_k()), v.row(row + i, layout.dim_v()));
            let scales: &mut [u16] = cast_slice_mut(&mut page[layout.key_scales()]);
            for g in 0..padded_k / layout.group {
                let codes = &mut codes[g * layout.group..][..layout.group];
                scales[g * PAGE + slot] = f32_to_f16(quantize(isa, group_of(key, g, layout.group), codes, half));
            }
            // A number that is not finite shows in the scores: values are finite, since 0 x NaN is NaN.
            if !is_finite(isa, key) || !is_finite(isa, value) {
                scales[slot] = F16_NAN;
            }
            let keys = page[layout.keys()].as_chunks_mut::<{ 4 * PAGE }>().0;
            let quads = cast_slice::<i8, u8>(&codes[..padded_k]).as_chunks::<4>().0;
            for quad in 0..quads.len() {
                // The upper bit of each byte: -128 .. 127 to 0 .. 255.
                let biased = u32::from_ne_bytes(quads[quad]) ^ 0x8080_8080;
                keys[quad][4 * slot..4 * slot + 4].copy_from_slice(&biased.to_ne_bytes());
            }
            let scale = quantize(isa, value, &mut codes[..padded_v], half);
            cast_slice_mut::<u8, u16>(&mut page[layout.value_scales()])[slot] = f32_to_f16(scale);
            let values: &mut [i8] = cast_slice_mut(&mut page[layout.values()]);
            let values = values[slot / 4 * 4 * padded_v..][..4 * padded_v].as_chunks_mut::<4>().0;
            for d in 0..padded_v {
                values[d][slot % 4] = codes[d];
            }
        }
    }

    fn read(layout: &PageLayout, page: &[u8], slot: usize, k: &mut [f32], v: &mut [f32]) {
        let scales: &[u16] = cast_slice(&page[layout.key_scales()]);
        let keys = &page[layout.keys()];
        for (d, k) in k.iter_mut().enumerate() {
            *k = f16_to_f32(scales[d / layout.group * PAGE + slot]) * (f32::from(keys[(d / 4 * PAGE + slot) * 4 + d % 4]) - 128.0);
        }
        let scale = f16_to_f32(cast_slice::<u8, u16>(&page[layout.value_scales()])[slot]);
        let values: &[i8] = cast_slice(&page[layout.values()]);
        for (d, v) in v.iter_mut().enumerate() {
            *v = scale * f32::from(values[(slot / 4 * layout.padded_v() + d) * 4 + slot % 4]);
        }
    }

    #[inline(always)]
    fn query<I: Isa>(isa: I, layout: &PageLayout, q: &[f32], scale: f32, queries: &mut Queries) {
        let start = queries.codes.len();
        queries.codes.resize(start + layout.padded_k(), 0);
        // A group whose scale is NaN makes all scores NaN.
        let poison = if is_finite(isa, q) { 0.0 } else { f32::NAN };
        for g in 0..layout.padded_k() / layout.group {
            let codes = &mut queries.codes[start + g * layout.group..][..layout.group];
            let group_scale = quantize(isa, group_of(q, g, layout.group), codes, |s| s);
            let mut sum = 0;
            for i in 0..codes.len() {
                sum += i32::from(codes[i]);
            }
            queries.scales.push(group_scale * scale + poison);
            queries.sums.push(sum);
        }
    }

    #[inline(always)]
    fn load_query(layout: &PageLayout, q: &Queries, row: usize, rows: usize, work: &mut Workspace) {
        let dim = layout.padded_k();
        for m in 0..rows {
            work.q_codes[m][..dim].copy_from_slice(&q.codes[(row + m) * dim..][..dim]);
        }
    }

    #[inline(always)]
    fn scores<I: Isa, const M: usize>(
        isa: I,
        layout: &PageLayout,
        page: &[u8],
        fetch: bool,
        q: &Queries,
        row: usize,
        work: &mut Workspace,
        at: usize,
    ) {
        let job = |first| Score { layout, page, fetch: fetch && first == 0, q, row, first, at };
        // Two accumulators each: of more than four rows too many would spill.
        match M {
            1 => job(0).rows::<I, 1>(isa, work),
            2 => job(0).rows::<I, 2>(isa, work),
            3 => job(0).rows::<I, 3>(isa, work),
            4 => job(0).rows::<I, 4>(isa, work),
            5 => {
                job(0).rows::<I, 3>(isa, work);
                job(3).rows::<I, 2>(isa, work);
            }
            _ => {
                job(0).rows::<I, 3>(isa, work);
                job(3).rows::<I, 3>(isa, work);
            }
        }
    }

    #[inline(always)]
    fn values<I: Isa, const M: usize>(isa: I, layout: &PageLayout, pages: &[&[u8]], next: &[&[u8]], work: &mut Workspace) {
        let mut unit = [0.0; M];
        for m in 0..M {
            unit[m] = to_digits(isa, layout, pages, &mut work.scores[m], &mut work.high[m], &mut work.low[m]);
        }
        let job = |first, part| Weigh { layout, pages, next, unit: &unit, first, part };
        // Two accumulators each: at most three rows at a time stay in registers.
        match M {
            1 => job(0, (0, 1)).rows::<I, 1>(isa, work),
            2 => job(0, (0, 1)).rows::<I, 2>(isa, work),
            3 => job(0, (0, 1)).rows::<I, 3>(isa, work),
            4 => {
                job(0, (0, 2)).rows::<I, 2>(isa, work);
                job(2, (1, 2)).rows::<I, 2>(isa, work);
            }
            5 => {
                job(0, (0, 2)).rows::<I, 3>(isa, work);
                job(3, (1, 2)).rows::<I, 2>(isa, work);
            }
            _ => {
                job(0, (0, 2)).rows::<I, 3>(isa, work);
                job(3, (1, 2)).rows::<I, 3>(isa, work);
            }
        }
    }
}

/// The scores of a page for some rows of a tile, from `first` on.
#[derive(Clone, Copy)]
struct Score<'a> {
    layout: &'a PageLayout,
    page: &'a [u8],
    /// Whether to ask for the values.
    fetch: bool,
    q: &'a Queries,
    /// The first row of the tile.
    row: usize,
    first: usize,
    /// Where the scores go.
    at: usize,
}

impl Score<'_> {
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(self, isa: I, work: &mut Workspace) {
        let Score { layout, page, fetch, q, row, first, at } = self;
        let group = layout.group;
        let groups = layout.padded_k() / group;
        let (scales, sums) = (&q.scales[(row + first) * groups..][..R * groups], &q.sums[(row + first) * groups..][..R * groups]);
        let k = page[layout.keys()].as_chunks::<{ 4 * PAGE }>().0;
        let k_scale = cast_slice::<u8, u16>(&page[layout.key_scales()]).as_chunks::<PAGE>().0;
        assert!(4 * k.len() <= MAX_HEAD && k.len() * 4 == groups * group && k_scale.len() == groups && at + PAGE <= CHUNK);
        let mut ahead = if fetch { Prefetch::new(&page[layout.value_half()], (0, 1), k.len()) } else { Prefetch::nothing() };
        let width = I::TILE * I::LANES;
        for tile in 0..PAGE / width {
            let mut acc = [[isa.splat(0.0); 4]; R];
            for g in 0..groups {
                let mut dot = [[isa.zero(); 4]; R];
                for r in 0..R {
                    dot[r] = [isa.start(sums[r * groups + g]); 4];
                }
                for quad in g * group / 4..(g + 1) * group / 4 {
                    if tile == 0 {
                        ahead.step(isa, quad);
                    }
                    let keys = &k[quad];
                    let mut x = [isa.load_codes(keys); 4];
                    for t in 0..I::TILE {
                        x[t] = isa.load_codes(&keys[4 * (tile * width + t * I::LANES)..]);
                    }
                    for r in 0..R {
                        let y = &work.q_codes[first + r][4 * quad..4 * quad + 4];
                        for t in 0..I::TILE {
                            dot[r][t] = isa.dot_codes(dot[r][t], x[t], y);
                        }
                    }
                }
                for t in 0..I::TILE {
                    let scale = isa.load_f16(&k_scale[g][tile * width + t * I::LANES..]);
                    for r in 0..R {
                        let scale = isa.mul(scale, isa.splat(scales[r * groups + g]));
                        acc[r][t] = isa.fma(isa.to_f32(dot[r][t]), scale, acc[r][t]);
                    }
                }
            }
            for r in 0..R {
                for t in 0..I::TILE {
                    isa.store(acc[r][t], &mut work.scores[first + r][at + tile * width + t * I::LANES..]);
                }
            }
        }
    }
}

/// Probabilities times value scales, as two 7-bit digits in units of the returned number.
#[inline(always)]
fn to_digits<I: Isa>(
    isa: I,
    layout: &PageLayout,
    pages: &[&[u8]],
    p: &mut [f32; CHUNK],
    high: &mut [u8; CHUNK],
    low: &mut [u8; CHUNK],
) -> f32 {
    let mut most = isa.splat(0.0);
    for i in 0..pages.len() {
        let scale: &[u16] = cast_slice(&pages[i][layout.value_scales()]);
        for slot in (0..PAGE).step_by(I::LANES) {
            let p = &mut p[i * PAGE + slot..];
            let x = isa.mul(isa.load(p), isa.load_f16(&scale[slot..]));
            isa.store(x, p);
            most = isa.max(most, x);
        }
    }
    let most = isa.reduce_max(most);
    let inverse = if most > 0.0 { DIGITS / most } else { 0.0 };
    let inverse = isa.splat(if inverse < f32::MAX { inverse } else { 0.0 });
    for at in (0..pages.len() * PAGE).step_by(I::LANES) {
        isa.store_digits(isa.mul(isa.load(&p[at..]), inverse), &mut high[at..], &mut low[at..]);
    }
    most / DIGITS
}

/// The weighted sum of values for some rows of a tile, from `first` on.
#[derive(Clone, Copy)]
struct Weigh<'a> {
    layout: &'a PageLayout,
    pages: &'a [&'a [u8]],
    next: &'a [&'a [u8]],
    /// What the digits of each row count.
    unit: &'a [f32],
    first: usize,
    /// The share of the prefetching: part and parts.
    part: (usize, usize),
}

impl Weigh<'_> {
    /// All channels of `R` rows.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(self, isa: I, work: &mut Workspace) {
        let (mut channel, dim) = (0, self.layout.padded_v());
        while channel + I::TILE * I::LANES <= dim {
            self.tile::<I, R>(isa, work, channel, I::TILE);
            channel += I::TILE * I::LANES;
        }
        while channel < dim {
            self.tile::<I, R>(isa, work, channel, 1);
            channel += I::LANES;
        }
    }

    /// `tile` vectors of channels from `channel` on.
    #[inline(always)]
    fn tile<I: Isa, const R: usize>(self, isa: I, work: &mut Workspace, channel: usize, tile: usize) {
        let Weigh { layout, pages, next, unit, first, part: (part, parts) } = self;
        let dim = layout.padded_v();
        assert!(pages.len() <= CHUNK / PAGE && channel + tile * I::LANES <= dim && dim <= MAX_HEAD);
        let width = I::TILE * I::LANES;
        let passes = dim.div_ceil(width) * parts;
        let pass = part + channel / width * parts;
        // The vectors of a narrow rest share a pass; the first asks.
        let asks = channel.is_multiple_of(width);
        let mut high = [[isa.zero(); 4]; R];
        let mut low = [[isa.zero(); 4]; R];
        for i in 0..pages.len() {
            let v: &[i8] = cast_slice(&pages[i][layout.values()]);
            let mut ahead = if asks && i < next.len() {
                Prefetch::new(&next[i][layout.key_half()], (pass, passes), PAGE / 4)
            } else {
                Prefetch::nothing()
            };
            for quad in 0..PAGE / 4 {
                let row = &v[(quad * dim + channel) * 4..][..4 * tile * I::LANES];
                let mut x = [isa.load_i8(row); 4];
                for t in 0..tile {
                    x[t] = isa.load_i8(&row[4 * t * I::LANES..]);
                }
                ahead.step(isa, quad);
                for r in 0..R {
                    let at = i * PAGE + 4 * quad;
                    let (h, l) = (&work.high[first + r][at..at + 4], &work.low[first + r][at..at + 4]);
                    for t in 0..tile {
                        high[r][t] = isa.dot_digit(high[r][t], h, x[t]);
                        low[r][t] = isa.dot_digit(low[r][t], l, x[t]);
                    }
                }
            }
        }
        for r in 0..R {
            let unit = isa.splat(unit[first + r]);
            for t in 0..tile {
                let sum = isa.mul(isa.to_f32(isa.digits(high[r][t], low[r][t])), unit);
                isa.store(sum, &mut work.acc[first + r][channel + t * I::LANES..]);
            }
        }
    }
}
