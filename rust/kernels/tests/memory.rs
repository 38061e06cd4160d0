//! Aligned memory: limits, reuse, and what happens when there is none left.
use fastllm_kernels::buffer::{AlignedVec, OutOfMemory, tiles_mut};
use std::panic::catch_unwind;

#[test]
fn memory_is_zeroed_aligned_and_writable_to_the_end() {
    for len in [1, 15, 1000, (2 << 20) / 4 - 1, (2 << 20) / 4, (2 << 20) / 4 + 1, 5_000_001] {
        let mut v = AlignedVec::<f32>::try_zeroed(len).unwrap();
        assert!(v.len() == len && v.iter().all(|x| *x == 0.0));
        assert_eq!(v.as_ptr().addr() % 64, 0);
        v.fill(1.0);
        v.resize(len / 2);
        assert_eq!(v.len(), len / 2);
        v.resize(2 * len);
        assert_eq!(v.len(), 2 * len);
        v.fill(2.0);
    }
    let v = AlignedVec::<u8>::try_zeroed(0).unwrap();
    assert!(v.is_empty());
}

#[test]
fn reserved_memory_is_used_by_resize() {
    let mut v = AlignedVec::<f32>::default();
    v.reserve(1000).unwrap();
    let at = v.as_ptr();
    v.resize(1000);
    assert_eq!(v.as_ptr(), at);
    v.reserve(10).unwrap();
    assert_eq!((v.len(), v.as_ptr()), (1000, at));
}

#[test]
fn sizes_that_cannot_be_are_errors() {
    for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize, 1 << 50] {
        let OutOfMemory { bytes } = AlignedVec::<u64>::try_zeroed(len).unwrap_err();
        assert_eq!(bytes, len.saturating_mul(8));
        assert!(AlignedVec::<u64>::default().reserve(len).is_err());
    }
}

#[test]
fn tiles_outside_a_matrix_are_refused() {
    let refused = |stride, cuts: &[usize], cols, count| {
        let cuts = cuts.to_vec();
        catch_unwind(move || tiles_mut(&mut [0f32; 64], stride, &cuts, cols, count).len()).is_err()
    };
    assert!(!refused(16, &[0, 2, 4], 8, 2));
    assert!(refused(16, &[0, 5], 8, 2));
    assert!(refused(16, &[0, usize::MAX], 8, 2));
    assert!(refused(16, &[0, usize::MAX / 16 + 1], 8, 2));
    assert!(refused(16, &[3, 2], 8, 2));
    assert!(refused(16, &[0, 4], 9, 2));
    assert!(refused(16, &[0, 4], usize::MAX / 2 + 1, 2));
    assert!(refused(0, &[0, 1], 1, 1));
    // A tile without rows at the end.
    assert_eq!(tiles_mut(&mut [0f32; 64], 16, &[4, 4], 8, 2).len(), 2);
}

/// Under a limit of address space; in a process of its own, because limits concern all of one.
#[test]
#[cfg(target_os = "linux")]
fn no_memory_is_an_error() {
    const CHILD: &str = "FASTLLM_TEST_LIMIT_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_memory_is_an_error", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
    // SAFETY: a valid limit for this process alone.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let mut kept = Vec::new();
    let error = loop {
        match AlignedVec::<u8>::try_zeroed(64 << 20) {
            Ok(v) => kept.push(v),
            Err(e) => break e,
        }
    };
    assert_eq!(error, OutOfMemory { bytes: 64 << 20 });
    assert!(kept.len() < 16 && !kept.is_empty());
    // A failed reservation leaves an empty vector, not a dangling one.
    let mut v = kept.pop().unwrap();
    assert!(v.reserve(1 << 30).is_err());
    assert!(v.is_empty());
    // What is given back can be had again.
    kept.clear();
    assert!(AlignedVec::<u8>::try_zeroed(64 << 20).is_ok());
}
