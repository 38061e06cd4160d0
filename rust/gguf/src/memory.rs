//! Memory for what a file asks for: running out of it is an error and not an abort.

use crate::error::Error;

fn short<T>(len: usize) -> Error {
    Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) }
}

/// An empty vector with room for `len` elements.
pub(crate) fn with_capacity<T>(len: usize) -> Result<Vec<T>, Error> {
    let mut vec = Vec::new();
    reserve(&mut vec, len)?;
    Ok(vec)
}

/// Makes room for `more` elements.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), Error> {
    vec.try_reserve_exact(more).map_err(|_| short::<T>(vec.len().saturating_add(more)))
}

/// The elements of an iterator that has `len`.
pub(crate) fn collect<T>(len: usize, elements: impl Iterator<Item = T>) -> Result<Vec<T>, Error> {
    let mut vec = with_capacity(len)?;
    vec.extend(elements.take(len));
    Ok(vec)
}

/// A copy.
pub(crate) fn copy<T: Copy>(elements: &[T]) -> Result<Vec<T>, Error> {
    collect(elements.len(), elements.iter().copied())
}

/// A copy of a text.
pub(crate) fn copy_text(text: &str) -> Result<String, Error> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| short::<u8>(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error_that_says_how_much() {
        for result in [with_capacity::<u64>(usize::MAX / 8).map(drop), reserve(&mut vec![1u8], isize::MAX as usize)] {
            assert!(matches!(result, Err(Error::OutOfMemory { bytes }) if bytes > usize::MAX / 4), "{result:?}");
        }
        assert_eq!((copy(&[1, 2]).unwrap(), copy_text("é").unwrap()), (vec![1, 2], "é".to_owned()));
        assert_eq!(collect(2, 0..).unwrap(), [0, 1]);
    }
}
