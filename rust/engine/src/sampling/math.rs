//! Arithmetic over whole vocabularies: additions and multiplications in a fixed order, so that every platform gives the same bits.

const LANES: usize = 16;

/// The largest value (-infinity when there is none) and whether all are numbers below +infinity.
pub(super) fn max_and_validity(values: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut valid = [true; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            valid[lane] &= chunk[lane] < f32::INFINITY;
        }
    }
    let largest = |a: f32, b: &f32| if *b > a { *b } else { a };
    let max = max.iter().chain(rest).fold(f32::NEG_INFINITY, largest);
    (max, valid.iter().all(|&v| v) && rest.iter().all(|&v| v < f32::INFINITY))
}

/// Writes `exp(values - shift)` to `out` and returns the sum. No value is above `shift`.
pub(super) fn exp_shifted(values: &[f32], shift: f32, out: &mut Vec<f32>) -> f64 {
    out.clear();
    out.extend(values.iter().map(|&value| exp(value - shift)));
    let mut sums = [0.0f64; LANES];
    let (chunks, rest) = out.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f64::from(chunk[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v)).sum::<f64>()
}

/// `e^x` for `x <= 0`: relative error below 2e-7 down to -87, zero below. Branch-free, so that loops over it become vector code.
fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has few bits, so that n * LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor series on |r| <= ln(2)/2: the first term left out is below 6e-9.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x > -87.0 { p * scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_double_precision() {
        for i in 0..=870_000 {
            let x = -i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            if x > -87.0 {
                assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "exp({x}) = {} instead of {exact}", exp(x));
            }
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::MIN), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn maximum_and_validity() {
        for n in 0..50 {
            let mut values: Vec<f32> = (0..n).map(|i| ((i * 7) % 11) as f32 - 20.0).collect();
            let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max_and_validity(&values), (max, true));
            for at in 0..n {
                for bad in [f32::NAN, f32::INFINITY] {
                    let good = std::mem::replace(&mut values[at], bad);
                    assert!(!max_and_validity(&values).1);
                    values[at] = good;
                }
            }
        }
    }
}
