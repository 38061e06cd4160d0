//! DRY, "don't repeat yourself" (p-e-w, text-generation-webui #5677): subtracts from the logit of a token that would extend a repetition
//! `dry_multiplier * dry_base ^ (length - dry_allowed_length)`, where `length`, at least the allowed length, is that of the longest
//! text before an earlier occurrence of the token that is also the end of prompt and output. No repetition reaches over a sequence
//! breaker, and breakers themselves are never penalised.

use std::collections::{BTreeSet, HashMap};

use super::candidates::Candidates;
use super::params::SamplingParams;

#[derive(Debug)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    window: usize,
    breakers: BTreeSet<u32>,
    /// Prompt and output.
    history: Vec<u32>,
}

impl Dry {
    /// `None` when the multiplier is zero.
    pub(super) fn new(params: &SamplingParams, prompt: &[u32]) -> Option<Self> {
        (params.dry_multiplier > 0.0).then(|| Self {
            multiplier: params.dry_multiplier,
            base: params.dry_base,
            allowed_length: params.dry_allowed_length as usize,
            window: params.dry_penalty_last_n.map_or(usize::MAX, |n| n as usize),
            breakers: params.dry_sequence_breakers.clone(),
            history: prompt.to_vec(),
        })
    }

    pub(super) fn record(&mut self, id: u32) {
        self.history.push(id);
    }

    pub(super) fn apply(&self, candidates: &mut Candidates) {
        for (id, length) in self.repetitions() {
            if let Some(logit) = candidates.logit_of(id) {
                *logit -= self.multiplier * power(self.base, length - self.allowed_length);
            }
        }
    }

    /// For every token that would extend a repetition of at least the allowed length, the longest such repetition.
    fn repetitions(&self) -> HashMap<u32, usize> {
        let window = self.history.len().min(self.window);
        let newest_first: Vec<u32> = self.history[self.history.len() - window..].iter().rev().copied().collect();
        let limit = newest_first.iter().position(|id| self.breakers.contains(id)).unwrap_or(window);
        let mut longest = HashMap::new();
        if limit < self.allowed_length {
            return longest;
        }
        for (distance, &length) in common_prefixes(&newest_first).iter().enumerate().skip(1) {
            let (length, next) = (length.min(limit), newest_first[distance - 1]);
            if length >= self.allowed_length && !self.breakers.contains(&next) {
                longest.entry(next).and_modify(|most: &mut usize| *most = length.max(*most)).or_insert(length);
            }
        }
        longest
    }
}

/// For every position the length of the longest text that starts there and at the beginning (the Z function), in linear time.
fn common_prefixes(text: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; text.len()];
    // text[start..end] is the match that reaches furthest.
    let (mut start, mut end) = (0, 0);
    for at in 1..text.len() {
        let mut length = if at < end { lengths[at - start].min(end - at) } else { 0 };
        while at + length < text.len() && text[length] == text[at + length] {
            length += 1;
        }
        lengths[at] = length;
        if at + length > end {
            (start, end) = (at, at + length);
        }
    }
    lengths
}

/// `base ^ exponent` by squaring, in an order that every platform shares. Infinite when too large: the token is banned.
fn power(base: f32, exponent: usize) -> f32 {
    let (mut result, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            result *= square;
        }
        square *= square;
        left /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn repetitions_are_those_of_a_direct_search(
            history in prop::collection::vec(0u32..4, 0..60),
            window in prop::option::of(0u32..70),
            allowed in 1u32..4,
            breakers in prop::collection::btree_set(0u32..4, 0..2),
        ) {
            let params = SamplingParams {
                dry_multiplier: 1.0, dry_allowed_length: allowed, dry_penalty_last_n: window,
                dry_sequence_breakers: breakers.clone(), ..SamplingParams::default()
            };
            let seen = &history[history.len() - history.len().min(window.map_or(usize::MAX, |n| n as usize))..];
            let mut expected = HashMap::new();
            for next in (0..seen.len()).filter(|&next| !breakers.contains(&seen[next])) {
                let same = |n: &usize| seen[next - n] == seen[seen.len() - n] && !breakers.contains(&seen[seen.len() - n]);
                let length = (1..=next).take_while(same).count();
                if length >= allowed as usize {
                    let most = expected.entry(seen[next]).or_insert(0);
                    *most = length.max(*most);
                }
            }
            prop_assert_eq!(Dry::new(&params, &history).unwrap().repetitions(), expected);
        }
    }

    #[test]
    fn powers() {
        assert_eq!((power(1.75, 0), power(1.75, 1), power(2.0, 10), power(1.5, 3)), (1.0, 1.75, 1024.0, 3.375));
        assert_eq!((power(1.75, 100_000), power(1.0, 100_000)), (f32::INFINITY, 1.0));
    }
}
