//! A small model with the same vocabulary guesses what the large one will choose.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fastllm_model::batch::{Row, SequenceId};

use crate::decoder::Decoder;
use crate::error::Failure;
use crate::prefix_cache::common_prefix;
use crate::scheduler::guard::Guarded;
use crate::speculate::cost::smoothed;

/// Most tokens of texts that the draft model reads in one step: the large one waits for it.
const CHUNK: usize = 128;
/// Texts that ended whose state is kept, for those that go on from them.
const KEPT: usize = 16;

/// The draft model and what it has read.
pub(crate) struct Drafter<D: Decoder> {
    decoder: Guarded<D>,
    /// By request.
    texts: HashMap<u64, Text>,
    /// Of requests that ended, the latest last.
    ended: Vec<Text>,
    /// Seconds of a pass that guesses one token for every text.
    seconds: Option<f64>,
}

/// A text as far as the draft model has read it.
struct Text {
    sequence: SequenceId,
    tokens: Vec<u32>,
    /// Of the request: texts of other salts are not continued.
    salt: Arc<str>,
}

/// A text that is to be continued, and by how many tokens.
pub(crate) struct Wanted<'a> {
    pub(crate) id: u64,
    pub(crate) tokens: &'a [u32],
    pub(crate) count: usize,
}

impl<D: Decoder> Drafter<D> {
    pub(crate) fn new(decoder: D) -> Self {
        Self { decoder: Guarded::new(decoder), texts: HashMap::new(), ended: Vec::new(), seconds: None }
    }

    /// Seconds that each further guess takes, once one was made.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// Reads a part of `tokens`, unless all but the last token were read; whether that is so now.
    pub(crate) fn read(&mut self, id: u64, salt: &Arc<str>, tokens: &[u32], cancel: &AtomicBool) -> Result<bool, Failure> {
        self.align(id, salt, tokens)?;
        let Some(text) = self.texts.get_mut(&id) else { return Ok(false) };
        let missing = &tokens[text.tokens.len()..];
        if missing.len() > 1 {
            let part = &missing[..(missing.len() - 1).min(CHUNK)];
            let rows = rows(text, part, false);
            self.decoder.forward(&rows, cancel)?;
            text.tokens.extend_from_slice(part);
        }
        Ok(text.tokens.len() + 1 >= tokens.len())
    }

    /// The most likely continuations of texts that were [`read`](Self::read): fewer tokens where the context ends.
    pub(crate) fn guess(&mut self, wanted: &[Wanted<'_>], cancel: &AtomicBool) -> Result<Vec<Vec<u32>>, Failure> {
        let most = wanted.iter().map(|wanted| wanted.count).max().unwrap_or(0);
        let mut guesses = vec![Vec::new(); wanted.len()];
        for n in 0..most {
            let (mut batch, mut members) = (Vec::new(), Vec::new());
            for (i, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| n < wanted.count) {
                let Some(text) = self.texts.get(&wanted.id).filter(|text| text.tokens.len() < self.decoder.context_length()) else {
                    continue;
                };
                let last = if n == 0 { wanted.tokens.last() } else { guesses[i].get(n - 1) };
                let Some(&last) = last else { continue };
                batch.extend(rows(text, &[last], true));
                members.push(i);
            }
            if batch.is_empty() {
                break;
            }
            let started = Instant::now();
            let logits = self.decoder.forward(&batch, cancel)?;
            for ((&i, row), logits) in members.iter().zip(&batch).zip(logits.rows()) {
                if let Some(text) = self.texts.get_mut(&wanted[i].id) {
                    text.tokens.push(row.token);
                }
                guesses[i].push(most_likely(logits));
            }
            self.seconds = Some(smoothed(self.seconds, started.elapsed()));
        }
        Ok(guesses)
    }

    /// The request ended.
    pub(crate) fn end(&mut self, id: u64) {
        if let Some(text) = self.texts.remove(&id) {
            self.ended.push(text);
            if self.ended.len() > KEPT {
                let oldest = self.ended.remove(0);
                self.decoder.close(oldest.sequence);
            }
        }
    }

    /// Something failed: nothing is known of what was read.
    pub(crate) fn forget(&mut self) {
        for text in self.texts.drain().map(|(_, text)| text).chain(self.ended.drain(..)) {
            self.decoder.close(text.sequence);
        }
    }

    /// Makes what was read of a text a beginning of all but the last of `tokens`.
    fn align(&mut self, id: u64, salt: &Arc<str>, tokens: &[u32]) -> Result<(), Failure> {
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let mut text = match self.texts.remove(&id) {
            Some(text) => text,
            None => self.begin(salt, known)?,
        };
        let common = common_prefix(&text.tokens, known);
        if common < text.tokens.len() {
            if self.decoder.truncate(text.sequence, common).is_ok() {
                text.tokens.truncate(common);
            } else {
                self.decoder.close(text.sequence);
                text = Text { sequence: self.decoder.open()?, tokens: Vec::new(), salt: Arc::clone(salt) };
            }
        }
        self.texts.insert(id, text);
        Ok(())
    }

    /// The ended text of the same salt that shares most with `tokens`, or an empty one.
    fn begin(&mut self, salt: &Arc<str>, tokens: &[u32]) -> Result<Text, Failure> {
        let ended = self.ended.iter().enumerate().filter(|(_, text)| text.salt == *salt);
        let shared = ended.map(|(i, text)| (common_prefix(&text.tokens, tokens), i)).max();
        match shared {
            Some((common, i)) if 2 * common > self.ended[i].tokens.len() => Ok(self.ended.remove(i)),
            _ => Ok(Text { sequence: self.decoder.open()?, tokens: Vec::new(), salt: Arc::clone(salt) }),
        }
    }
}

fn rows(text: &Text, tokens: &[u32], logits: bool) -> Vec<Row> {
    let positions = text.tokens.len() as u32..;
    tokens.iter().zip(positions).map(|(&token, position)| Row { sequence: text.sequence, position, token, logits }).collect()
}

/// The first of the largest; NaN is never the largest.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}
