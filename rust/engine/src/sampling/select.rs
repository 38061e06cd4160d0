//! Partial selection: the largest few of many, without sorting them all.

use std::cmp::Ordering;

/// Larger values first, of equal values the lower index.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that sorting asks for")]
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Indices of the `k` largest of `values` (none is NaN), largest first, of equal values the lower index first. Time O(n + k log k).
pub(super) fn largest(values: &[f32], k: usize) -> Vec<u32> {
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    let mut best: Vec<(f32, u32)> = Vec::with_capacity((2 * k).min(values.len()));
    // Once k values are known, one that is not above the least of them is out: of equal ones the earlier stay.
    let mut threshold = None;
    for (index, &value) in values.iter().enumerate() {
        // -0.0 and 0.0 are one value.
        let value = value + 0.0;
        if threshold.is_some_and(|threshold| value <= threshold) {
            continue;
        }
        best.push((value, index as u32));
        if best.len() == 2 * k {
            best.select_nth_unstable_by(k - 1, order);
            best.truncate(k);
            threshold = Some(best[k - 1].0);
        }
    }
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, order);
        best.truncate(k);
    }
    best.sort_unstable_by(order);
    best.into_iter().map(|(_, index)| index).collect()
}

/// Indices in the order of `keys`, largest first, until their `weights` reach the share `p` of `total`; at least one.
pub(super) fn nucleus(keys: &[f32], weights: &[f32], p: f32, total: f64) -> Vec<u32> {
    let enough = f64::from(p) * total;
    let mut k = 64;
    loop {
        let mut indices = largest(keys, k);
        let mut sum = 0.0;
        for (rank, &index) in indices.iter().enumerate() {
            sum += f64::from(weights[index as usize]);
            if sum >= enough {
                indices.truncate(rank + 1);
                return indices;
            }
        }
        if k >= keys.len() {
            return indices;
        }
        k *= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn largest_is_the_head_of_a_stable_sort(values in prop::collection::vec((-5i8..5).prop_map(f32::from), 0..300), k in 0usize..320) {
            let mut sorted: Vec<u32> = (0..values.len() as u32).collect();
            sorted.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
            sorted.truncate(k);
            prop_assert_eq!(largest(&values, k), sorted);
        }
    }
}
