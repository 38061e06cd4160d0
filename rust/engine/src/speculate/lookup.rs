//! Prompt lookup (Saxena, 2023): the text is guessed to go on as it did where it last read alike.

use std::collections::HashMap;

/// Earlier places that are compared; the latest come first.
const PLACES: usize = 16;
/// Tokens before the end that are compared at most.
const LONGEST: usize = 32;

/// The pairs of tokens of a growing text, each with the places where it stands.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    /// Position after the latest occurrence of a pair.
    latest: HashMap<(u32, u32), u32>,
    /// For each position the one before it that follows the same pair; 0: none.
    before: Vec<u32>,
}

/// How the text may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    /// Position of the text where the guess begins.
    pub(crate) at: usize,
    /// Tokens before it that are the same as those before the end: at least two.
    pub(crate) matched: usize,
}

impl Lookup {
    /// Takes what is new in `tokens`; the guess for what follows its end.
    pub(crate) fn guess(&mut self, tokens: &[u32]) -> Option<Guess> {
        let end = tokens.len();
        self.before.resize(self.before.len().max(2), 0);
        // A pair is entered once something follows it: the position `at` follows the pair before it.
        for at in self.before.len()..end {
            let earlier = self.latest.insert((tokens[at - 2], tokens[at - 1]), at as u32);
            self.before.push(earlier.unwrap_or(0));
        }
        let &[.., a, b] = tokens else { return None };
        let mut place = self.latest.get(&(a, b)).copied().unwrap_or(0) as usize;
        let mut best: Option<Guess> = None;
        for _ in 0..PLACES {
            if place == 0 {
                break;
            }
            let pairs = tokens[..place].iter().rev().zip(tokens.iter().rev());
            let matched = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
            if best.is_none_or(|best| matched > best.matched) {
                best = Some(Guess { at: place, matched });
            }
            place = self.before[place] as usize;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_match_wins_and_of_equals_the_latest() {
        let mut lookup = Lookup::default();
        assert_eq!(lookup.guess(&[1]), None);
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 2, 3]), Some(Guess { at: 3, matched: 2 }));
        // 9 2 3 stands nowhere else, so the latest 2 3 is taken.
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 2, 3, 5, 2, 3]), Some(Guess { at: 6, matched: 2 }));
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 2, 3, 5, 2, 3, 1, 2, 3]), Some(Guess { at: 3, matched: 3 }));
    }

    proptest! {
        #[test]
        fn agrees_with_a_search(tokens in prop::collection::vec(0..3_u32, 0..14)) {
            // Short enough that no place is left out.
            let mut lookup = Lookup::default();
            for end in 0..=tokens.len() {
                let text = &tokens[..end];
                let matched = |at: usize| text[..at].iter().rev().zip(text.iter().rev()).take_while(|(a, b)| a == b).count();
                let best = (2..end).map(|at| Guess { at, matched: matched(at) }).filter(|guess| guess.matched >= 2);
                prop_assert_eq!(lookup.guess(text), best.max_by_key(|guess| (guess.matched, guess.at)));
            }
        }
    }
}
