//! 256-bit sets: AVX2 with FMA and F16C, and the same with AVX-VNNI. 8 lanes, 16 registers.
//!
//! AVX2 multiplies bytes with `vpmaddubsw`, which adds two products in 16 bits; as many of them are added in 16 bits as cannot
//! overflow, and the `vpmaddwd` that widens them to 32 bits multiplies by the integer scale on the way. AVX-VNNI has `vpdpbusd`.
#![allow(unsafe_code)]
use crate::{Isa, Kernel, ROWS, Range};
use std::arch::x86_64::*;

/// Exists only if `detect` saw the features; `VNNI` says whether AVX-VNNI is among them.
#[derive(Clone, Copy, Debug)]
pub struct Avx<const VNNI: bool>(());

/// AVX2, FMA and F16C.
pub type Avx2 = Avx<false>;
/// AVX2, FMA, F16C and AVX-VNNI.
pub type AvxVnni = Avx<true>;

/// Signed bytes with, for AVX2, their magnitudes: `|k| * (q with the sign of k)` fits `vpmaddubsw` exactly.
#[derive(Clone, Copy, Debug)]
pub struct Signed {
    size: __m256i,
    value: __m256i,
}

/// Four activations in every lane.
#[inline(always)]
fn quad(x: &[i8], j: usize) -> __m256i {
    // SAFETY: callers check that `x` holds `4 * (j + 1)` bytes; the token proves AVX2.
    unsafe { _mm256_set1_epi32(x.as_ptr().add(4 * j).cast::<i32>().read_unaligned()) }
}

/// The rows from `row` on, of an array with `n` elements for each of the 16 rows of a panel.
#[inline(always)]
fn rows<T>(src: &[T], row: usize, n: usize) -> *const T {
    assert!(src.len() == n * ROWS && row + 8 <= ROWS);
    src[n * row..].as_ptr()
}

/// `acc + scale * sum_j codes[j] . x[j]`, where `scale` holds every factor twice, as the 16-bit halves of a lane.
#[inline(always)]
fn dot_i16(mut acc: __m256i, codes: &[__m256i], x: &[i8], max: i32, scale: __m256i) -> __m256i {
    let steps = (32767 / (max * 254)) as usize;
    assert!(steps >= 1 && x.len() >= 4 * codes.len());
    // SAFETY: the length was checked above; the token of the caller proves AVX2.
    unsafe {
        let mut pairs = _mm256_setzero_si256();
        for j in 0..codes.len() {
            let p = _mm256_maddubs_epi16(codes[j], quad(x, j));
            pairs = if j % steps == 0 { p } else { _mm256_add_epi16(pairs, p) };
            if j % steps == steps - 1 || j == codes.len() - 1 {
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, scale));
            }
        }
    }
    acc
}

/// Codes that fill 8 bits would overflow: multiplies `|code - 128|` by the activation with the sign of `code - 128`.
/// `scale` as in `dot_i16`.
#[inline(always)]
fn dot_signed<const N: usize>(mut acc: [__m256i; N], codes: &[__m256i], x: &[&[i8]; N], scale: __m256i) -> [__m256i; N] {
    // SAFETY: the lengths are checked; the token of the caller proves AVX2.
    unsafe {
        for t in 0..N {
            assert!(x[t].len() >= 4 * codes.len());
        }
        for j in 0..codes.len() {
            let signed = _mm256_xor_si256(codes[j], _mm256_set1_epi8(-128));
            let magnitude = _mm256_abs_epi8(signed);
            for t in 0..N {
                let p = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(quad(x[t], j), signed));
                acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(p, scale));
            }
        }
    }
    acc
}

impl<const VNNI: bool> Avx<VNNI> {
    /// The form of integer scales.
    #[inline(always)]
    fn scales(wide: __m256i) -> __m256i {
        // SAFETY: only called with a token, which proves AVX2.
        unsafe {
            if VNNI {
                return _mm256_castps_si256(_mm256_cvtepi32_ps(wide));
            }
            let twice =
                _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13, 0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
            _mm256_shuffle_epi8(wide, twice)
        }
    }

    /// With AVX-VNNI: `-zero * sums + sum_j codes[j] . x[t][j]`.
    #[inline(always)]
    fn dot_vnni<const N: usize>(codes: &[__m256i], x: &[&[i8]; N], sums: &[i32; N], range: Range) -> [__m256i; N] {
        // SAFETY: the lengths are checked; only called with the token of AVX-VNNI.
        unsafe {
            let mut acc = [_mm256_setzero_si256(); N];
            for t in 0..N {
                assert!(x[t].len() >= 4 * codes.len());
                acc[t] = _mm256_set1_epi32(-range.zero * sums[t]);
            }
            for j in 0..codes.len() {
                for t in 0..N {
                    acc[t] = _mm256_dpbusd_avx_epi32(acc[t], codes[j], quad(x[t], j));
                }
            }
            acc
        }
    }
}

// SAFETY of every block below: an `Avx` exists only if `detect` saw the features, and pointers come from `rows`, from references to
// arrays of the right size, or from slices whose length is asserted on the same line.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Isa for Avx<VNNI> {
    const NAME: &'static str = if VNNI { "avx_vnni" } else { "avx2" };
    const LANES: usize = 8;
    const TILE: usize = 2;
    const TOKENS: usize = 4;
    type F32 = __m256;
    type I32 = __m256i;
    type U8 = __m256i;
    type I8 = __m256i;
    type Codes = Signed;
    /// With VNNI the bits of floats, else every scale twice in 16 bits.
    type Scale = __m256i;
    /// With VNNI the bits of floats, else integers.
    type Sum = __m256i;
    type Pairs = __m256i;

    fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        (present && (!VNNI || is_x86_feature_detected!("avxvnni"))).then_some(Avx(()))
    }
    #[inline]
    fn run<K: Kernel>(self, k: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn plain<const VNNI: bool, K: Kernel>(isa: Avx<VNNI>, k: K) -> K::Output { k.run(isa) }
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn vnni<const VNNI: bool, K: Kernel>(isa: Avx<VNNI>, k: K) -> K::Output { k.run(isa) }
        if VNNI { unsafe { vnni(self, k) } } else { unsafe { plain(self, k) } }
    }

    #[inline(always)] fn splat(self, x: f32) -> __m256 { unsafe { _mm256_set1_ps(x) } }
    #[inline(always)] fn load(self, s: &[f32]) -> __m256 { assert!(s.len() >= 8); unsafe { _mm256_loadu_ps(s.as_ptr()) } }
    #[inline(always)] fn load_f16(self, s: &[u16]) -> __m256 { assert!(s.len() >= 8); unsafe { _mm256_cvtph_ps(_mm_loadu_si128(s.as_ptr().cast())) } }
    #[inline(always)] fn load_bf16(self, s: &[u16]) -> __m256 {
        assert!(s.len() >= 8);
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn load_exponents(self, s: &[u8]) -> __m256 {
        assert!(s.len() >= 8);
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn load_e4m3(self, s: &[u8]) -> __m256 {
        assert!(s.len() >= 8);
        // The same bits as of a half-precision float, whose exponent has one more and a bias 8 greater.
        unsafe { _mm256_cvtph_ps(_mm_slli_epi16::<7>(_mm_cvtepu8_epi16(_mm_loadl_epi64(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn store(self, x: __m256, d: &mut [f32]) { assert!(d.len() >= 8); unsafe { _mm256_storeu_ps(d.as_mut_ptr(), x) } }
    #[inline(always)] fn store_f16(self, x: __m256, d: &mut [u16]) {
        assert!(d.len() >= 8);
        unsafe { _mm_storeu_si128(d.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)] fn store_i8(self, x: __m256, d: &mut [i8]) {
        assert!(d.len() >= 8);
        unsafe {
            let n = _mm256_cvtps_epi32(x);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256::<1>(n));
            _mm_storel_epi64(d.as_mut_ptr().cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)] fn store_i16(self, x: __m256, d: &mut [i16]) {
        assert!(d.len() >= 8);
        unsafe {
            let n = _mm256_cvtps_epi32(x);
            _mm_storeu_si128(d.as_mut_ptr().cast(), _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256::<1>(n)));
        }
    }
    #[inline(always)] fn half_sums(self, q: &[[i8; 32]; 8]) -> [[i32; 2]; 8] { unsafe { super::half_sums(q) } }
    #[inline(always)] fn add(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_add_ps(a, b) } }
    #[inline(always)] fn sub(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_sub_ps(a, b) } }
    #[inline(always)] fn mul(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_mul_ps(a, b) } }
    #[inline(always)] fn div(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_div_ps(a, b) } }
    #[inline(always)] fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 { unsafe { _mm256_fmadd_ps(a, b, c) } }
    #[inline(always)] fn max(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_max_ps(a, b) } }
    #[inline(always)] fn min(self, a: __m256, b: __m256) -> __m256 { unsafe { _mm256_min_ps(a, b) } }
    #[inline(always)] fn abs(self, x: __m256) -> __m256 { unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) } }
    #[inline(always)]
    fn reduce_max(self, x: __m256) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn add_exponent(self, x: __m256, n: __m256) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32::<23>(_mm256_castps_si256(n)))) }
    }
    #[inline(always)] fn keep_ge(self, x: __m256, y: __m256, b: __m256) -> __m256 { unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(y, b), x) } }

    #[inline(always)] fn load_i32(self, s: &[i32]) -> __m256i { assert!(s.len() >= 8); unsafe { _mm256_loadu_si256(s.as_ptr().cast()) } }
    #[inline(always)] fn zero(self) -> __m256i { unsafe { _mm256_setzero_si256() } }
    #[inline(always)] fn to_f32(self, x: __m256i) -> __m256 { unsafe { _mm256_cvtepi32_ps(x) } }

    #[inline(always)] fn load_u8(self, s: &[u8; 64], row: usize) -> __m256i { unsafe { _mm256_loadu_si256(rows(s, row, 4).cast()) } }
    #[inline(always)] fn load_spread(self, s: &[u8; ROWS], row: usize) -> __m256i {
        unsafe {
            let first = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
            _mm256_shuffle_epi8(_mm256_cvtepu8_epi32(_mm_loadl_epi64(rows(s, row, 1).cast())), first)
        }
    }
    #[inline(always)] fn store_u8(self, x: __m256i, d: &mut [u8; 64], row: usize) { unsafe { _mm256_storeu_si256(d[4 * row..][..32].as_mut_ptr().cast(), x) } }
    #[inline(always)] fn and(self, a: __m256i, mask: u8) -> __m256i { unsafe { _mm256_and_si256(a, _mm256_set1_epi8(mask as i8)) } }
    #[inline(always)] fn sub_u8(self, a: __m256i, b: u8) -> __m256i { unsafe { _mm256_sub_epi8(a, _mm256_set1_epi8(b as i8)) } }
    #[inline(always)] fn or(self, a: __m256i, b: __m256i) -> __m256i { unsafe { _mm256_or_si256(a, b) } }
    #[inline(always)] fn shr<const N: u32>(self, a: __m256i) -> __m256i { self.and(unsafe { _mm256_srl_epi16(a, _mm_cvtsi32_si128(N as i32)) }, 0xff >> N) }
    #[inline(always)] fn shl<const N: u32>(self, a: __m256i) -> __m256i { self.and(unsafe { _mm256_sll_epi16(a, _mm_cvtsi32_si128(N as i32)) }, 0xff << N) }
    #[inline(always)] fn lookup(self, table: &[u8; 16], codes: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), codes) }
    }

    #[inline(always)] fn load_scales(self, s: &[i8; ROWS], row: usize) -> __m256i {
        Self::scales(unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(rows(s, row, 1).cast())) })
    }
    #[inline(always)] fn load_odd_scales(self, s: &[u8; ROWS], row: usize, half: usize) -> __m256i {
        unsafe {
            let bytes = _mm_srl_epi16(_mm_loadl_epi64(rows(s, row, 1).cast()), _mm_cvtsi32_si128(4 * half as i32));
            let n = _mm256_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15)));
            Self::scales(_mm256_or_si256(_mm256_slli_epi32::<1>(n), _mm256_set1_epi32(1)))
        }
    }
    #[inline(always)] fn load_pairs(self, s: &[u8; 2 * ROWS], row: usize) -> __m256i { unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(rows(s, row, 2).cast())) } }
    #[inline(always)] fn dot_pair(self, acc: __m256i, w: __m256i, x: &[i16; 2]) -> __m256i {
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, _mm256_set1_epi32(i32::from(x[0] as u16) | i32::from(x[1]) << 16))) }
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: &[__m256i], x: &[&[i8]; N], sums: &[i32; N], range: Range) -> [__m256i; N] {
        if VNNI {
            return Self::dot_vnni(codes, x, sums, range);
        }
        let one = unsafe { _mm256_set1_epi16(1) };
        let mut acc = [self.zero(); N];
        if range.zero == 128 {
            return dot_signed(acc, codes, x, one);
        }
        for t in 0..N {
            acc[t] = dot_i16(unsafe { _mm256_set1_epi32(-range.zero * sums[t]) }, codes, x[t], range.max, one);
        }
        acc
    }
    #[inline(always)] fn zero_sum(self) -> __m256i { self.zero() }
    #[inline(always)] fn sum_to_f32(self, x: __m256i) -> __m256 { if VNNI { unsafe { _mm256_castsi256_ps(x) } } else { self.to_f32(x) } }
    #[inline(always)] fn add_scaled(self, acc: __m256i, dot: __m256i, scale: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                return _mm256_castps_si256(self.fma(self.to_f32(dot), _mm256_castsi256_ps(scale), _mm256_castsi256_ps(acc)));
            }
            // The scale stands in both halves of a lane: one of them, with its sign.
            let scale = _mm256_srai_epi32::<16>(scale);
            _mm256_add_epi32(acc, _mm256_mullo_epi32(dot, scale))
        }
    }
    #[inline(always)]
    fn dot_scaled<const N: usize>(self, mut acc: [__m256i; N], codes: &[__m256i], x: &[&[i8]; N], sums: &[i32; N], range: Range, scale: __m256i) -> [__m256i; N] {
        if VNNI {
            let dot = Self::dot_vnni(codes, x, sums, range);
            for t in 0..N {
                acc[t] = self.add_scaled(acc[t], dot[t], scale);
            }
            return acc;
        }
        if range.zero == 128 {
            return dot_signed(acc, codes, x, scale);
        }
        for t in 0..N {
            if range.zero != 0 {
                // `-zero * sum` in two or four parts that fit 16 bits.
                let parts = if (range.zero + 1) / 2 * 127 * 4 * codes.len() as i32 <= 32767 { 2 } else { 4 };
                for pair in 0..parts / 2 {
                    let (low, high) = ((range.zero + 2 * pair) / parts, (range.zero + 2 * pair + 1) / parts);
                    acc[t] = self.dot_pair(acc[t], scale, &[(-low * sums[t]) as i16, (-high * sums[t]) as i16]);
                }
            }
            acc[t] = dot_i16(acc[t], codes, x[t], range.max, scale);
        }
        acc
    }

    #[inline(always)]
    fn load_codes(self, s: &[u8]) -> Signed {
        assert!(s.len() >= 32);
        unsafe {
            let codes = _mm256_loadu_si256(s.as_ptr().cast());
            if VNNI {
                return Signed { size: codes, value: codes };
            }
            let value = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            Signed { size: _mm256_abs_epi8(value), value }
        }
    }
    #[inline(always)] fn load_i8(self, s: &[i8]) -> __m256i { assert!(s.len() >= 32); unsafe { _mm256_loadu_si256(s.as_ptr().cast()) } }
    #[inline(always)] fn start(self, sum: i32) -> __m256i { unsafe { _mm256_set1_epi32(if VNNI { -128 * sum } else { 0 }) } }
    #[inline(always)]
    fn dot_codes(self, acc: __m256i, c: Signed, q: &[i8]) -> __m256i {
        assert!(q.len() >= 4);
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, c.size, quad(q, 0));
            }
            let pairs = _mm256_maddubs_epi16(c.size, _mm256_sign_epi8(quad(q, 0), c.value));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot_digit(self, acc: __m256i, p: &[u8], v: __m256i) -> __m256i {
        assert!(p.len() >= 4);
        unsafe {
            let p = _mm256_set1_epi32(p.as_ptr().cast::<i32>().read_unaligned());
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, p, v);
            }
            _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(p, v), _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)] fn digits(self, a: __m256i, b: __m256i) -> __m256i { unsafe { _mm256_add_epi32(_mm256_slli_epi32::<7>(a), b) } }
    #[inline(always)]
    fn store_digits(self, x: __m256, high: &mut [u8], low: &mut [u8]) {
        assert!(high.len() >= 8 && low.len() >= 8);
        unsafe {
            let n = _mm256_cvtps_epi32(x);
            let both = _mm256_or_si256(_mm256_srli_epi32::<7>(n), _mm256_slli_epi32::<16>(_mm256_and_si256(n, _mm256_set1_epi32(127))));
            // One byte of `high` at 0, one of `low` at 2 of each lane: gather them to the first 8 bytes of each 128-bit half.
            let order = _mm256_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1);
            let packed = _mm256_shuffle_epi8(both, order);
            let (a, b) = (_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed));
            _mm_storel_epi64(high.as_mut_ptr().cast(), _mm_unpacklo_epi32(a, b));
            _mm_storel_epi64(low.as_mut_ptr().cast(), _mm_unpacklo_epi32(_mm_srli_epi64::<32>(a), _mm_srli_epi64::<32>(b)));
        }
    }
    #[inline(always)] fn prefetch<T>(self, s: &[T], at: usize) { unsafe { _mm_prefetch::<_MM_HINT_T1>(s.as_ptr().wrapping_add(at).cast()) } }
}
