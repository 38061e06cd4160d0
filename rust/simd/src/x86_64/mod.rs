//! The instruction sets of x86-64.
mod avx;
mod avx512;

pub use avx::{Avx2, AvxVnni};
pub use avx512::Avx512Vnni;

use std::arch::x86_64::*;

/// The sums of each 16 values. Sums of absolute differences from zero of `value + 128`, eight by eight.
#[allow(unsafe_code)]
#[target_feature(enable = "avx2")]
#[inline]
fn half_sums(q: &[[i8; 32]; 8]) -> [[i32; 2]; 8] {
    let mut out = [[0; 2]; 8];
    for g in 0..8 {
        // SAFETY: reads 32 bytes of `q`, and writes 32 bytes of `sums`.
        let sums = unsafe {
            let biased = _mm256_xor_si256(_mm256_loadu_si256(q[g].as_ptr().cast()), _mm256_set1_epi8(-128));
            let mut sums = [0i64; 4];
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_sad_epu8(biased, _mm256_setzero_si256()));
            sums
        };
        out[g] = [(sums[0] + sums[1]) as i32 - 16 * 128, (sums[2] + sums[3]) as i32 - 16 * 128];
    }
    out
}
