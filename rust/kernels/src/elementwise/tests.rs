//! Accuracy against f64, and the same bits on every instruction set, at every place of a vector.
use super::*;

const LENGTHS: [usize; 8] = [0, 1, 7, 8, 15, 16, 17, 100];

/// Values from -12 to 12 with both zeros, in no order.
fn inputs(n: usize, seed: f64) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n).map(|i| (((i as f64 + 1.0) * seed).sin() * 12.0) as f32).collect();
    if n > 5 {
        (x[3], x[5]) = (0.0, -0.0);
    }
    x
}

/// The normal distribution function: for tails a continued fraction, else its series.
fn normal(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            term *= x * x / (2.0 * k + 1.0);
            sum += term;
            k += 1.0;
        }
        return 0.5 + density * sum;
    }
    let fraction = (1..200).rev().fold(x.abs(), |f, k| x.abs() + f64::from(k) / f);
    if x < 0.0 { density / fraction } else { 1.0 - density / fraction }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Runs `f(cpu, a, b, out)` everywhere; `exact` is the function of one element.
fn check(name: &str, f: impl Fn(Cpu, &[f32], &[f32], &mut [f32]), exact: impl Fn(f64, f64) -> f64, relative: f64, absolute: f64) {
    for n in LENGTHS {
        let (a, b) = (inputs(n, 0.731), inputs(n, 1.917));
        let mut reference = vec![f32::NAN; n];
        f(Cpu::scalar(), &a, &b, &mut reference);
        for (i, y) in reference.iter().enumerate() {
            let e = exact(f64::from(a[i]), f64::from(b[i]));
            assert!((f64::from(*y) - e).abs() <= relative * e.abs() + absolute, "{name}({}, {}) = {y}, not {e}", a[i], b[i]);
            let mut alone = [f32::NAN];
            f(Cpu::best(), &a[i..=i], &b[i..=i], &mut alone);
            assert_eq!(alone[0].to_bits(), y.to_bits(), "{name} at {i}");
        }
        for cpu in Cpu::available() {
            let mut out = vec![f32::NAN; n];
            f(cpu, &a, &b, &mut out);
            assert!(out.iter().zip(&reference).all(|(x, y)| x.to_bits() == y.to_bits()), "{name} {} {n}", cpu.name());
        }
    }
}

/// An operation in place, as one of two inputs and an output.
fn in_place(f: impl Fn(Cpu, &mut [f32])) -> impl Fn(Cpu, &[f32], &[f32], &mut [f32]) {
    move |cpu, a, _, out| {
        out.copy_from_slice(a);
        f(cpu, out);
    }
}

#[test]
fn sums_and_products() {
    let two = |f: fn(Cpu, &mut [f32], &[f32])| {
        move |cpu: Cpu, a: &[f32], b: &[f32], out: &mut [f32]| {
            out.copy_from_slice(a);
            f(cpu, out, b);
        }
    };
    check("add", two(add_assign), |a, b| a + b, 6e-8, 0.0);
    check("add_scaled", two(|cpu, x, y| add_scaled(cpu, x, 0.75, y)), |a, b| a + 0.75 * b, 6e-8, 0.0);
    check("scale", in_place(|cpu, x| scale(cpu, x, 0.3)), |a, _| a * f64::from(0.3f32), 6e-8, 0.0);
}

#[test]
fn activations() {
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
    check("swiglu", swiglu, |a, b| a * logistic(a) * b, 3e-6, 0.0);
    check("geglu_tanh", geglu_tanh, |a, b| gelu(a) * b, 3e-6, 2e-6);
    check("geglu_erf", geglu_erf, |a, b| a * normal(a) * b, 2e-5, 1e-30);
    check("gelu_tanh", in_place(gelu_tanh_in_place), |a, _| gelu(a), 3e-6, 2e-6);
    check("gelu_erf", in_place(gelu_erf_in_place), |a, _| a * normal(a), 2e-5, 1e-30);
    check("sigmoid", in_place(sigmoid), |a, _| logistic(a), 3e-6, 0.0);
    check("silu", in_place(silu_in_place), |a, _| a * logistic(a), 3e-6, 0.0);
    let gated = |cpu: Cpu, a: &[f32], b: &[f32], out: &mut [f32]| {
        out.copy_from_slice(a);
        mul_sigmoid(cpu, out, b);
    };
    check("mul_sigmoid", gated, |a, b| a * logistic(b), 3e-6, 0.0);
    check("soft_cap", in_place(|cpu, x| soft_cap(cpu, x, 5.0)), |a, _| 5.0 * (a / 5.0).tanh(), 1e-6, 1e-6);
    let oss = |a: f64, b: f64| (b.clamp(-7.0, 7.0) + 1.0) * a.min(7.0) * logistic(f64::from(1.702f32) * a.min(7.0));
    check("clamped_swiglu", |cpu, a, b, out| clamped_swiglu(cpu, a, b, 1.702, 7.0, out), oss, 3e-6, 0.0);
}

/// Where it matters, within an ulp or two of `x`.
#[test]
fn exact_gelu_is_exact_in_single_precision() {
    for i in 0..40_000 {
        let x = -10.0 + i as f32 / 2000.0;
        let mut y = [x];
        gelu_erf_in_place(Cpu::best(), &mut y);
        let e = f64::from(x) * normal(f64::from(x));
        assert!((f64::from(y[0]) - e).abs() <= 2e-7 * e.abs() + 1.2e-7 * e.abs().min(1.0) + 5e-8 * f64::from(x.abs()), "{x}: {} {e}", y[0]);
    }
}

#[test]
fn nan_stays_nan() {
    for cpu in Cpu::available() {
        let nan = [f32::NAN; 3];
        for f in [sigmoid, gelu_tanh_in_place, gelu_erf_in_place, softmax, |cpu, x: &mut [f32]| soft_cap(cpu, x, 2.0)] {
            let mut x = nan;
            f(cpu, &mut x);
            assert!(x.iter().all(|x| x.is_nan()), "{}", cpu.name());
        }
        for f in [swiglu, geglu_tanh, geglu_erf, |cpu, a: &[f32], b: &[f32], out: &mut [f32]| clamped_swiglu(cpu, a, b, 1.702, 7.0, out)] {
            let mut out = [0.0; 6];
            f(cpu, &[f32::NAN, f32::NAN, f32::NAN, 1.0, 1.0, 1.0], &[1.0, 1.0, 1.0, f32::NAN, f32::NAN, f32::NAN], &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{}", cpu.name());
        }
        let mut ends = [f32::INFINITY, f32::NEG_INFINITY];
        sigmoid(cpu, &mut ends);
        assert_eq!(ends, [1.0, 0.0]);
    }
}

#[test]
fn softmax_follows_its_formula() {
    for n in LENGTHS {
        let x = inputs(n, 0.917);
        let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
        let mut reference = x.clone();
        softmax(Cpu::scalar(), &mut reference);
        for (y, x) in reference.iter().zip(&x) {
            let e = f64::from(*x).exp() / sum;
            assert!((f64::from(*y) - e).abs() <= 4e-6 * e, "{y}, not {e}");
        }
        for cpu in Cpu::available() {
            let mut out = x.clone();
            softmax(cpu, &mut out);
            assert_eq!(out, reference, "{}", cpu.name());
        }
    }
}

#[test]
fn softmax_of_infinities() {
    for cpu in Cpu::available() {
        let mut x = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY, 3.0];
        softmax(cpu, &mut x);
        assert_eq!(x, [0.0, 0.5, 0.0, 0.5]);
        for bad in [[f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0], [0.0, f32::NAN]] {
            let mut x = bad;
            softmax(cpu, &mut x);
            assert!(x.iter().all(|x| x.to_bits() == f32::NAN.to_bits()), "{bad:?}");
        }
    }
}
