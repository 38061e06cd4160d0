//! Where requests begin: behind what another request with the same beginning has computed.
//!
//! A request forks the sequence, kept or running, that shares most with its prompt. Of several with the same beginning that come at once
//! the first reads it, and the others wait until they can fork that one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastllm_model::batch::SequenceId;

use super::step::Scheduler;
use crate::decoder::Decoder;
use crate::prefix_cache::{LEAST_SHARED, common_prefix};

/// How a request begins.
enum Beginning {
    /// With these positions of that sequence.
    Fork(SequenceId, usize),
    /// With nothing.
    Empty,
    /// Not yet: another one is reading what it begins with.
    Later,
}

impl<D: Decoder> Scheduler<D> {
    /// Decides where new requests begin.
    pub(super) fn begin(&mut self) {
        for index in 0..self.running.len() {
            if self.running[index].begun || self.running[index].restores() {
                continue;
            }
            match self.beginning(index) {
                Beginning::Later => {}
                Beginning::Empty => self.running[index].begin(0),
                Beginning::Fork(sequence, len) => match self.decoder.fork(sequence, len) {
                    Ok(fork) => {
                        let running = &mut self.running[index];
                        running.begin(len);
                        let empty = std::mem::replace(&mut running.sequence, fork);
                        self.decoder.close(empty);
                        self.shared.cached_tokens.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    // There is no memory for it: it begins with nothing.
                    Err(_) => self.running[index].begin(0),
                },
            }
        }
    }

    fn beginning(&mut self, index: usize) -> Beginning {
        let forgets = !self.decoder.keeps_all();
        let Self { decoder, running, prefixes, limits, .. } = self;
        if limits.cache_bytes == 0 || running[index].wants_all_logits() {
            return Beginning::Empty;
        }
        // The last token of the prompt is computed in any case: its logits are wanted.
        let Some((_, prompt)) = running[index].prompt().split_last() else { return Beginning::Empty };
        let forkable = |sequence, most| decoder.forkable(sequence, most);
        let salt = &running[index].task.salt;
        let found = prefixes.find(salt, prompt, forkable);
        let (mut best, mut later) = (found.fork, (0, index));
        for (i, other) in running.iter().enumerate().filter(|(_, other)| other.begun && other.task.salt == *salt) {
            let common = common_prefix(other.prompt(), prompt);
            let len = forkable(other.sequence, common_prefix(other.in_cache(), prompt));
            if len > best.map_or(0, |(_, len)| len) {
                best = Some((other.sequence, len));
            }
            if common > other.in_cache().len() && other.task.priority >= running[index].task.priority {
                later = later.max((common, i));
            }
        }
        let len = best.map_or(0, |(_, len)| len);
        if later.0 >= len + LEAST_SHARED {
            if forgets {
                let split = &mut running[later.1].split;
                *split = Some(split.map_or(later.0, |split| split.min(later.0)));
            }
            return Beginning::Later;
        }
        running[index].split = found.split.filter(|&split| split >= len + LEAST_SHARED);
        best.map_or(Beginning::Empty, |(sequence, len)| Beginning::Fork(sequence, len))
    }

    /// Keeps the state of requests that have reached the end of their prompt or of what others share with it, where a sequence that
    /// goes on forgets it.
    pub(super) fn checkpoint(&mut self, indices: impl Iterator<Item = usize>) {
        if self.limits.cache_bytes == 0 || self.decoder.keeps_all() {
            return;
        }
        for index in indices {
            let running = &mut self.running[index];
            let len = running.in_cache().len();
            if running.split.take_if(|split| *split <= len).is_none() && len != running.prompt().len() || !running.may_come_back() {
                continue;
            }
            let (tokens, sequence, salt) = (running.in_cache().into(), running.sequence, Arc::clone(&running.task.salt));
            // Without memory for it the next request computes it again.
            if let Ok(fork) = self.decoder.fork(sequence, len) {
                self.keep(&salt, tokens, fork);
            }
        }
    }

    /// Keeps a sequence for requests of the same salt that begin alike, or closes it.
    pub(super) fn keep(&mut self, salt: &Arc<str>, tokens: Box<[u32]>, sequence: SequenceId) {
        if self.limits.cache_bytes == 0 {
            return self.decoder.close(sequence);
        }
        for unused in self.prefixes.insert(salt, tokens, sequence, |sequence, most| self.decoder.forkable(sequence, most)) {
            self.decoder.close(unused);
        }
    }

    /// Forgets kept sequences, the longest unused first, while the next pass would make the cache too large.
    pub(super) fn make_room(&mut self) {
        while self.decoder.cache_bytes() + self.decoder.growth(&self.rows) > self.limits.cache_bytes && self.forget_oldest() {}
    }

    /// Closes the kept sequence that was not of use for the longest time; whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.prefixes.evict();
        oldest.inspect(|&sequence| self.decoder.close(sequence)).is_some()
    }

    /// Closes all kept sequences and frees their memory; whether there were any.
    pub(super) fn forget_all(&mut self) -> bool {
        let any = self.forget_oldest();
        while self.forget_oldest() {}
        self.decoder.shrink(0);
        any
    }
}
