//! Whether there is memory for a step whose own allocations end the process when they fail.

use std::hint::black_box;

/// Whether `bytes` more can be allocated at this moment. Nothing is written, so no page is used.
pub fn available(bytes: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    let reserved = probe.try_reserve_exact(bytes).is_ok();
    // An allocation that nothing uses is optimized away, and then counts as a success.
    black_box(probe.as_mut_ptr());
    reserved
}

#[cfg(test)]
mod tests {
    use super::available;

    #[test]
    fn more_than_the_address_space_is_not_available() {
        assert!(available(1 << 20));
        assert!(!available(1 << 60));
        assert!(!available(usize::MAX));
    }
}
