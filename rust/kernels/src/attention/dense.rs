//! f32 and f16 caches: f32 multiply-adds in one order.
//!
//! Keys of a page: `[dim_k][64 keys]`, a SIMD lane is a key. Values: `[64 keys][padded dim_v]`, a SIMD lane is a channel.
use super::cache::{Cache, Prefetch, Workspace, channels, clamp, is_finite};
use super::layout::Block;
use super::{CHUNK, LANES, MAX_HEAD, PAGE, PageLayout, Queries};
use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use fastllm_simd::Isa;
use fastllm_simd::half::f16_to_f32;
use std::marker::PhantomData;

/// How a number is stored.
pub(super) trait Element {
    type Bits: Pod;
    /// The largest finite number.
    const MAX: f32;
    const NAN: Self::Bits;
    fn load<I: Isa>(isa: I, src: &[Self::Bits]) -> I::F32;
    fn store<I: Isa>(isa: I, x: I::F32, dst: &mut [Self::Bits]);
    fn decode(x: Self::Bits) -> f32;
}

/// 32 bits.
pub(super) struct F32;

impl Element for F32 {
    type Bits = f32;
    const MAX: f32 = f32::MAX;
    const NAN: f32 = f32::NAN;
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[f32]) -> I::F32 {
        isa.load(src)
    }
    #[inline(always)]
    fn store<I: Isa>(isa: I, x: I::F32, dst: &mut [f32]) {
        isa.store(x, dst);
    }
    fn decode(x: f32) -> f32 {
        x
    }
}

/// 16 bits.
pub(super) struct F16;

impl Element for F16 {
    type Bits = u16;
    const MAX: f32 = 65504.0;
    const NAN: u16 = 0x7e00;
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[u16]) -> I::F32 {
        isa.load_f16(src)
    }
    #[inline(always)]
    fn store<I: Isa>(isa: I, x: I::F32, dst: &mut [u16]) {
        isa.store_f16(x, dst);
    }
    fn decode(x: u16) -> f32 {
        f16_to_f32(x)
    }
}

/// Numbers as they are.
pub(super) struct Dense<E>(PhantomData<E>);

impl<E: Element> Dense<E> {
    /// 16 channels from `at` on, converted.
    #[inline(always)]
    fn encode<I: Isa>(isa: I, row: &[f32], at: usize) -> [E::Bits; LANES] {
        let x = channels(row, at);
        let mut bits = [E::Bits::zeroed(); LANES];
        for lane in (0..LANES).step_by(I::LANES) {
            E::store(isa, clamp(isa, isa.load(&x[lane..]), E::MAX), &mut bits[lane..]);
        }
        bits
    }

    /// `tile` vectors of channels from `channel` on, all keys of all pages, `M` rows: the sums stay in registers.
    #[inline(always)]
    fn value_tile<I: Isa, const M: usize>(
        isa: I,
        layout: &PageLayout,
        pages: &[&[u8]],
        next: &[&[u8]],
        work: &mut Workspace,
        channel: usize,
        tile: usize,
    ) {
        let dim = layout.padded_v();
        assert!(pages.len() <= CHUNK / PAGE && channel + tile * I::LANES <= dim && dim <= MAX_HEAD);
        // Every pass over the values prefetches its share of the next keys.
        let width = I::TILE * I::LANES;
        let (pass, passes) = (channel / width, dim.div_ceil(width));
        // The vectors of a narrow rest share a pass; the first asks.
        let asks = channel.is_multiple_of(width);
        let mut acc = [[isa.splat(0.0); 4]; M];
        for i in 0..pages.len() {
            let v: &[E::Bits] = cast_slice(&pages[i][layout.values()]);
            let mut ahead =
                if asks && i < next.len() { Prefetch::new(&next[i][layout.key_half()], (pass, passes), PAGE) } else { Prefetch::nothing() };
            for key in 0..PAGE {
                let row = &v[key * dim + channel..][..tile * I::LANES];
                ahead.step(isa, key);
                let mut x = [isa.splat(0.0); 4];
                for t in 0..tile {
                    x[t] = E::load(isa, &row[t * I::LANES..]);
                }
                for m in 0..M {
                    let p = isa.splat(work.scores[m][i * PAGE + key]);
                    for t in 0..tile {
                        acc[m][t] = isa.fma(x[t], p, acc[m][t]);
                    }
                }
            }
        }
        for m in 0..M {
            for t in 0..tile {
                isa.store(acc[m][t], &mut work.acc[m][channel + t * I::LANES..]);
            }
        }
    }
}

impl<E: Element> Cache for Dense<E> {
    fn clear(_: &PageLayout, page: &mut [u8]) {
        page.fill(0);
    }

    #[inline(always)]
    fn write<I: Isa>(isa: I, layout: &PageLayout, page: &mut [u8], slot: usize, block: Block) {
        let Block { k, v, row, count } = block;
        assert!(count <= LANES && slot + count <= PAGE);
        let keys: &mut [E::Bits] = cast_slice_mut(&mut page[layout.keys()]);
        let mut bits = [[E::Bits::zeroed(); LANES]; LANES];
        for d in (0..layout.dim_k()).step_by(LANES) {
            for i in 0..count {
                bits[i] = Self::encode(isa, k.row(row + i, layout.dim_k()), d);
            }
            let keys = &mut keys[d * PAGE..];
            for c in 0..LANES.min(layout.dim_k() - d) {
                let keys = &mut keys[c * PAGE + slot..][..count];
                for i in 0..count {
                    keys[i] = bits[i][c];
                }
            }
        }
        // A number that is not finite shows in the scores: values are finite, since a masked key has probability 0 and 0 x NaN is NaN.
        for i in 0..count {
            if !is_finite(isa, k.row(row + i, layout.dim_k())) || !is_finite(isa, v.row(row + i, layout.dim_v())) {
                keys[slot + i] = E::NAN;
            }
        }
        let dim = layout.padded_v();
        let values: &mut [E::Bits] = cast_slice_mut(&mut page[layout.values()]);
        for i in 0..count {
            let values = &mut values[(slot + i) * dim..][..dim];
            for d in (0..dim).step_by(LANES) {
                values[d..d + LANES].copy_from_slice(&Self::encode(isa, v.row(row + i, layout.dim_v()), d));
            }
        }
    }

    fn read(layout: &PageLayout, page: &[u8], slot: usize, k: &mut [f32], v: &mut [f32]) {
        let (keys, values): (&[E::Bits], &[E::Bits]) = (cast_slice(&page[layout.keys()]), cast_slice(&page[layout.values()]));
        for (d, k) in k.iter_mut().enumerate() {
            *k = E::decode(keys[d * PAGE + slot]);
        }
        for (d, v) in v.iter_mut().enumerate() {
            *v = E::decode(values[slot * layout.padded_v() + d]);
        }
    }

    #[inline(always)]
    fn query<I: Isa>(isa: I, layout: &PageLayout, q: &[f32], scale: f32, queries: &mut Queries) {
        let start = queries.values.len();
        queries.values.resize(start + layout.padded_k(), 0.0);
        let out = &mut queries.values[start..];
        for d in (0..out.len()).step_by(LANES) {
            let x = channels(q, d);
            for lane in (0..LANES).step_by(I::LANES) {
                isa.store(isa.mul(isa.load(&x[lane..]), isa.splat(scale)), &mut out[d + lane..]);
            }
        }
    }

    #[inline(always)]
    fn load_query(layout: &PageLayout, q: &Queries, row: usize, rows: usize, work: &mut Workspace) {
        let dim = layout.padded_k();
        for m in 0..rows {
            work.q[m][..dim].copy_from_slice(&q.values[(row + m) * dim..][..dim]);
        }
    }

    #[inline(always)]
    fn scores<I: Isa, const M: usize>(
        isa: I,
        layout: &PageLayout,
        page: &[u8],
        fetch: bool,
        _: &Queries,
        _: usize,
        work: &mut Workspace,
        at: usize,
    ) {
        let k = cast_slice::<u8, E::Bits>(&page[layout.keys()]).as_chunks::<PAGE>().0;
        assert!(k.len() <= MAX_HEAD && at + PAGE <= CHUNK);
        let mut ahead = if fetch { Prefetch::new(&page[layout.value_half()], (0, 1), k.len()) } else { Prefetch::nothing() };
        let width = I::TILE * I::LANES;
        for tile in 0..PAGE / width {
            let mut acc = [[isa.splat(0.0); 4]; M];
            for d in 0..k.len() {
                if tile == 0 {
                    ahead.step(isa, d);
                }
                let mut x = [isa.splat(0.0); 4];
                for t in 0..I::TILE {
                    x[t] = E::load(isa, &k[d][tile * width + t * I::LANES..]);
                }
                for m in 0..M {
                    let y = isa.splat(work.q[m][d]);
                    for t in 0..I::TILE {
                        acc[m][t] = isa.fma(x[t], y, acc[m][t]);
                    }
                }
            }
            for m in 0..M {
                for t in 0..I::TILE {
                    isa.store(acc[m][t], &mut work.scores[m][at + tile * width + t * I::LANES..]);
                }
            }
        }
    }

    #[inline(always)]
    fn values<I: Isa, const M: usize>(isa: I, layout: &PageLayout, pages: &[&[u8]], next: &[&[u8]], work: &mut Workspace) {
        let (mut channel, dim) = (0, layout.padded_v());
        while channel + I::TILE * I::LANES <= dim {
            Self::value_tile::<I, M>(isa, layout, pages, next, work, channel, I::TILE);
            channel += I::TILE * I::LANES;
        }
        while channel < dim {
            Self::value_tile::<I, M>(isa, layout, pages, next, work, channel, 1);
            channel += I::LANES;
        }
    }
}
