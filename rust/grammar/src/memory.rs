//! Memory that a step may need, asked for before the step: what llguidance allocates cannot fail without ending the process.

use std::hint::black_box;

use crate::error::GrammarError;

/// Refuses to go on where `bytes` more cannot be reserved. Nothing is written, so that no page is used.
///
/// # Errors
/// [`GrammarError::OutOfMemory`].
pub fn check(bytes: usize) -> Result<(), GrammarError> {
    let mut probe = Vec::<u8>::new();
    let reserved = probe.try_reserve_exact(bytes);
    // The allocation must not be optimized away.
    black_box(probe.as_mut_ptr());
    reserved.map_err(|_| GrammarError::OutOfMemory { what: "a grammar", bytes: bytes as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reserved_is_an_error() {
        assert_eq!(check(1 << 20), Ok(()));
        assert!(matches!(check(isize::MAX as usize), Err(GrammarError::OutOfMemory { .. })));
    }
}
