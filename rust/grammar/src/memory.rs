//! Memory that a step may need, asked for before the step: what llguidance allocates cannot fail without ending the process.

use fastllm_text::memory::available;

use crate::error::GrammarError;

/// Refuses the step where `bytes` more are not available.
///
/// # Errors
/// [`GrammarError::OutOfMemory`].
pub fn check(bytes: usize) -> Result<(), GrammarError> {
    if available(bytes) { Ok(()) } else { Err(GrammarError::OutOfMemory { what: "a grammar", bytes: bytes as u64 }) }
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
