//! Transcendental functions in terms of [`Isa`]: the same bits on every instruction set.
use crate::{Isa, Scalar};

/// Adding this to `|x| < 2^22` leaves round-to-even(x) in the low bits.
const ROUND: f32 = 12_582_912.0;
/// Minimax polynomial of `2^f` on -0.5..=0.5 without its constant term 1.
const C: [f32; 6] = [std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_6];

/// `2^x` for `x <= 0`; exactly 1 at 0, exactly 0 below -126 (also for -inf). Relative error below 8e-8.
#[inline(always)]
pub fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    exp2_many(isa, [x])[0]
}

/// [`exp2`] of several vectors, step by step: one alone waits for the latency of each step.
#[inline(always)]
pub fn exp2_many<I: Isa, const N: usize>(isa: I, x: [I::F32; N]) -> [I::F32; N] {
    let (floor, round) = (isa.splat(-126.0), isa.splat(ROUND));
    let (mut t, mut f, mut p) = (x, x, [isa.splat(C[5]); N]);
    for i in 0..N {
        let y = isa.max(x[i], floor);
        t[i] = isa.add(y, round);
        f[i] = isa.sub(y, isa.sub(t[i], round));
    }
    for c in [C[4], C[3], C[2], C[1], C[0], 1.0] {
        let c = isa.splat(c);
        for i in 0..N {
            p[i] = isa.fma(p[i], f[i], c);
        }
    }
    for i in 0..N {
        p[i] = isa.keep_ge(isa.add_exponent(p[i], t[i]), x[i], floor);
    }
    p
}

/// `exp2` of one value.
pub fn exp2_scalar(x: f32) -> f32 {
    exp2(Scalar, [x; 16])[0]
}

/// `1 / (1 + e^-x)`, from the exponential of `-|x|` so that nothing overflows.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let e = exp2(isa, isa.mul(isa.abs(x), isa.splat(-std::f32::consts::LOG2_E)));
    // 1 where x >= 0, else e.
    let positive = isa.keep_ge(one, x, isa.splat(0.0));
    let numerator = isa.add(positive, isa.mul(isa.sub(one, positive), e));
    isa.div(numerator, isa.add(one, e))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(x, sigmoid(isa, x))
}

/// `tanh(x)` as `sign(x) * (1 - e) / (1 + e)`, `e = exp(-2|x|)`.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let e = exp2(isa, isa.mul(isa.abs(x), isa.splat(-2.0 * std::f32::consts::LOG2_E)));
    let one = isa.splat(1.0);
    let size = isa.div(isa.sub(one, e), isa.add(one, e));
    let sign = isa.sub(isa.keep_ge(isa.splat(2.0), x, isa.splat(0.0)), one);
    isa.mul(size, sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, f: impl Fn([f32; 16]) -> [f32; 16], exact: impl Fn(f64) -> f64, from: f32, to: f32, bound: f64) {
        for i in 0..20_000 {
            let x = from + (to - from) * i as f32 / 20_000.0;
            let (y, e) = (f64::from(f([x; 16])[0]), exact(f64::from(x)));
            assert!((y - e).abs() <= bound * e.abs().max(1e-30), "{name}({x}) = {y}, not {e}");
        }
    }

    #[test]
    fn functions_are_accurate() {
        check("exp2", |x| exp2(Scalar, x), f64::exp2, -126.0, 0.0, 8e-8);
        check("sigmoid", |x| sigmoid(Scalar, x), |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, 6e-6);
        check("silu", |x| silu(Scalar, x), |x| x / (1.0 + (-x).exp()), -20.0, 20.0, 3e-6);
        check("tanh", |x| tanh(Scalar, x), f64::tanh, 0.5, 20.0, 1e-6);
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(exp2_scalar(0.0), 1.0);
        assert_eq!(exp2_scalar(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2_scalar(-127.0), 0.0);
        assert_eq!(silu(Scalar, [-1e30; 16])[0], 0.0);
        assert_eq!(silu(Scalar, [1e30; 16])[0], 1e30);
    }
}
