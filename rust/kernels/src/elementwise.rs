//! Sums, products and activation functions of vectors, element by element, and softmax.
//!
//! An operation is a [`Lanewise`] function on vectors; [`Apply`] runs it over slices of any length. Elements beyond the last whole vector
//! go through a padded one, so an element's bits depend neither on its place nor on the instruction set.
use crate::rms_norm::{lanes, tree_sum};
use fastllm_simd::math::{exp2, sigmoid as sigmoid_of, silu, tanh};
use fastllm_simd::{Cpu, Isa, Kernel, ROWS};
use std::f32::consts::LOG2_E;

/// A function of an element's old value and `N` inputs.
pub trait Lanewise<const N: usize>: Copy {
    /// The new values of some elements. Mark implementations `#[inline(always)]`.
    fn apply<I: Isa>(self, isa: I, old: I::F32, x: [I::F32; N]) -> I::F32;
}

/// `out[i] = op(out[i], inputs[..][i])`, as a [`Kernel`].
pub struct Apply<'a, Op, const N: usize> {
    /// The function.
    pub op: Op,
    /// `n` floats.
    pub out: &'a mut [f32],
    /// `n` floats each.
    pub inputs: [&'a [f32]; N],
}

impl<Op: Lanewise<N>, const N: usize> Kernel for Apply<'_, Op, N> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Apply { op, out, inputs } = self;
        let n = out.len();
        for k in 0..N {
            assert!(inputs[k].len() == n, "an input of {} for {n} outputs", inputs[k].len());
        }
        let whole = n / I::LANES * I::LANES;
        for at in (0..whole).step_by(I::LANES) {
            let mut x = [isa.splat(0.0); N];
            for k in 0..N {
                x[k] = isa.load(&inputs[k][at..]);
            }
            isa.store(op.apply(isa, isa.load(&out[at..]), x), &mut out[at..]);
        }
        if whole < n {
            let mut x = [isa.splat(0.0); N];
            for k in 0..N {
                x[k] = isa.load(&lanes(inputs[k], whole, 0.0));
            }
            let mut last = [0.0; ROWS];
            isa.store(op.apply(isa, isa.load(&lanes(out, whole, 0.0)), x), &mut last);
            out[whole..].copy_from_slice(&last[..n - whole]);
        }
    }
}

/// `old + x`.
#[derive(Clone, Copy, Debug)]
pub struct AddAssign;

impl Lanewise<1> for AddAssign {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.add(old, x)
    }
}

/// `old + factor * x`, rounded once.
#[derive(Clone, Copy, Debug)]
pub struct AddScaled(pub f32);

impl Lanewise<1> for AddScaled {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.fma(x, isa.splat(self.0), old)
    }
}

/// `old * factor`.
#[derive(Clone, Copy, Debug)]
pub struct Scale(pub f32);

impl Lanewise<0> for Scale {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        isa.mul(old, isa.splat(self.0))
    }
}

/// `1 / (1 + e^-old)`; NaN stays NaN.
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Lanewise<0> for Sigmoid {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        isa.add(sigmoid_of(isa, old), nan_of(isa, old))
    }
}

/// `old * sigmoid(x)`; NaN stays NaN.
#[derive(Clone, Copy, Debug)]
pub struct MulSigmoid;

impl Lanewise<1> for MulSigmoid {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.mul(old, Sigmoid.apply(isa, x, []))
    }
}

/// `old * sigmoid(old)`.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl Lanewise<0> for Silu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        silu(isa, old)
    }
}

/// `cap * tanh(old / cap)`; NaN stays NaN.
#[derive(Clone, Copy, Debug)]
pub struct SoftCap(pub f32);

impl Lanewise<0> for SoftCap {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        let x = isa.div(old, isa.splat(self.0));
        isa.add(isa.mul(tanh(isa, x), isa.splat(self.0)), nan_of(isa, old))
    }
}

/// `silu(gate) * up` of the inputs `gate`, `up`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

impl Lanewise<2> for SwiGlu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, _: I::F32, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(silu(isa, gate), up)
    }
}

/// A function of `gate` and `up`, with `gate` as the old value.
#[derive(Clone, Copy, Debug)]
pub struct InPlace<Op>(pub Op);

impl<Op: Lanewise<2>> Lanewise<1> for InPlace<Op> {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, [up]: [I::F32; 1]) -> I::F32 {
        self.0.apply(isa, old, [old, up])
    }
}

/// `gelu(gate) * up` of the inputs `gate`, `up`, with the tanh form of GELU (Hendrycks and Gimpel, 2016).
#[derive(Clone, Copy, Debug)]
pub struct GegluTanh;

impl Lanewise<2> for GegluTanh {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, _: I::F32, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(gelu_tanh(isa, gate), up)
    }
}

/// `gelu(gate) * up` of the inputs `gate`, `up`, with the exact GELU.
#[derive(Clone, Copy, Debug)]
pub struct GegluErf;

impl Lanewise<2> for GegluErf {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, _: I::F32, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(gelu_erf(isa, gate), up)
    }
}

/// The tanh form of GELU.
#[derive(Clone, Copy, Debug)]
pub struct GeluTanh;

impl Lanewise<0> for GeluTanh {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        gelu_tanh(isa, old)
    }
}

/// The exact GELU.
#[derive(Clone, Copy, Debug)]
pub struct GeluErf;

impl Lanewise<0> for GeluErf {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: I::F32, _: [I::F32; 0]) -> I::F32 {
        gelu_erf(isa, old)
    }
}

/// The activation of gpt-oss: `gate * sigmoid(alpha * gate) * (up + 1)`, with `gate` at most `limit` and `up` within `-limit..=limit`.
#[derive(Clone, Copy, Debug)]
pub struct ClampedSwiGlu {
    /// 1.702 in gpt-oss.
    pub alpha: f32,
    /// 7 in gpt-oss.
    pub limit: f32,
}

impl Lanewise<2> for ClampedSwiGlu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, _: I::F32, [gate, up]: [I::F32; 2]) -> I::F32 {
        // In this order NaN passes.
        let limit = isa.splat(self.limit);
        let gate = isa.min(limit, gate);
        let up = isa.max(isa.splat(-self.limit), isa.min(limit, up));
        let activated = isa.mul(gate, sigmoid_of(isa, isa.mul(gate, isa.splat(self.alpha))));
        isa.mul(activated, isa.add(up, isa.splat(1.0)))
    }
}

/// NaN where `x` is NaN, else 0. The functions of `math` have some finite value for NaN.
#[inline(always)]
fn nan_of<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // 0 x infinity is NaN too, but infinities are taken out first.
    let finite = isa.max(isa.splat(f32::MIN), isa.min(isa.splat(f32::MAX), x));
    isa.mul(finite, isa.splat(0.0))
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, which is `x * sigmoid` of twice the argument.
#[inline(always)]
fn gelu_tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // 2 sqrt(2 / pi).
    const SLOPE: f32 = 1.595_769;
    let cubic = isa.fma(isa.mul(x, x), isa.splat(SLOPE * 0.044_715), isa.splat(SLOPE));
    isa.mul(x, sigmoid_of(isa, isa.mul(x, cubic)))
}

/// `P(t)` with `t = 1 / (1 + 0.3 |x|)`: the upper tail of the normal distribution at `|x|` is `e^(-x^2 / 2) t P(t)`, with a relative
/// error below 5e-9 up to 13.4 (interpolated at the nodes of Chebyshev; the tests compare it with another form).
const TAIL: [f32; 10] = [
    0.119_687_535,
    0.119_555_14,
    0.110_374_92,
    0.077_739_64,
    0.098_021_42,
    -0.082_848_74,
    0.195_827_15,
    -0.231_179_05,
    0.113_666_15,
    -0.020_844_158,
];

/// `x` times the normal distribution function.
#[inline(always)]
fn gelu_erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (one, size) = (isa.splat(1.0), isa.abs(x));
    let t = isa.div(one, isa.fma(size, isa.splat(0.3), one));
    let mut p = isa.splat(TAIL[9]);
    for k in 1..10 {
        p = isa.fma(p, t, isa.splat(TAIL[9 - k]));
    }
    let power = exp2(isa, isa.mul(isa.mul(x, x), isa.splat(-0.5 * LOG2_E)));
    let tail = isa.mul(power, isa.mul(p, t));
    // tail + (1 - 2 tail) where x >= 0, else tail.
    let upper = isa.keep_ge(isa.sub(one, isa.add(tail, tail)), x, isa.splat(0.0));
    isa.mul(x, isa.add(tail, upper))
}

/// `x += y`.
///
/// # Panics
/// If the lengths differ, here and below.
pub fn add_assign(cpu: Cpu, x: &mut [f32], y: &[f32]) {
    cpu.run(Apply { op: AddAssign, out: x, inputs: [y] });
}

/// `x += factor * y`, rounded once.
pub fn add_scaled(cpu: Cpu, x: &mut [f32], factor: f32, y: &[f32]) {
    cpu.run(Apply { op: AddScaled(factor), out: x, inputs: [y] });
}

/// `x *= factor`.
pub fn scale(cpu: Cpu, x: &mut [f32], factor: f32) {
    cpu.run(Apply { op: Scale(factor), out: x, inputs: [] });
}

/// `x = 1 / (1 + e^-x)`.
pub fn sigmoid(cpu: Cpu, x: &mut [f32]) {
    cpu.run(Apply { op: Sigmoid, out: x, inputs: [] });
}

/// `x *= 1 / (1 + e^-gate)`.
pub fn mul_sigmoid(cpu: Cpu, x: &mut [f32], gate: &[f32]) {
    cpu.run(Apply { op: MulSigmoid, out: x, inputs: [gate] });
}

/// `x *= 1 / (1 + e^-x)`.
pub fn silu_in_place(cpu: Cpu, x: &mut [f32]) {
    cpu.run(Apply { op: Silu, out: x, inputs: [] });
}

/// `x = cap * tanh(x / cap)`.
pub fn soft_cap(cpu: Cpu, x: &mut [f32], cap: f32) {
    cpu.run(Apply { op: SoftCap(cap), out: x, inputs: [] });
}

/// `out = silu(gate) * up`.
pub fn swiglu(cpu: Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    cpu.run(Apply { op: SwiGlu, out, inputs: [gate, up] });
}

/// `gate = silu(gate) * up`.
pub fn swiglu_in_place(cpu: Cpu, gate: &mut [f32], up: &[f32]) {
    gate_in_place(cpu, SwiGlu, gate, up);
}

/// `gate = op(gate, up)`.
pub fn gate_in_place(cpu: Cpu, op: impl Lanewise<2>, gate: &mut [f32], up: &[f32]) {
    cpu.run(Apply { op: InPlace(op), out: gate, inputs: [up] });
}

/// `out = gelu(gate) * up` with the tanh form.
pub fn geglu_tanh(cpu: Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    cpu.run(Apply { op: GegluTanh, out, inputs: [gate, up] });
}

/// `out = gelu(gate) * up`, exact.
pub fn geglu_erf(cpu: Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    cpu.run(Apply { op: GegluErf, out, inputs: [gate, up] });
}

/// `x = gelu(x)` with the tanh form.
pub fn gelu_tanh_in_place(cpu: Cpu, x: &mut [f32]) {
    cpu.run(Apply { op: GeluTanh, out: x, inputs: [] });
}

/// `x = gelu(x)`, exact.
pub fn gelu_erf_in_place(cpu: Cpu, x: &mut [f32]) {
    cpu.run(Apply { op: GeluErf, out: x, inputs: [] });
}

/// The activation of gpt-oss, with [`ClampedSwiGlu`]'s `alpha` and `limit`.
pub fn clamped_swiglu(cpu: Cpu, gate: &[f32], up: &[f32], alpha: f32, limit: f32, out: &mut [f32]) {
    cpu.run(Apply { op: ClampedSwiGlu { alpha, limit }, out, inputs: [gate, up] });
}

/// Softmax in place, as a [`Kernel`].
pub struct Softmax<'a>(pub &'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let x = self.0;
        let mut most = [isa.splat(f32::NEG_INFINITY); ROWS];
        let mut sums = [isa.splat(0.0); ROWS];
        for at in (0..x.len()).step_by(ROWS) {
            let x = lanes(x, at, f32::NEG_INFINITY);
            for t in 0..ROWS / I::LANES {
                let x = isa.load(&x[t * I::LANES..]);
                // In this order the maximum passes over NaN, and the sum keeps it.
                most[t] = isa.max(x, most[t]);
                sums[t] = isa.add(sums[t], nan_of(isa, x));
            }
        }
        let mut max = f32::NEG_INFINITY;
        for t in 0..ROWS / I::LANES {
            let part = isa.reduce_max(most[t]);
            max = if part > max { part } else { max };
        }
        for at in (0..x.len()).step_by(ROWS) {
            let n = ROWS.min(x.len() - at);
            let mut p = lanes(x, at, f32::NEG_INFINITY);
            for t in 0..ROWS / I::LANES {
                let p = &mut p[t * I::LANES..];
                let e = exp2(isa, isa.mul(isa.sub(isa.load(p), isa.splat(max)), isa.splat(LOG2_E)));
                isa.store(e, p);
                sums[t] = isa.add(sums[t], e);
            }
            x[at..at + n].copy_from_slice(&p[..n]);
        }
        let mut lanes = [0.0; ROWS];
        for t in 0..ROWS / I::LANES {
            isa.store(sums[t], &mut lanes[t * I::LANES..]);
        }
        let sum = tree_sum(&lanes);
        if sum.is_nan() || sum == 0.0 {
            // The bits of a NaN depend on the CPU.
            x.fill(f32::NAN);
            return;
        }
        for i in 0..x.len() {
            x[i] /= sum;
        }
    }
}

/// `x = e^x / sum(e^x)`. `-inf` is allowed and gives 0; NaN anywhere, `+inf`, or nothing above `-inf`, makes all of `x` NaN.
pub fn softmax(cpu: Cpu, x: &mut [f32]) {
    cpu.run(Softmax(x));
}

#[cfg(test)]
mod tests;
