//! AVX-512 with VNNI: 16 lanes, 32 registers; one `vpdpbusd` multiplies 16 rows by 4 columns.
//!
//! Integer scales are applied in f32: a product of a dot and a scale is an integer below 2^24, so the multiply is exact and cheaper
//! than `vpmulld`, which is two instructions on Intel.
#![allow(unsafe_code)]
use crate::{Isa, Kernel, ROWS, Range};
use std::arch::x86_64::*;

/// Exists only if `detect` saw the features.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

/// Four activations in every lane.
#[inline(always)]
fn quad(x: &[i8], j: usize) -> __m512i {
    // SAFETY: callers check that `x` holds `4 * (j + 1)` bytes; the token proves AVX-512F.
    unsafe { _mm512_set1_epi32(x.as_ptr().add(4 * j).cast::<i32>().read_unaligned()) }
}

// SAFETY of every block below: an `Avx512Vnni` exists only if `detect` saw the features, and pointers come from references to arrays
// of the right size or from slices whose length is asserted on the same line.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx512Vnni {
    const NAME: &'static str = "avx512_vnni";
    const LANES: usize = ROWS;
    const TILE: usize = 4;
    const TOKENS: usize = 8;
    type F32 = __m512;
    type I32 = __m512i;
    type U8 = __m512i;
    type I8 = __m512i;
    type Codes = __m512i;
    type Scale = __m512;
    type Sum = __m512;
    type Pairs = __m512i;

    fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Avx512Vnni(()))
    }
    #[inline]
    fn run<K: Kernel>(self, k: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
        fn inner<K: Kernel>(isa: Avx512Vnni, k: K) -> K::Output { k.run(isa) }
        unsafe { inner(self, k) }
    }

    #[inline(always)] fn splat(self, x: f32) -> __m512 { unsafe { _mm512_set1_ps(x) } }
    #[inline(always)] fn load(self, s: &[f32]) -> __m512 { assert!(s.len() >= 16); unsafe { _mm512_loadu_ps(s.as_ptr()) } }
    #[inline(always)] fn load_f16(self, s: &[u16]) -> __m512 { assert!(s.len() >= 16); unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(s.as_ptr().cast())) } }
    #[inline(always)] fn load_bf16(self, s: &[u16]) -> __m512 {
        assert!(s.len() >= 16);
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn load_exponents(self, s: &[u8]) -> __m512 {
        assert!(s.len() >= 16);
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(_mm_loadu_si128(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn load_e4m3(self, s: &[u8]) -> __m512 {
        assert!(s.len() >= 16);
        // The same bits as of a half-precision float, whose exponent has one more and a bias 8 greater.
        unsafe { _mm512_cvtph_ps(_mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(_mm_loadu_si128(s.as_ptr().cast())))) }
    }
    #[inline(always)] fn store(self, x: __m512, d: &mut [f32]) { assert!(d.len() >= 16); unsafe { _mm512_storeu_ps(d.as_mut_ptr(), x) } }
    #[inline(always)] fn store_f16(self, x: __m512, d: &mut [u16]) {
        assert!(d.len() >= 16);
        unsafe { _mm256_storeu_si256(d.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)] fn store_i8(self, x: __m512, d: &mut [i8]) {
        assert!(d.len() >= 16);
        unsafe { _mm_storeu_si128(d.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x))) }
    }
    #[inline(always)] fn store_i16(self, x: __m512, d: &mut [i16]) {
        assert!(d.len() >= 16);
        unsafe { _mm256_storeu_si256(d.as_mut_ptr().cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))) }
    }
    #[inline(always)] fn half_sums(self, q: &[[i8; 32]; 8]) -> [[i32; 2]; 8] { unsafe { super::half_sums(q) } }
    #[inline(always)] fn add(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_add_ps(a, b) } }
    #[inline(always)] fn sub(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_sub_ps(a, b) } }
    #[inline(always)] fn mul(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_mul_ps(a, b) } }
    #[inline(always)] fn div(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_div_ps(a, b) } }
    #[inline(always)] fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 { unsafe { _mm512_fmadd_ps(a, b, c) } }
    #[inline(always)] fn max(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_max_ps(a, b) } }
    #[inline(always)] fn min(self, a: __m512, b: __m512) -> __m512 { unsafe { _mm512_min_ps(a, b) } }
    #[inline(always)] fn abs(self, x: __m512) -> __m512 { unsafe { _mm512_abs_ps(x) } }
    #[inline(always)] fn reduce_max(self, x: __m512) -> f32 { unsafe { _mm512_reduce_max_ps(x) } }
    #[inline(always)]
    fn add_exponent(self, x: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32::<23>(_mm512_castps_si512(n)))) }
    }
    #[inline(always)] fn keep_ge(self, x: __m512, y: __m512, b: __m512) -> __m512 { unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(y, b), x) } }

    #[inline(always)] fn load_i32(self, s: &[i32]) -> __m512i { assert!(s.len() >= 16); unsafe { _mm512_loadu_si512(s.as_ptr().cast()) } }
    #[inline(always)] fn zero(self) -> __m512i { unsafe { _mm512_setzero_si512() } }
    #[inline(always)] fn to_f32(self, x: __m512i) -> __m512 { unsafe { _mm512_cvtepi32_ps(x) } }

    #[inline(always)] fn load_u8(self, s: &[u8; 64], _: usize) -> __m512i { unsafe { _mm512_loadu_si512(s.as_ptr().cast()) } }
    #[inline(always)] fn load_spread(self, s: &[u8; ROWS], _: usize) -> __m512i {
        unsafe {
            let first = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
            _mm512_shuffle_epi8(_mm512_cvtepu8_epi32(_mm_loadu_si128(s.as_ptr().cast())), first)
        }
    }
    #[inline(always)] fn store_u8(self, x: __m512i, d: &mut [u8; 64], _: usize) { unsafe { _mm512_storeu_si512(d.as_mut_ptr().cast(), x) } }
    #[inline(always)] fn and(self, a: __m512i, mask: u8) -> __m512i { unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) } }
    #[inline(always)] fn sub_u8(self, a: __m512i, b: u8) -> __m512i { unsafe { _mm512_sub_epi8(a, _mm512_set1_epi8(b as i8)) } }
    #[inline(always)] fn or(self, a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_or_si512(a, b) } }
    #[inline(always)] fn shr<const N: u32>(self, a: __m512i) -> __m512i { self.and(unsafe { _mm512_srli_epi16::<N>(a) }, 0xff >> N) }
    #[inline(always)] fn shl<const N: u32>(self, a: __m512i) -> __m512i { self.and(unsafe { _mm512_slli_epi16::<N>(a) }, 0xff << N) }
    #[inline(always)] fn lookup(self, table: &[u8; 16], codes: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), codes) }
    }

    #[inline(always)] fn load_scales(self, s: &[i8; ROWS], _: usize) -> __m512 { unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(s.as_ptr().cast()))) } }
    #[inline(always)] fn load_odd_scales(self, s: &[u8; ROWS], _: usize, half: usize) -> __m512 {
        unsafe {
            let bytes = _mm_srl_epi16(_mm_loadu_si128(s.as_ptr().cast()), _mm_cvtsi32_si128(4 * half as i32));
            let n = _mm512_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15)));
            _mm512_cvtepi32_ps(_mm512_or_si512(_mm512_slli_epi32::<1>(n), _mm512_set1_epi32(1)))
        }
    }
    #[inline(always)] fn load_pairs(self, s: &[u8; 2 * ROWS], _: usize) -> __m512i { unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(s.as_ptr().cast())) } }
    #[inline(always)] fn dot_pair(self, acc: __m512i, w: __m512i, x: &[i16; 2]) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(acc, w, _mm512_set1_epi32(x.as_ptr().cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: &[__m512i], x: &[&[i8]; N], sums: &[i32; N], range: Range) -> [__m512i; N] {
        let mut acc = [self.zero(); N];
        for t in 0..N {
            assert!(x[t].len() >= 4 * codes.len());
            if range.zero != 0 {
                acc[t] = unsafe { _mm512_set1_epi32(-range.zero * sums[t]) };
            }
        }
        // Tokens innermost: N independent chains hide the latency of `vpdpbusd`.
        for j in 0..codes.len() {
            for t in 0..N {
                acc[t] = unsafe { _mm512_dpbusd_epi32(acc[t], codes[j], quad(x[t], j)) };
            }
        }
        acc
    }
    #[inline(always)] fn zero_sum(self) -> __m512 { self.splat(0.0) }
    #[inline(always)] fn sum_to_f32(self, x: __m512) -> __m512 { x }
    #[inline(always)] fn add_scaled(self, acc: __m512, dot: __m512i, scale: __m512) -> __m512 { self.fma(self.to_f32(dot), scale, acc) }
    #[inline(always)]
    fn dot_scaled<const N: usize>(self, mut acc: [__m512; N], codes: &[__m512i], x: &[&[i8]; N], sums: &[i32; N], range: Range, scale: __m512) -> [__m512; N] {
        let dot = self.dot(codes, x, sums, range);
        for t in 0..N {
            acc[t] = self.add_scaled(acc[t], dot[t], scale);
        }
        acc
    }

    #[inline(always)] fn load_codes(self, s: &[u8]) -> __m512i { assert!(s.len() >= 64); unsafe { _mm512_loadu_si512(s.as_ptr().cast()) } }
    #[inline(always)] fn load_i8(self, s: &[i8]) -> __m512i { assert!(s.len() >= 64); unsafe { _mm512_loadu_si512(s.as_ptr().cast()) } }
    #[inline(always)] fn start(self, sum: i32) -> __m512i { unsafe { _mm512_set1_epi32(-128 * sum) } }
    #[inline(always)]
    fn dot_codes(self, acc: __m512i, c: __m512i, q: &[i8]) -> __m512i {
        assert!(q.len() >= 4);
        unsafe { _mm512_dpbusd_epi32(acc, c, quad(q, 0)) }
    }
    #[inline(always)]
    fn dot_digit(self, acc: __m512i, p: &[u8], v: __m512i) -> __m512i {
        assert!(p.len() >= 4);
        unsafe { _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(p.as_ptr().cast::<i32>().read_unaligned()), v) }
    }
    #[inline(always)] fn digits(self, a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_add_epi32(_mm512_slli_epi32::<7>(a), b) } }
    #[inline(always)]
    fn store_digits(self, x: __m512, high: &mut [u8], low: &mut [u8]) {
        assert!(high.len() >= 16 && low.len() >= 16);
        unsafe {
            let n = _mm512_cvtps_epi32(x);
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<7>(n)));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_and_si512(n, _mm512_set1_epi32(127))));
        }
    }
    #[inline(always)] fn prefetch<T>(self, s: &[T], at: usize) { unsafe { _mm_prefetch::<_MM_HINT_T1>(s.as_ptr().wrapping_add(at).cast()) } }
}
