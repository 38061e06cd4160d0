//! Guesses beside the certain rows of a step: from the texts themselves, and from a draft model.

use std::sync::atomic::Ordering;

use super::step::{Part, Scheduler};
use crate::decoder::{DecodeError, Decoder};
use crate::error::Failure;
use crate::speculate::draft::Wanted;

/// Steps after which a draft model that did not pay is asked again.
const ASK_AGAIN: u64 = 64;

impl<D: Decoder> Scheduler<D> {
    /// Adds guesses to a step in which every request decodes, as far as they pay: the likeliest first.
    pub(super) fn speculate(&mut self, parts: &mut [Part]) {
        let decoding = |part: &Part| self.running[part.index].remaining() == 1;
        if !self.limits.speculate || parts.is_empty() || !parts.iter().all(decoding) {
            return;
        }
        let drafted = self.draft(parts);
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let context_length = self.limits.context_length;
        let of = |(part, p): (usize, &Part)| self.running[p.index].chances(context_length).map(move |chance| (chance, part));
        let mut chances: Vec<(f64, usize)> = parts.iter().enumerate().filter(|(_, p)| p.rows == 1).flat_map(of).collect();
        chances.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most = self.limits.max_rows.saturating_sub(rows);
        let count = self.cost.worth(rows, chances.iter().map(|chance| chance.0).take(most));
        for &(_, part) in &chances[..count] {
            parts[part].rows += 1;
            let running = &mut self.running[parts[part].index];
            running.look_up(parts[part].rows - 1);
        }
        self.shared.drafted_tokens.fetch_add((drafted + count) as u64, Ordering::Relaxed);
        self.shared.accepted_tokens.fetch_add((drafted + count) as u64, Ordering::Relaxed);
    }

    /// Takes guesses that did not come true out of the KV cache: how many rows of which request.
    pub(super) fn drop_wrong(&mut self, guesses: &[(usize, usize)]) {
        for &(index, rows) in guesses {
            let running = &mut self.running[index];
            self.shared.accepted_tokens.fetch_sub(rows as u64, Ordering::Relaxed);
            if let Err(failure) = self.decoder.truncate(running.sequence, running.in_cache().len()) {
                running.outcome = Some(Err(failure));
            }
        }
    }

    /// Lets the draft model continue the texts whose own guesses are less likely than its; tokens guessed.
    fn draft(&mut self, parts: &mut [Part]) -> usize {
        if self.drafter.is_none() {
            return 0;
        }
        let interrupt = &self.shared.interrupt;
        interrupt.arm(parts.iter().map(|part| self.running[part.index].task.ticket.id()), self.shielded);
        let drafted = self.ask_drafter(parts);
        self.shared.interrupt.disarm();
        drafted.unwrap_or_else(|failure| {
            // The texts go on without it; after a cancellation it is as it was.
            if let (false, Some(drafter)) = (matches!(failure, Failure::Decode(DecodeError::Cancelled)), &mut self.drafter) {
                drafter.forget();
            }
            0
        })
    }

    fn ask_drafter(&mut self, parts: &mut [Part]) -> Result<usize, Failure> {
        let Self { running, drafter: Some(drafter), cost, shared, limits, step, .. } = self else { return Ok(0) };
        let chances: Vec<(usize, f64)> =
            parts.iter().enumerate().filter_map(|(i, part)| Some((i, running[part.index].draft_chance(limits.context_length)?))).collect();
        let mean = chances.iter().map(|(_, chance)| chance).sum::<f64>() / chances.len().max(1) as f64;
        let depth = match drafter.seconds() {
            Some(seconds) => cost.depth(parts.len(), chances.len(), mean, seconds).max(usize::from(step.is_multiple_of(ASK_AGAIN))),
            None => 2,
        };
        if depth == 0 || parts.len() + chances.len() * depth > limits.max_rows {
            return Ok(0);
        }
        let cancel = shared.interrupt.flag();
        let mut ready = Vec::new();
        for (i, _) in chances {
            let task = &running[parts[i].index].task;
            if drafter.read(task.ticket.id(), &task.salt, &task.tokens, cancel)? {
                ready.push(i);
            }
        }
        let of = |&i: &usize| {
            let running = &running[parts[i].index];
            Wanted { id: running.task.ticket.id(), tokens: &running.task.tokens, count: depth.min(running.room(limits.context_length)) }
        };
        let wanted: Vec<Wanted<'_>> = ready.iter().map(of).collect();
        let guesses = drafter.guess(&wanted, cancel)?;
        let mut drafted = 0;
        for (i, guess) in ready.into_iter().zip(guesses) {
            drafted += guess.len();
            parts[i].rows += guess.len();
            running[parts[i].index].take_guess(guess);
        }
        Ok(drafted)
    }
}
