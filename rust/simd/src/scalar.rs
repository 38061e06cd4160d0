//! The reference instruction set: plain arrays of 16 lanes. This file is the specification of every other set.
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::{Isa, Kernel, ROWS, Range};
use std::array::from_fn;

/// Plain Rust; always present.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type Floats = [f32; ROWS];

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Floats {
    from_fn(f)
}

#[rustfmt::skip]
impl Isa for Scalar {
    const NAME: &'static str = "scalar";
    const LANES: usize = ROWS;
    const TILE: usize = 1;
    const TOKENS: usize = 4;
    type F32 = Floats;
    type I32 = [i32; ROWS];
    type U8 = [u8; 64];
    type I8 = [i8; 64];
    type Codes = [u8; 64];
    type Scale = [i32; ROWS];
    type Sum = [i32; ROWS];
    type Pairs = [[i32; 2]; ROWS];

    fn detect() -> Option<Self> { Some(Scalar) }
    #[inline(always)] fn run<K: Kernel>(self, k: K) -> K::Output { k.run(self) }

    #[inline(always)] fn splat(self, x: f32) -> Floats { [x; ROWS] }
    #[inline(always)] fn load(self, s: &[f32]) -> Floats { lanes(|i| s[i]) }
    #[inline(always)] fn load_f16(self, s: &[u16]) -> Floats { lanes(|i| f16_to_f32(s[i])) }
    #[inline(always)] fn load_bf16(self, s: &[u16]) -> Floats { lanes(|i| bf16_to_f32(s[i])) }
    #[inline(always)] fn load_exponents(self, s: &[u8]) -> Floats { lanes(|i| f32::from_bits(u32::from(s[i]) << 23)) }
    #[inline(always)] fn load_e4m3(self, s: &[u8]) -> Floats { lanes(|i| f16_to_f32(u16::from(s[i]) << 7)) }
    #[inline(always)] fn store(self, x: Floats, d: &mut [f32]) { d[..ROWS].copy_from_slice(&x); }
    #[inline(always)] fn store_f16(self, x: Floats, d: &mut [u16]) { for i in 0..ROWS { d[i] = f32_to_f16(x[i]); } }
    #[inline(always)] fn store_i8(self, x: Floats, d: &mut [i8]) { for i in 0..ROWS { d[i] = x[i].round_ties_even() as i8; } }
    #[inline(always)] fn store_i16(self, x: Floats, d: &mut [i16]) { for i in 0..ROWS { d[i] = x[i].round_ties_even() as i16; } }
    #[inline(always)] fn half_sums(self, q: &[[i8; 32]; 8]) -> [[i32; 2]; 8] {
        from_fn(|g| from_fn(|half| q[g][16 * half..][..16].iter().map(|&x| i32::from(x)).sum()))
    }
    #[inline(always)] fn add(self, a: Floats, b: Floats) -> Floats { lanes(|i| a[i] + b[i]) }
    #[inline(always)] fn sub(self, a: Floats, b: Floats) -> Floats { lanes(|i| a[i] - b[i]) }
    #[inline(always)] fn mul(self, a: Floats, b: Floats) -> Floats { lanes(|i| a[i] * b[i]) }
    #[inline(always)] fn div(self, a: Floats, b: Floats) -> Floats { lanes(|i| a[i] / b[i]) }
    #[inline(always)] fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats { lanes(|i| a[i].mul_add(b[i], c[i])) }
    #[inline(always)] fn max(self, a: Floats, b: Floats) -> Floats { lanes(|i| if a[i] > b[i] { a[i] } else { b[i] }) }
    #[inline(always)] fn min(self, a: Floats, b: Floats) -> Floats { lanes(|i| if a[i] < b[i] { a[i] } else { b[i] }) }
    #[inline(always)] fn abs(self, x: Floats) -> Floats { lanes(|i| x[i].abs()) }
    #[inline(always)] fn reduce_max(self, x: Floats) -> f32 { x.iter().fold(f32::NEG_INFINITY, |a, &b| if a > b { a } else { b }) }
    #[inline(always)] fn add_exponent(self, x: Floats, n: Floats) -> Floats {
        lanes(|i| f32::from_bits(x[i].to_bits().wrapping_add(n[i].to_bits() << 23)))
    }
    #[inline(always)] fn keep_ge(self, x: Floats, y: Floats, b: Floats) -> Floats { lanes(|i| if y[i] >= b[i] { x[i] } else { 0.0 }) }

    #[inline(always)] fn load_i32(self, s: &[i32]) -> [i32; ROWS] { from_fn(|i| s[i]) }
    #[inline(always)] fn zero(self) -> [i32; ROWS] { [0; ROWS] }
    #[inline(always)] fn to_f32(self, x: [i32; ROWS]) -> Floats { lanes(|i| x[i] as f32) }

    #[inline(always)] fn load_u8(self, s: &[u8; 64], _: usize) -> [u8; 64] { *s }
    #[inline(always)] fn load_spread(self, s: &[u8; ROWS], _: usize) -> [u8; 64] { from_fn(|i| s[i / 4]) }
    #[inline(always)] fn store_u8(self, x: [u8; 64], d: &mut [u8; 64], _: usize) { *d = x; }
    #[inline(always)] fn and(self, a: [u8; 64], mask: u8) -> [u8; 64] { from_fn(|i| a[i] & mask) }
    #[inline(always)] fn sub_u8(self, a: [u8; 64], b: u8) -> [u8; 64] { from_fn(|i| a[i].wrapping_sub(b)) }
    #[inline(always)] fn or(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] { from_fn(|i| a[i] | b[i]) }
    #[inline(always)] fn shr<const N: u32>(self, a: [u8; 64]) -> [u8; 64] { from_fn(|i| a[i] >> N) }
    #[inline(always)] fn shl<const N: u32>(self, a: [u8; 64]) -> [u8; 64] { from_fn(|i| a[i] << N) }
    #[inline(always)] fn lookup(self, table: &[u8; 16], c: [u8; 64]) -> [u8; 64] { from_fn(|i| table[c[i] as usize & 15]) }

    #[inline(always)] fn load_scales(self, s: &[i8; ROWS], _: usize) -> [i32; ROWS] { from_fn(|i| i32::from(s[i])) }
    #[inline(always)] fn load_odd_scales(self, s: &[u8; ROWS], _: usize, half: usize) -> [i32; ROWS] {
        from_fn(|i| 2 * (i32::from(s[i]) >> (4 * half) & 15) + 1)
    }
    #[inline(always)] fn load_pairs(self, s: &[u8; 2 * ROWS], _: usize) -> [[i32; 2]; ROWS] {
        from_fn(|r| [i32::from(s[2 * r]), i32::from(s[2 * r + 1])])
    }
    #[inline(always)] fn dot_pair(self, acc: [i32; ROWS], w: [[i32; 2]; ROWS], x: &[i16; 2]) -> [i32; ROWS] {
        from_fn(|r| acc[r] + w[r][0] * i32::from(x[0]) + w[r][1] * i32::from(x[1]))
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: &[[u8; 64]], x: &[&[i8]; N], _: &[i32; N], range: Range) -> [[i32; ROWS]; N] {
        let mut acc = [[0; ROWS]; N];
        for t in 0..N {
            for (j, w) in codes.iter().enumerate() {
                for r in 0..ROWS {
                    for i in 0..4 {
                        acc[t][r] += (i32::from(w[4 * r + i]) - range.zero) * i32::from(x[t][4 * j + i]);
                    }
                }
            }
        }
        acc
    }
    #[inline(always)] fn zero_sum(self) -> [i32; ROWS] { [0; ROWS] }
    #[inline(always)] fn sum_to_f32(self, x: [i32; ROWS]) -> Floats { self.to_f32(x) }
    #[inline(always)] fn add_scaled(self, acc: [i32; ROWS], dot: [i32; ROWS], scale: [i32; ROWS]) -> [i32; ROWS] { from_fn(|i| acc[i] + dot[i] * scale[i]) }
    #[inline(always)]
    fn dot_scaled<const N: usize>(self, acc: [[i32; ROWS]; N], codes: &[[u8; 64]], x: &[&[i8]; N], sums: &[i32; N], range: Range, scale: [i32; ROWS]) -> [[i32; ROWS]; N] {
        let dot = self.dot(codes, x, sums, range);
        from_fn(|t| from_fn(|r| acc[t][r] + dot[t][r] * scale[r]))
    }

    #[inline(always)] fn load_codes(self, s: &[u8]) -> [u8; 64] { from_fn(|i| s[i]) }
    #[inline(always)] fn load_i8(self, s: &[i8]) -> [i8; 64] { from_fn(|i| s[i]) }
    #[inline(always)] fn start(self, _: i32) -> [i32; ROWS] { [0; ROWS] }
    #[inline(always)] fn dot_codes(self, acc: [i32; ROWS], c: [u8; 64], q: &[i8]) -> [i32; ROWS] {
        from_fn(|i| acc[i] + (0..4).map(|j| (i32::from(c[4 * i + j]) - 128) * i32::from(q[j])).sum::<i32>())
    }
    #[inline(always)] fn dot_digit(self, acc: [i32; ROWS], p: &[u8], v: [i8; 64]) -> [i32; ROWS] {
        from_fn(|i| acc[i] + (0..4).map(|j| i32::from(p[j]) * i32::from(v[4 * i + j])).sum::<i32>())
    }
    #[inline(always)] fn digits(self, a: [i32; ROWS], b: [i32; ROWS]) -> [i32; ROWS] { from_fn(|i| 128 * a[i] + b[i]) }
    #[inline(always)] fn store_digits(self, x: Floats, high: &mut [u8], low: &mut [u8]) {
        for i in 0..ROWS {
            let n = x[i].round_ties_even() as u32;
            (high[i], low[i]) = ((n >> 7) as u8, (n & 127) as u8);
        }
    }
    #[inline(always)] fn prefetch<T>(self, _: &[T], _: usize) {}
}
