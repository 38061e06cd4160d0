//! Random numbers as a function of (seed, step): Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A counter-based generator has no state that could depend on what else ran: the number of step n is the same in any batch and on
//! any thread, and a request that is resumed at step n goes on with the same numbers.

use std::hash::{BuildHasher, RandomState};

/// One block of Philox4x32 with ten rounds.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Two independent numbers in [0, 1) with 53 random bits each, from the block with key `seed` and counter `step`.
pub fn uniform(seed: u64, step: u64) -> [f64; 2] {
    let block = philox4x32([step as u32, (step >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let number = |high: u32, low: u32| ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64;
    [number(block[0], block[1]), number(block[2], block[3])]
}

/// A seed that nobody can foresee, from the keys that the standard library draws from the system for its hash maps.
pub fn entropy_seed() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
        assert_eq!(pi, [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn uniform_numbers_are_spread_evenly() {
        let mut bins = [0u32; 64];
        for step in 0..64_000 {
            let [a, b] = uniform(7, step);
            bins[(a * 8.0) as usize * 8 + (b * 8.0) as usize] += 1;
        }
        // Chi-square with 63 degrees of freedom: mean 63, standard deviation 11.2.
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!((20.0..120.0).contains(&chi), "chi-square {chi}");
    }

    #[test]
    fn unseeded_requests_differ() {
        assert_ne!(entropy_seed(), entropy_seed());
    }
}
