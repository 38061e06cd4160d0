//! Speculative decoding (Leviathan et al., 2023), without loss: tokens are guessed and computed beside the one that is certain, and
//! those that the sampler then chooses are kept. Sampling sees the same logits and the same random numbers in the same order as
//! without, so that the output is the same, bit for bit.
//!
//! They come from the text itself (prompt lookup) or from a draft model. The former cost no pass of their own and are compared with what is chosen whether they were computed or not: the chance of the next
//! ones is known before they are paid for, and nothing is computed that the [cost model](cost) finds too dear.

pub(crate) mod cost;
pub(crate) mod draft;
mod lookup;

use lookup::{Guess, Lookup};

/// Most tokens that are guessed at once.
pub(crate) const MAX_DRAFT: usize = 15;
/// Weight of the latest outcome.
const LATEST: f64 = 0.1;
/// Chance of a guess until outcomes are known.
const FIRST_CHANCE: f64 = 0.5;
/// The same for guesses of a draft model.
const FIRST_DRAFT_CHANCE: f64 = 0.7;
/// Least tokens that match before a guess, for each class of guesses.
const CLASSES: [usize; 4] = [2, 3, 5, 9];

/// The guesses about one text.
#[derive(Debug)]
pub(crate) struct Speculation {
    lookup: Lookup,
    /// How often the next token of a guess came true, by class.
    chances: Chances,
    /// The guess for what follows, made at so many tokens.
    guess: Option<(usize, Guess)>,
    draft_chance: f64,
}

impl Default for Speculation {
    fn default() -> Self {
        Self { lookup: Lookup::default(), chances: Chances::default(), guess: None, draft_chance: FIRST_DRAFT_CHANCE }
    }
}

#[derive(Debug)]
struct Chances([f64; CLASSES.len()]);

impl Default for Chances {
    fn default() -> Self {
        Self([FIRST_CHANCE; CLASSES.len()])
    }
}

impl Chances {
    fn class(matched: usize) -> usize {
        CLASSES.iter().rposition(|&least| matched >= least).unwrap_or(0)
    }

    fn update(&mut self, matched: usize, came_true: bool) {
        let chance = &mut self.0[Self::class(matched)];
        *chance += LATEST * (f64::from(u8::from(came_true)) - *chance);
    }
}

impl Speculation {
    /// Learns from the tokens that came after the last guess, and guesses what follows `tokens`.
    pub(crate) fn observe(&mut self, tokens: &[u32]) {
        if let Some((end, guess)) = self.guess.take() {
            // One token further the match is one longer, as long as the guess comes true.
            for (i, token) in tokens.iter().enumerate().skip(end) {
                let came_true = tokens[guess.at + i - end] == *token;
                self.chances.update(guess.matched + i - end, came_true);
                if !came_true {
                    break;
                }
            }
        }
        self.guess = self.lookup.guess(tokens).map(|guess| (tokens.len(), guess));
    }

    /// How often the next token of a guess of the draft model came true.
    pub(crate) fn draft_chance(&self) -> f64 {
        self.draft_chance
    }

    /// Of a guess of the draft model, `right` of `count` tokens came true.
    pub(crate) fn drafted(&mut self, right: usize, count: usize) {
        for i in 0..count.min(right + 1) {
            self.draft_chance += LATEST * (f64::from(u8::from(i < right)) - self.draft_chance);
        }
    }

    /// The chances that the first, the first two, … tokens of the guess all come true.
    pub(crate) fn chances(&self, tokens: &[u32]) -> impl Iterator<Item = f64> + '_ {
        let (at, matched) = self.guess.as_ref().map_or((tokens.len(), 0), |(_, guess)| (guess.at, guess.matched));
        (0..MAX_DRAFT.min(tokens.len() - at)).scan(1.0, move |all, i| {
            *all *= self.chances.0[Chances::class(matched + i)];
            Some(*all)
        })
    }

    /// The first `count` tokens of the guess.
    pub(crate) fn draft<'a>(&self, tokens: &'a [u32], count: usize) -> &'a [u32] {
        let at = self.guess.as_ref().map_or(tokens.len(), |(_, guess)| guess.at);
        &tokens[at..tokens.len().min(at + count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_follow_what_comes_true() {
        let mut speculation = Speculation::default();
        let mut tokens: Vec<u32> = (0..50).collect();
        speculation.observe(&tokens);
        assert_eq!(speculation.draft(&tokens, 3), [] as [u32; 0]);
        for i in 0..50 {
            tokens.push(i);
            speculation.observe(&tokens);
        }
        assert_eq!(speculation.draft(&tokens[..], 3), [0, 1, 2]);
        let chances: Vec<f64> = speculation.chances(&tokens).collect();
        assert_eq!(chances.len(), MAX_DRAFT);
        assert!(chances[0] > 0.9 && chances.is_sorted_by(|a, b| a >= b), "{chances:?}");
        // Text that goes on otherwise after the same pair.
        for token in (0..40).flat_map(|i| [7, 8, 100 + i]).chain([7, 8]) {
            tokens.push(token);
            speculation.observe(&tokens);
        }
        assert!(speculation.chances(&tokens).next().unwrap() < 0.1);
    }
}
