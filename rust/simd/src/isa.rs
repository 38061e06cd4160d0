//! The vocabulary of the kernels: what they need from a CPU, and nothing else.

/// Rows of a weight panel, and lanes of the reference vector.
pub const ROWS: usize = 16;

/// Work that is compiled once per instruction set.
pub trait Kernel {
    /// What the work returns.
    type Output;
    /// Does the work with the operations of `isa`. Mark implementations `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// Weight codes are unsigned, `0..=max`, and stand for `code - zero`. `max` is at most 128, or `zero` is 128; `zero` is at most 128.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Largest code.
    pub max: i32,
    /// Code of the value 0.
    pub zero: i32,
}

/// Proof that an instruction set is present, and its vocabulary.
///
/// A vector has `LANES` lanes of 32 bits. In a weight panel a lane is a row, and a vector of codes holds four columns of each row:
/// loads from panels take an array for all [`ROWS`] rows and the first row wanted.
/// Integer operations are exact, so their order is free. Float operations are single IEEE operations on each lane.
pub trait Isa: Copy + Send + Sync + 'static {
    /// The name users write.
    const NAME: &'static str;
    /// 32-bit lanes of a vector: a divisor of [`ROWS`].
    const LANES: usize;
    /// Vectors across a register tile of attention, at most 4: `6 * TILE` accumulators, `TILE` operands and a broadcast must fit.
    const TILE: usize;
    /// Tokens of a register tile of the matrix multiplication for large batches: 4 or 8.
    const TOKENS: usize;
    /// Floats.
    type F32: Copy;
    /// Integers.
    type I32: Copy;
    /// Four unsigned codes in every lane.
    type U8: Copy;
    /// Four signed values, -127..=127, in every lane.
    type I8: Copy;
    /// Four codes `value + 128` in every lane, values -127..=127.
    type Codes: Copy;
    /// An integer scale in every lane, in the form `dot_scaled` likes.
    type Scale: Copy;
    /// An exact sum of scaled dot products below 2^24, in the form `dot_scaled` likes.
    type Sum: Copy;
    /// Two small unsigned integers in every lane.
    type Pairs: Copy;

    /// The token, if the CPU has the instruction set.
    fn detect() -> Option<Self>;
    /// Runs `kernel` compiled with the target features of the set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// Loads `LANES` floats.
    fn load(self, src: &[f32]) -> Self::F32;
    /// Loads `LANES` half-precision floats, given as bits.
    fn load_f16(self, src: &[u16]) -> Self::F32;
    /// Loads `LANES` bfloat16 numbers, given as bits.
    fn load_bf16(self, src: &[u16]) -> Self::F32;
    /// Loads `LANES` exponents `e`, giving `2^(e - 127)`, and 0 for `e = 0`.
    fn load_exponents(self, src: &[u8]) -> Self::F32;
    /// Loads `LANES` unsigned floats of 4 bits of exponent and 3 of mantissa (E4M3 without its sign, values below 0x80), times 2^-8.
    fn load_e4m3(self, src: &[u8]) -> Self::F32;
    /// Stores `LANES` floats.
    fn store(self, x: Self::F32, dst: &mut [f32]);
    /// Stores `LANES` half-precision floats, rounded to nearest, ties to even.
    fn store_f16(self, x: Self::F32, dst: &mut [u16]);
    /// Stores `LANES` integers, rounded to nearest, ties to even; `x` lies in -127..=127.
    fn store_i8(self, x: Self::F32, dst: &mut [i8]);
    /// Stores `LANES` integers, rounded to nearest, ties to even; `x` lies in -32767..=32767.
    fn store_i16(self, x: Self::F32, dst: &mut [i16]);
    /// The sums of each 16 values, -127..=127.
    fn half_sums(self, q: &[[i8; 32]; 8]) -> [[i32; 2]; 8];
    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|x|`.
    fn abs(self, x: Self::F32) -> Self::F32;
    /// The largest lane (no lane is NaN).
    fn reduce_max(self, x: Self::F32) -> f32;
    /// The bits of `x` plus the bits of `n` shifted left by 23: `x * 2^n` when the low bits of `n` hold an integer.
    fn add_exponent(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// `x` where `y >= bound`, else +0.
    fn keep_ge(self, x: Self::F32, y: Self::F32, bound: Self::F32) -> Self::F32;

    /// Loads `LANES` integers.
    fn load_i32(self, src: &[i32]) -> Self::I32;
    /// Zero in every lane.
    fn zero(self) -> Self::I32;
    /// Exact below 2^24, else rounded to nearest even.
    fn to_f32(self, x: Self::I32) -> Self::F32;

    /// Loads four codes of each row.
    fn load_u8(self, src: &[u8; 64], row: usize) -> Self::U8;
    /// Loads one byte of each row into all of its four places.
    fn load_spread(self, src: &[u8; ROWS], row: usize) -> Self::U8;
    /// Stores four codes of each row.
    fn store_u8(self, x: Self::U8, dst: &mut [u8; 64], row: usize);
    /// `a & mask` on bytes.
    fn and(self, a: Self::U8, mask: u8) -> Self::U8;
    /// `a - b` on bytes, modulo 256.
    fn sub_u8(self, a: Self::U8, b: u8) -> Self::U8;
    /// `a | b` on bytes.
    fn or(self, a: Self::U8, b: Self::U8) -> Self::U8;
    /// `a >> N` on bytes.
    fn shr<const N: u32>(self, a: Self::U8) -> Self::U8;
    /// `a << N` on bytes.
    fn shl<const N: u32>(self, a: Self::U8) -> Self::U8;
    /// `table[code]` for codes below 16.
    fn lookup(self, table: &[u8; 16], codes: Self::U8) -> Self::U8;

    /// Loads an integer scale of each row.
    fn load_scales(self, src: &[i8; ROWS], row: usize) -> Self::Scale;
    /// Loads the scale `2n + 1` of each row, where `n` is the low (`half = 0`) or the high (1) half of a byte.
    fn load_odd_scales(self, src: &[u8; ROWS], row: usize, half: usize) -> Self::Scale;
    /// Loads two unsigned integers of each row.
    fn load_pairs(self, src: &[u8; 2 * ROWS], row: usize) -> Self::Pairs;
    /// `acc + w[0] * x[0] + w[1] * x[1]` in every lane.
    fn dot_pair(self, acc: Self::I32, w: Self::Pairs, x: &[i16; 2]) -> Self::I32;

    /// `sum_j (codes[j] - zero) . x[t][4j..4j + 4]` for every row and token; `sums[t]` is the sum of `x[t]`.
    fn dot<const N: usize>(self, codes: &[Self::U8], x: &[&[i8]; N], sums: &[i32; N], range: Range) -> [Self::I32; N];
    /// The empty sum.
    fn zero_sum(self) -> Self::Sum;
    /// The value of a sum.
    fn sum_to_f32(self, x: Self::Sum) -> Self::F32;
    /// `acc + scale * dot`; the result stays below 2^24.
    fn add_scaled(self, acc: Self::Sum, dot: Self::I32, scale: Self::Scale) -> Self::Sum;
    /// `acc[t] + scale * dot(..)[t]`, with dots of 16 or 32 columns and scales of 8 bits; all sums stay below 2^24.
    fn dot_scaled<const N: usize>(
        self,
        acc: [Self::Sum; N],
        codes: &[Self::U8],
        x: &[&[i8]; N],
        sums: &[i32; N],
        range: Range,
        scale: Self::Scale,
    ) -> [Self::Sum; N];

    /// Loads `4 * LANES` codes `value + 128`.
    fn load_codes(self, src: &[u8]) -> Self::Codes;
    /// Loads `4 * LANES` signed values.
    fn load_i8(self, src: &[i8]) -> Self::I8;
    /// First accumulator of a dot product of codes with a query whose elements add up to `sum`.
    fn start(self, sum: i32) -> Self::I32;
    /// `acc + sum_j (codes[4*lane + j] - 128) * q[j]`; the -128 comes from `start`, or is taken off here.
    fn dot_codes(self, acc: Self::I32, codes: Self::Codes, q: &[i8]) -> Self::I32;
    /// `acc + sum_j p[j] * v[4*lane + j]`, `p <= 127`.
    fn dot_digit(self, acc: Self::I32, p: &[u8], v: Self::I8) -> Self::I32;
    /// `128 * a + b`.
    fn digits(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Rounds `x` (0 ..= 16383) to an integer `128 * high + low`.
    fn store_digits(self, x: Self::F32, high: &mut [u8], low: &mut [u8]);

    /// Asks for the cache line of `src[at]`; `at` may lie outside.
    fn prefetch<T>(self, src: &[T], at: usize);
}
