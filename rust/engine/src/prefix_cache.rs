//! Sequences that ended, kept for requests that begin alike.
//!
//! The kept token sequences lie in lexicographic order. In that order the sequences that share the longest beginning with any tokens are
//! their neighbours, so that a sorted map answers what a radix tree would; blocks of keys and values are shared below it, by the decoder.
//!
//! Every salt has a map of its own: a request finds nothing that was computed for a request with a different salt. Only the limits on
//! entries and memory are common to all, and the order of eviction.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use fastllm_model::batch::SequenceId;

/// Most sequences that are kept.
const MAX_ENTRIES: usize = 1024;
/// Neighbours on each side that are looked at: the nearest may have left the shared beginning behind its window.
const NEIGHBOURS: usize = 16;
/// Fewest shared tokens worth a sequence of their own.
pub(crate) const LEAST_SHARED: usize = 32;

/// The sequences that are kept, by the salt of their requests and their tokens.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    salted: HashMap<Arc<str>, Entries>,
    len: usize,
    clock: u64,
}

type Entries = BTreeMap<Box<[u32]>, Entry>;

#[derive(Debug)]
struct Entry {
    sequence: SequenceId,
    /// When it was last of use.
    used: u64,
}

/// Where a request can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The sequence to fork and at how many positions, if there is one.
    pub(crate) fork: Option<(SequenceId, usize)>,
    /// More tokens that are shared with a sequence which has forgotten its state after them: worth keeping this time.
    pub(crate) split: Option<usize>,
}

impl PrefixCache {
    /// The longest beginning of `tokens` that can be forked; `forkable(sequence, most)` says how much of the first `most` positions of
    /// a sequence can be.
    pub(crate) fn find(&mut self, salt: &str, tokens: &[u32], forkable: impl Fn(SequenceId, usize) -> usize) -> Found {
        let Some(entries) = self.salted.get_mut(salt) else { return Found { fork: None, split: None } };
        let mut best: Option<(usize, SequenceId, Box<[u32]>)> = None;
        let mut shared = 0;
        let mut look = |neighbours: &mut dyn Iterator<Item = (&Box<[u32]>, &Entry)>| {
            for (key, entry) in neighbours.take(NEIGHBOURS) {
                let common = common_prefix(key, tokens);
                shared = shared.max(common);
                if common <= best.as_ref().map_or(0, |best| best.0) {
                    break;
                }
                let len = forkable(entry.sequence, common);
                if len > best.as_ref().map_or(0, |best| best.0) {
                    best = Some((len, entry.sequence, key.clone()));
                }
            }
        };
        look(&mut entries.range::<[u32], _>((Unbounded, Included(tokens))).rev());
        look(&mut entries.range::<[u32], _>((Excluded(tokens), Unbounded)));
        let fork = best.map(|(len, sequence, key)| {
            touch(entries, &mut self.clock, &key);
            (sequence, len)
        });
        let split = Some(shared).filter(|&shared| shared >= fork.map_or(0, |(_, len)| len) + LEAST_SHARED);
        Found { fork, split }
    }

    /// Keeps a sequence with these tokens. Returns sequences that are not needed any more: the same tokens again, or beginnings that a
    /// fork of the new one replaces.
    pub(crate) fn insert(
        &mut self,
        salt: &Arc<str>,
        tokens: Box<[u32]>,
        sequence: SequenceId,
        forkable: impl Fn(SequenceId, usize) -> usize,
    ) -> Vec<SequenceId> {
        let entries = self.salted.entry(Arc::clone(salt)).or_default();
        let longer = entries.range::<[u32], _>((Included(&*tokens), Unbounded)).next();
        if let Some((key, entry)) = longer
            && key.starts_with(&tokens)
            && forkable(entry.sequence, tokens.len()) == tokens.len()
        {
            let key = key.clone();
            touch(entries, &mut self.clock, &key);
            return vec![sequence];
        }
        let before = entries.len();
        let shorter = entries.range::<[u32], _>((Unbounded, Excluded(&*tokens))).rev().take(NEIGHBOURS);
        let replaced = shorter.filter(|(key, _)| tokens.starts_with(key) && forkable(sequence, key.len()) == key.len());
        let replaced: Vec<Box<[u32]>> = replaced.map(|(key, _)| key.clone()).collect();
        let mut unused: Vec<SequenceId> = replaced.iter().filter_map(|key| entries.remove(key)).map(|e| e.sequence).collect();
        self.clock += 1;
        unused.extend(entries.insert(tokens, Entry { sequence, used: self.clock }).map(|e| e.sequence));
        self.len = self.len - before + entries.len();
        if self.len > MAX_ENTRIES {
            unused.extend(self.evict());
        }
        unused
    }

    /// Gives up the sequence that was not of use for the longest time, of any salt.
    pub(crate) fn evict(&mut self) -> Option<SequenceId> {
        let all = self.salted.iter().flat_map(|(salt, entries)| entries.iter().map(move |(key, entry)| (entry.used, salt, key)));
        let (salt, key) = all.min_by_key(|&(used, _, _)| used).map(|(_, salt, key)| (Arc::clone(salt), key.clone()))?;
        let entries = self.salted.get_mut(&salt)?;
        let evicted = entries.remove(&key)?;
        if entries.is_empty() {
            self.salted.remove(&salt);
        }
        self.len -= 1;
        Some(evicted.sequence)
    }
}

/// Marks an entry as used now.
fn touch(entries: &mut Entries, clock: &mut u64, key: &[u32]) {
    *clock += 1;
    if let Some(entry) = entries.get_mut(key) {
        entry.used = *clock;
    }
}

/// Tokens at the beginning of both.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn salt() -> Arc<str> {
        Arc::from("")
    }

    fn all(_: SequenceId, most: usize) -> usize {
        most
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = PrefixCache::default();
        for (id, first) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(cache.insert(&salt(), [first, 9, 9].into(), SequenceId(id), all), []);
        }
        assert_eq!(cache.find("", &[1, 9], all).fork, Some((SequenceId(0), 2)));
        assert_eq!(std::iter::from_fn(|| cache.evict()).map(|id| id.0).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn a_longer_sequence_replaces_its_beginnings() {
        let mut cache = PrefixCache::default();
        cache.insert(&salt(), [1, 2].into(), SequenceId(0), all);
        assert_eq!(cache.insert(&salt(), [1, 2, 3].into(), SequenceId(1), all), [SequenceId(0)]);
        assert_eq!(cache.insert(&salt(), [1].into(), SequenceId(2), all), [SequenceId(2)], "no use beside a longer one");
        assert_eq!(cache.insert(&salt(), [1, 2, 3].into(), SequenceId(3), all), [SequenceId(3)]);
        // One that has left its beginning behind replaces nothing.
        let end_only = |id: SequenceId, most: usize| if id == SequenceId(4) && most < 4 { 0 } else { most };
        assert_eq!(cache.insert(&salt(), [1, 2, 3, 4].into(), SequenceId(4), end_only), []);
        assert_eq!(cache.find("", &[1, 2, 3, 4, 5], end_only).fork, Some((SequenceId(4), 4)));
        assert_eq!(cache.find("", &[1, 2, 3, 9], end_only).fork, Some((SequenceId(1), 3)));
    }

    #[test]
    fn a_shared_beginning_that_was_forgotten_is_reported() {
        let mut cache = PrefixCache::default();
        let tokens: Vec<u32> = (0..100).collect();
        let none = |_: SequenceId, most: usize| if most == 100 { 100 } else { 0 };
        cache.insert(&salt(), tokens.clone().into(), SequenceId(0), none);
        let other: Vec<u32> = tokens[..60].iter().copied().chain([7, 7]).collect();
        assert_eq!(cache.find("", &other, none), Found { fork: None, split: Some(60) });
        assert_eq!(cache.find("", &other[..20], none), Found { fork: None, split: None });
    }

    #[test]
    fn salts_share_nothing_but_the_order_of_eviction() {
        let mut cache = PrefixCache::default();
        let (one, two): (Arc<str>, Arc<str>) = (Arc::from("one"), Arc::from("two"));
        let tokens: Vec<u32> = (0..100).collect();
        assert_eq!(cache.insert(&one, tokens.clone().into(), SequenceId(0), all), []);
        for salt in ["two", ""] {
            assert_eq!(cache.find(salt, &tokens, all), Found { fork: None, split: None }, "neither a fork nor a hint of one");
        }
        assert_eq!(cache.insert(&two, tokens.clone().into(), SequenceId(1), all), [], "the same tokens are kept twice");
        assert_eq!(cache.find("one", &tokens, all).fork, Some((SequenceId(0), 100)));
        assert_eq!(std::iter::from_fn(|| cache.evict()).map(|id| id.0).collect::<Vec<_>>(), [1, 0]);
        assert!(cache.salted.is_empty(), "a salt without entries takes no memory");
    }

    #[test]
    fn the_number_of_entries_is_limited_over_all_salts() {
        let mut cache = PrefixCache::default();
        let mut unused = 0;
        for n in 0..MAX_ENTRIES as u32 + 10 {
            unused += cache.insert(&Arc::from(n.to_string()), [n].into(), SequenceId(n), all).len();
        }
        assert_eq!((unused, cache.len, cache.salted.len()), (10, MAX_ENTRIES, MAX_ENTRIES));
    }

    proptest! {
        #[test]
        fn neighbours_share_the_most(
            entries in prop::collection::vec(prop::collection::vec(0..3_u32, 0..8), 0..20),
            query in prop::collection::vec(0..3_u32, 0..8),
        ) {
            let mut cache = PrefixCache::default();
            for (id, tokens) in entries.iter().enumerate() {
                cache.insert(&salt(), tokens.clone().into(), SequenceId(id as u32), all);
            }
            let best = entries.iter().map(|tokens| common_prefix(tokens, &query)).max().unwrap_or(0);
            prop_assert_eq!(cache.find("", &query, all).fork.map_or(0, |(_, len)| len), best);
        }
    }
}
