//! A request that owns a sequence of the decoder.

use std::time::Duration;

use fastllm_model::batch::{Row, SequenceId};

use super::generation::End;
use super::guard::catch;
use super::task::{Task, Work};
use crate::error::Failure;
use crate::event::{Event, FinishReason, Finished, Usage};
use crate::sampling::Scratch;

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
    pub(crate) fn new(mut task: Task, sequence: SequenceId) -> Self {
        task.watch.admit();
        let prompt_tokens = task.tokens.len();
        Self { task, sequence, prompt_tokens, committed: 0, cached: 0, begun: false, split: None, served: 0, outcome: None }
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

    /// Rows that it may take at once: up to where its state is to be kept.
    pub(crate) fn until_split(&self) -> usize {
        self.split.map_or(usize::MAX, |split| split.saturating_sub(self.committed).max(1))
    }

    /// Whether the logits of every position are wanted.
    pub(crate) fn wants_all_logits(&self) -> bool {
        matches!(self.task.work, Work::Logits(_))
    }

    /// Whether its tokens are the beginning of what others may ask for: logits are read once.
    pub(crate) fn may_come_back(&self) -> bool {
        !self.wants_all_logits() && self.committed > 0
    }

    /// Appends the next `count` rows of this request.
    pub(crate) fn extend_rows(&self, count: usize, rows: &mut Vec<Row>) {
        let last = self.task.tokens.len() - 1;
        let positions = self.committed..self.committed + count;
        rows.extend(positions.map(|position| Row {
            sequence: self.sequence,
            position: position as u32,
            token: self.task.tokens[position],
            logits: position == last || self.wants_all_logits(),
        }));
    }

    /// Takes the result of a forward pass over its next `count` rows: the logits of those that asked for them, in order.
    pub(crate) fn absorb(
        &mut self,
        count: usize,
        logits: &mut dyn Iterator<Item = &[f32]>,
        context_length: usize,
        scratch: &mut Scratch,
        cost: Cost,
    ) {
        let first = self.committed;
        self.committed += count;
        let complete = self.remaining() == 0;
        let Self { task, prompt_tokens, committed, .. } = self;
        if first < *prompt_tokens {
            task.ticket.send(Event::Prefill { done: *committed, total: *prompt_tokens });
        }
        let Task { ticket, tokens, work, watch, .. } = task;
        let result = match work {
            Work::Generate(generation) if complete => catch("sampling", || {
                let logits = logits.next().expect("one row of logits was asked for and checked");
                watch.token(cost.time, cost.bytes);
                let show = &mut |token| ticket.send(Event::Token(token));
                Ok(generation.advance(tokens, logits, context_length, scratch, show)?)
            }),
            Work::Generate(_) => Ok(Ok(None)),
            Work::Logits(visitor) => catch("reading logits", || {
                (first..*committed).zip(logits).for_each(|(position, logits)| visitor(position, logits));
                Ok(complete.then_some(End::early(FinishReason::Stop)))
            }),
        };
        self.outcome = result.and_then(|advanced| advanced).transpose();
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
            Work::Logits(_) => (0, (String::new(), end)),
        };
        let usage = Usage { prompt_tokens: self.prompt_tokens, cached_tokens: self.cached, completion_tokens: made };
        Finished { reason: end.reason, stop: end.stop, text, usage, timings: watch.finish(computed) }
    }
}
