//! The few numeric conversions that `From` does not offer, each total.

/// A length as a file size. No supported target has pointers wider than 64 bits.
pub(crate) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The nearest `f32`; `None` if a finite value would become infinite.
pub(crate) fn f64_to_f32(x: f64) -> Option<f32> {
    #[expect(clippy::as_conversions, reason = "float narrowing rounds to nearest and saturates to infinity, which is checked below")]
    let narrow = x as f32;
    (narrow.is_finite() || !x.is_finite()).then_some(narrow)
}

/// The nearest `f32` of an integer.
#[expect(clippy::as_conversions, reason = "integer to float rounds to nearest; every u64 is far below f32::MAX")]
pub(crate) fn u64_to_f32(x: u64) -> f32 {
    x as f32
}

/// The nearest `f32` of an integer.
#[expect(clippy::as_conversions, reason = "integer to float rounds to nearest; every i64 is far below f32::MAX")]
pub(crate) fn i64_to_f32(x: i64) -> f32 {
    x as f32
}

/// `x` rounded up to a multiple of `alignment`; `None` on overflow or alignment 0.
pub(crate) fn align_up(x: u64, alignment: u64) -> Option<u64> {
    x.checked_next_multiple_of(alignment)
}
