//! Half-precision numbers as bits.

/// The value of a half-precision number (IEEE 754 binary16).
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let (sign, exponent, mantissa) = ((h as u32 >> 15) << 31, (h as u32 >> 10) & 31, h as u32 & 0x3ff);
    match exponent {
        // 2^-24, the unit of the subnormal numbers.
        0 => f32::from_bits(sign | (mantissa as f32 * f32::from_bits(103 << 23)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (mantissa << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13)),
    }
}

/// To nearest, ties to even; overflow becomes infinity.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let size = x.abs();
    if size.is_nan() {
        return sign | 0x7e00;
    }
    // Below 2^-14 the result is a multiple of 2^-24.
    if size < f32::from_bits(113 << 23) {
        return sign | (size * f32::from_bits(151 << 23)).round_ties_even() as u16;
    }
    let bits = size.to_bits();
    let rounded = bits + 0xfff + ((bits >> 13) & 1);
    sign | if rounded >= 0x4780_0000 { 0x7c00 } else { ((rounded - (112 << 23)) >> 13) as u16 }
}

/// The value of a bfloat16 number.
#[inline(always)]
pub fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits((h as u32) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_round_trip() {
        for h in 0..=u16::MAX {
            let x = f16_to_f32(h);
            assert!(x.is_nan() || f32_to_f16(x) == h, "{h:#x}");
        }
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        for h in 0..0x7bffu16 {
            let (low, high) = (f16_to_f32(h), f16_to_f32(h + 1));
            let middle = low + (high - low) / 2.0;
            assert_eq!(f32_to_f16(middle), h + (h & 1));
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), h + 1);
        }
    }
}
