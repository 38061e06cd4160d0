//! A grammar that one output follows.

use std::collections::VecDeque;

use fastllm_engine::{Constraint, ConstraintError};
use llguidance::Matcher;

use crate::compiler::plain;

/// A position in a grammar.
pub struct Position {
    matcher: Matcher,
    vocab_size: usize,
    /// Tokens that must follow, as the mask has shown or will show them: asked for once, so that taking them one by one or together is
    /// the same.
    forced: VecDeque<u32>,
    mask: Vec<u32>,
}

impl Position {
    pub fn new(matcher: Matcher, vocab_size: usize) -> Self {
        Self { matcher, vocab_size, forced: VecDeque::new(), mask: Vec::new() }
    }

    /// The mask without regard to what must follow, which may then come in other tokens than the tokenizer's: for texts that could still
    /// be others.
    pub fn open_mask(&mut self) -> Result<&[u32], ConstraintError> {
        self.mask.clear();
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error.to_string()))?;
        self.mask.extend_from_slice(allowed.as_slice());
        self.mask.truncate(self.vocab_size.div_ceil(32));
        // The set may have room for one id more than there are.
        if let Some(last) = self.mask.last_mut().filter(|_| !self.vocab_size.is_multiple_of(32)) {
            *last &= (1 << (self.vocab_size % 32)) - 1;
        }
        Ok(&self.mask)
    }

    fn find_forced(&mut self) -> Result<(), ConstraintError> {
        if self.forced.is_empty() && !self.is_complete() {
            self.forced = self.matcher.compute_ff_tokens().into();
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConstraintError> {
        match self.matcher.get_error() {
            Some(error) => Err(failed(&error)),
            None => Ok(()),
        }
    }
}

impl Constraint for Position {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        self.find_forced()?;
        let Some(&id) = self.forced.front() else { return self.open_mask() };
        self.mask.clear();
        self.mask.resize(self.vocab_size.div_ceil(32), 0);
        allow(&mut self.mask, id);
        Ok(&self.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        match self.forced.front() {
            Some(&forced) if forced == id => drop(self.forced.pop_front()),
            Some(_) => return Err(ConstraintError(format!("token {id} is not the one that must follow by the grammar"))),
            None => {}
        }
        self.matcher.consume_token(id).map_err(|error| failed(&error.to_string()))
    }

    fn forced(&mut self) -> Result<Vec<u32>, ConstraintError> {
        self.find_forced()?;
        Ok(self.forced.iter().copied().collect())
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }
}

pub fn allow(mask: &mut [u32], id: u32) {
    if let Some(word) = mask.get_mut(id as usize / 32) {
        *word |= 1 << (id % 32);
    }
}

fn failed(error: &str) -> ConstraintError {
    ConstraintError(format!("the output cannot follow the grammar any further: {}", plain(error)))
}
