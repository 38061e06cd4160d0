//! A request that owns a sequence of the decoder.

use std::time::Duration;

use fastllm_model::batch::{Row, SequenceId};

use super::generation::End;
use super::guard::catch;
use super::task::{Task, Work};
use crate::error::Failure;
use crate::event::{Event, FinishReason, Finished, Usage};
use crate::sampling::Scratch;
use crate::saved::StateError;
use crate::speculate::Speculation;

/// A task, its sequence, and how far the one is in the other.
pub(crate) struct Running {
    pub(crate) task: Task,
    pub(crate) sequence: SequenceId,
    prompt_tokens: usize,
    /// Tokens of `task.tokens` that are in the KV cache.
    committed: usize,
    /// Of these, the tokens of the prompt that another sequence had computed.
    cached: usize,
    /// Whether it was decided where to begin.
    pub(crate) begun: bool,
    /// Tokens of the prompt that others begin with too: its state after them is worth keeping.
    pub(crate) split: Option<usize>,
    /// Guesses about its text, where guesses are made.
    speculation: Option<Speculation>,
    /// Tokens after `task.tokens` that are computed on suspicion.
    draft: Vec<u32>,
    /// Whether a draft model guessed them.
    drafted: bool,
    /// The step in which its prompt was last served.
    pub(crate) served: u64,
    /// Set when it is over; it leaves at the end of the step.
    pub(crate) outcome: Option<Result<End, Failure>>,
}

/// What one forward pass cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
}

impl Running {
    pub(crate) fn new(mut task: Task, sequence: SequenceId, speculate: bool) -> Self {
        let speculation = (speculate && matches!(task.work, Work::Generate(_))).then(Speculation::default);
        task.watch.admit();
        let prompt_tokens = task.tokens.len();
        Self {
            task,
            sequence,
            prompt_tokens,
            committed: 0,
            cached: 0,
            begun: false,
            split: None,
            speculation,
            draft: Vec::new(),
            drafted: false,
            served: 0,
            outcome: None,
        }
    }

    /// Tokens that are not in the KV cache: one while it decodes, more while it reads its prompt.
    pub(crate) fn remaining(&self) -> usize {
        self.task.tokens.len() - self.committed
    }

    /// The prompt.
    pub(crate) fn prompt(&self) -> &[u32] {
        &self.task.tokens[..self.prompt_tokens]
    }

    /// The tokens in the KV cache.
    pub(crate) fn in_cache(&self) -> &[u32] {
        &self.task.tokens[..self.committed]
    }

    /// Begins with the first `len` tokens of the prompt in the KV cache.
    pub(crate) fn begin(&mut self, len: usize) {
        (self.begun, self.committed, self.cached) = (true, len, len);
    }

    /// Whether its state is still to be read from a file.
    pub(crate) fn restores(&self) -> bool {
        matches!(&self.task.work, Work::Transfer(transfer) if transfer.restore.is_some())
    }

    /// Its state was restored: `len` positions, all of the prompt.
    pub(crate) fn restored(&mut self, len: usize) -> Result<(), StateError> {
        if len != self.prompt_tokens {
            return Err(StateError::Damaged("it has another number of tokens"));
        }
        self.begin(len);
        Ok(())
    }

    /// Rows that it may take at once: up to where its state is to be kept.
    pub(crate) fn until_split(&self) -> usize {
        self.split.map_or(usize::MAX, |split| split.saturating_sub(self.committed).max(1))
    }

    /// Whether the logits of every position that it computes next are wanted.
    pub(crate) fn wants_all_logits(&self) -> bool {
        match &self.task.work {
            Work::Generate(generation) => self.committed < self.prompt_tokens && generation.wants_prompt_logprobs(),
            Work::Logits(_) => true,
            Work::Transfer(_) => false,
        }
    }

    /// Whether its tokens are the beginning of what others may ask for: logits are read once.
    pub(crate) fn may_come_back(&self) -> bool {
        !self.wants_all_logits() && self.committed > 0
    }

    /// Tokens after the certain one that may still be of use.
    pub(crate) fn room(&self, context_length: usize) -> usize {
        match &self.task.work {
            Work::Generate(generation) => generation.left().saturating_sub(1).min(context_length.saturating_sub(self.task.tokens.len())),
            Work::Logits(_) | Work::Transfer(_) => 0,
        }
    }

    /// The chances that the first, the first two, … tokens of a guess from the text come true.
    pub(crate) fn chances(&self, context_length: usize) -> impl Iterator<Item = f64> {
        let tokens = &self.task.tokens;
        self.speculation.iter().flat_map(|speculation| speculation.chances(tokens)).take(self.room(context_length))
    }

    /// The chance of the next token of a draft model, where that is higher than what the text itself says, and there is room.
    pub(crate) fn draft_chance(&self, context_length: usize) -> Option<f64> {
        let chance = self.speculation.as_ref().filter(|_| self.room(context_length) > 0)?.draft_chance();
        self.chances(context_length).next().is_none_or(|own| own < chance).then_some(chance)
    }

    /// Computes the first `count` tokens of the guess from the text beside the certain one.
    pub(crate) fn look_up(&mut self, count: usize) {
        self.draft.clear();
        self.drafted = false;
        if let Some(speculation) = &self.speculation {
            self.draft.extend_from_slice(speculation.draft(&self.task.tokens, count));
        }
    }

    /// Computes the guess of a draft model beside the certain token.
    pub(crate) fn take_guess(&mut self, guess: Vec<u32>) {
        (self.draft, self.drafted) = (guess, true);
    }

    /// How many of its next `count` rows ask for logits.
    pub(crate) fn wanted_logits(&self, count: usize) -> usize {
        match self.task.work {
            _ if self.wants_all_logits() => count,
            Work::Generate(_) => (count + 1).saturating_sub(self.remaining()),
            Work::Logits(_) => count,
            Work::Transfer(_) => 0,
        }
    }

    /// Appends the next `count` rows of this request.
    pub(crate) fn extend_rows(&self, count: usize, rows: &mut Vec<Row>) {
        let (tokens, last, all) = (&self.task.tokens, self.task.tokens.len() - 1, self.wants_all_logits());
        let positions = self.committed..self.committed + count;
        rows.extend(positions.map(|position| Row {
            sequence: self.sequence,
            position: position as u32,
            token: tokens.get(position).copied().unwrap_or_else(|| self.draft[position - tokens.len()]),
            logits: match self.task.work {
                Work::Generate(_) => all || position >= last,
                Work::Logits(_) | Work::Transfer(_) => all,
            },
        }));
    }

    /// Takes the result of a forward pass over its next `count` rows: the logits of those that asked for them, in order. Rows of guesses
    /// that did not come true are not counted as in the KV cache: their number is returned.
    pub(crate) fn absorb(
        &mut self,
        count: usize,
        logits: &mut dyn Iterator<Item = &[f32]>,
        context_length: usize,
        scratch: &mut Scratch,
        cost: Cost,
    ) -> usize {
        let (first, known, all) = (self.committed, self.task.tokens.len(), self.wants_all_logits());
        let certain = count.min(known - first);
        self.committed += certain;
        self.draft.truncate(count - certain);
        let Self { task, prompt_tokens, committed, draft, drafted, speculation, .. } = self;
        if first < *prompt_tokens {
            task.ticket.send(Event::Prefill { done: *committed, total: *prompt_tokens });
        }
        let Task { ticket, tokens, work, watch, .. } = task;
        if let Work::Generate(generation) = work
            && all
        {
            // After the last token of the prompt comes what is generated.
            let next = &tokens[first + 1..(*committed + 1).min(known)];
            match catch("reading logits", || generation.prompt_logprobs(next, Iterator::take(&mut *logits, next.len()))) {
                Ok(Ok(found)) => ticket.send(Event::PromptLogprobs(found)),
                Ok(Err(failure)) | Err(failure) => {
                    self.outcome = Some(Err(failure));
                    return first + count - *committed;
                }
            }
        }
        let result = match work {
            Work::Generate(_) if *committed < known => Ok(Ok(None)),
            Work::Generate(generation) => catch("sampling", || {
                watch.token(cost.time, cost.bytes);
                let show = &mut |token| ticket.send(Event::Token(token));
                let before = generation.made();
                let mut end = None;
                for logits in logits {
                    // Otherwise it is certain what follows this row.
                    if *committed == tokens.len() {
                        end = generation.advance(tokens, logits, context_length, scratch, show)?;
                    }
                    if end.is_some() || draft.get(*committed - known) != tokens.get(*committed) {
                        break;
                    }
                    *committed += 1;
                }
                watch.more((generation.made() - before).saturating_sub(1));
                if let Some(speculation) = speculation {
                    speculation.observe(tokens);
                    if std::mem::take(drafted) {
                        speculation.drafted(*committed - known, draft.len());
                    }
                }
                Ok(end)
            }),
            Work::Transfer(_) => Ok(Ok(None)),
            Work::Logits(visitor) => catch("reading logits", || {
                (first..*committed).zip(logits).for_each(|(position, logits)| visitor(position, logits));
                Ok((*committed == known).then_some(End::early(FinishReason::Stop)))
            }),
        };
        self.outcome = result.and_then(|advanced| advanced).transpose();
        first + count - self.committed
    }

    /// Reports the end. The sequence is closed before, so that a caller who sees the end finds the place free.
    pub(crate) fn conclude(mut self, outcome: Result<End, Failure>) {
        let result = outcome.and_then(|end| catch("ending the output", || self.finish(end)));
        self.task.ticket.close(result.map_or_else(Event::Failed, |finished| Event::Finished(Box::new(finished))));
    }

    fn finish(&mut self, end: End) -> Finished {
        let computed = self.committed.min(self.prompt_tokens) - self.cached;
        let Task { ticket, work, watch, .. } = &mut self.task;
        let (made, (text, end)) = match work {
            Work::Generate(generation) => (generation.made(), generation.finish(end, &mut |token| ticket.send(Event::Token(token)))),
            Work::Logits(_) | Work::Transfer(_) => (0, (String::new(), end)),
        };
        let usage = Usage { prompt_tokens: self.prompt_tokens, cached_tokens: self.cached, completion_tokens: made };
        Finished { reason: end.reason, stop: end.stop, text, usage, timings: watch.finish(computed) }
    }
}
