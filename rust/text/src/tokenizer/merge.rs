//! The merge loop that byte-pair encoding and SentencePiece share: of all adjacent pairs that may merge, the one of lowest rank
//! merges first, and of equal ranks the leftmost, until none is left.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, TryReserveError};

use foldhash::fast::RandomState;

/// Below this length, scanning an array for the lowest rank is faster than a heap.
const SHORT: usize = 48;
/// The rank of a pair that does not merge.
const NEVER: Pair = Pair { rank: u32::MAX, merged: u32::MAX };
const END: u32 = u32::MAX;
/// Candidates of a long piece between two questions whether to go on.
const CHECK_EVERY: u32 = 1 << 13;

/// What two adjacent symbols become, and how early.
#[derive(Clone, Copy, Debug)]
struct Pair {
    rank: u32,
    merged: u32,
}

/// The pairs of symbols that merge. Hashing is seeded: a file cannot choose keys that collide.
#[derive(Debug, Default)]
pub struct Merges {
    pairs: HashMap<u64, Pair, RandomState>,
}

/// Memory that one encoder reuses from piece to piece.
#[derive(Debug, Default)]
pub struct Scratch {
    pairs: Vec<Pair>,
    next: Vec<u32>,
    previous: Vec<u32>,
    queue: BinaryHeap<Reverse<u64>>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Merges {
    pub fn with_capacity(n: usize) -> Self {
        Self { pairs: HashMap::with_capacity_and_hasher(n, RandomState::default()) }
    }

    /// Lets `left` and `right` merge into `merged`. The first rank given to a pair stays; `rank` is below `u32::MAX`.
    pub fn insert(&mut self, left: u32, right: u32, rank: u32, merged: u32) {
        self.pairs.entry(key(left, right)).or_insert(Pair { rank, merged });
    }

    #[inline]
    fn pair(&self, left: u32, right: u32) -> Pair {
        self.pairs.get(&key(left, right)).copied().unwrap_or(NEVER)
    }

    /// Merges `symbols` in place: at most `u32::MAX - 1` of them, in O(n log n). A long piece asks `go_on` every few thousand merges
    /// whether to continue; false once that said no, and then `symbols` mean nothing.
    ///
    /// # Errors
    /// There is no memory: about 30 bytes for each symbol.
    pub fn apply(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch, go_on: &mut dyn FnMut() -> bool) -> Result<bool, TryReserveError> {
        match symbols.len() {
            0 | 1 => Ok(true),
            2..=SHORT => {
                self.apply_short(symbols, &mut scratch.pairs);
                Ok(true)
            }
            _ => self.apply_long(symbols, scratch, go_on),
        }
    }

    fn apply_short(&self, symbols: &mut Vec<u32>, pairs: &mut Vec<Pair>) {
        // pairs[i] is the pair of symbols i and i + 1.
        pairs.clear();
        pairs.extend(symbols.windows(2).map(|w| self.pair(w[0], w[1])));
        loop {
            let mut best = 0;
            let mut lowest = NEVER;
            for (i, pair) in pairs.iter().enumerate() {
                if pair.rank < lowest.rank {
                    (best, lowest) = (i, *pair);
                }
            }
            if lowest.rank == NEVER.rank {
                return;
            }
            symbols[best] = lowest.merged;
            symbols.remove(best + 1);
            pairs.remove(best);
            if best > 0 {
                pairs[best - 1] = self.pair(symbols[best - 1], symbols[best]);
            }
            if best + 1 < symbols.len() {
                pairs[best] = self.pair(symbols[best], symbols[best + 1]);
            }
        }
    }

    /// A linked list over the symbols and a heap of (rank, position). Entries are never removed from the heap: one whose pair has
    /// changed no longer has the rank that `pairs` holds for its position, and is passed over.
    fn apply_long(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch, go_on: &mut dyn FnMut() -> bool) -> Result<bool, TryReserveError> {
        let Scratch { pairs, next, previous, queue } = scratch;
        let n = symbols.len();
        assert!(n < END as usize, "positions are 32 bits");
        pairs.clear();
        pairs.try_reserve(n)?;
        pairs.extend(symbols.windows(2).map(|w| self.pair(w[0], w[1])));
        pairs.push(NEVER);
        next.clear();
        next.try_reserve(n)?;
        next.extend(1..n as u32);
        next.push(END);
        previous.clear();
        previous.try_reserve(n)?;
        previous.push(END);
        previous.extend(0..n as u32 - 1);
        let entry = |rank: u32, at: u32| Reverse(u64::from(rank) << 32 | u64::from(at));
        queue.clear();
        queue.try_reserve(n)?;
        queue.extend((0..n).filter(|&i| pairs[i].rank != NEVER.rank).map(|i| entry(pairs[i].rank, i as u32)));
        let mut until_check = CHECK_EVERY;
        while let Some(Reverse(top)) = queue.pop() {
            until_check -= 1;
            if until_check == 0 {
                until_check = CHECK_EVERY;
                if !go_on() {
                    *scratch = Scratch::default();
                    return Ok(false);
                }
            }
            // A merge makes at most two new pairs.
            queue.try_reserve(2)?;
            let (rank, at) = ((top >> 32) as u32, top as u32);
            let pair = pairs[at as usize];
            if pair.rank != rank {
                continue;
            }
            let gone = next[at as usize];
            let after = next[gone as usize];
            symbols[at as usize] = pair.merged;
            pairs[gone as usize] = NEVER;
            next[at as usize] = after;
            let mut renew = |left: u32, right: u32| {
                let pair = self.pair(symbols[left as usize], symbols[right as usize]);
                pairs[left as usize] = pair;
                if pair.rank != NEVER.rank {
                    queue.push(entry(pair.rank, left));
                }
            };
            let before = previous[at as usize];
            if before != END {
                renew(before, at);
            }
            if after == END {
                pairs[at as usize] = NEVER;
            } else {
                previous[after as usize] = at;
                renew(at, after);
            }
        }
        let (mut kept, mut at) = (0, 0);
        while at != END {
            symbols[kept] = symbols[at as usize];
            kept += 1;
            at = next[at as usize];
        }
        symbols.truncate(kept);
        // A piece of a hundred megabytes should not hold its memory for the rest of the text.
        if n > 1 << 20 {
            *scratch = Scratch::default();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, slowly.
    fn reference(rules: &[(u32, u32, u32)], symbols: &[u32]) -> Vec<u32> {
        let mut symbols = symbols.to_vec();
        loop {
            let rank = |w: &[u32]| rules.iter().position(|r| (r.0, r.1) == (w[0], w[1]));
            let best = symbols.windows(2).enumerate().filter_map(|(i, w)| rank(w).map(|r| (r, i))).min();
            let Some((rank, at)) = best else { return symbols };
            symbols.splice(at..at + 2, [rules[rank].2]);
        }
    }

    proptest! {
        #[test]
        fn short_and_long_agree_with_the_definition(
            rules in prop::collection::vec((0u32..6, 0u32..6, 0u32..9), 0..24),
            symbols in prop::collection::vec(0u32..4, 0..40),
        ) {
            let mut merges = Merges::default();
            for (rank, rule) in rules.iter().enumerate() {
                merges.insert(rule.0, rule.1, rank as u32, rule.2);
            }
            let expected = reference(&rules, &symbols);
            let mut scratch = Scratch::default();
            let mut short = symbols.clone();
            prop_assert_eq!(merges.apply(&mut short, &mut scratch, &mut || true), Ok(true));
            prop_assert_eq!(&short, &expected);
            if symbols.len() > 1 {
                let mut long = symbols;
                prop_assert_eq!(merges.apply_long(&mut long, &mut scratch, &mut || true), Ok(true));
                prop_assert_eq!(&long, &expected);
            }
        }
    }
}
