//! A grammar that one output follows.

use std::collections::VecDeque;
use std::sync::Arc;

use fastllm_engine::{Constraint, ConstraintError};
use llguidance::Matcher;

use crate::compiler::{Grammar, is_limit, plain};
use crate::keys::{Keys, Tokens};
use crate::{limits, memory};

/// A position in a grammar.
pub struct Position {
    grammar: Arc<Grammar>,
    matcher: Matcher,
    /// The output so far.
    ids: Vec<u32>,
    /// Tokens that must follow, as the mask has shown or will show them: asked for once, so that taking them one by one or together is
    /// the same.
    forced: VecDeque<u32>,
    mask: Vec<u32>,
    /// The names of the objects in a JSON text.
    keys: Option<Keys>,
    /// Masks that were computed to follow the output again.
    masks_again: usize,
}

impl Position {
    pub fn new(grammar: Arc<Grammar>) -> Self {
        let matcher = grammar.matcher();
        let keys = grammar.names().map(|_| Keys::default());
        Self { grammar, matcher, ids: Vec::new(), forced: VecDeque::new(), mask: Vec::new(), keys, masks_again: 0 }
    }

    /// The mask without regard to what must follow, which may then come in other tokens than the tokenizer's: for texts that could still
    /// be others.
    pub fn open_mask(&mut self) -> Result<&[u32], ConstraintError> {
        let vocab_size = self.grammar.tokenizer().vocab_size();
        self.mask.clear();
        let allowed = self.step(|matcher| matcher.compute_mask_or_eos().map_err(|error| error.to_string()))?;
        self.mask.extend_from_slice(allowed.as_slice());
        self.mask.truncate(vocab_size.div_ceil(32));
        // The set may have room for one id more than there are.
        if let Some(last) = self.mask.last_mut().filter(|_| !vocab_size.is_multiple_of(32)) {
            *last &= (1 << (vocab_size % 32)) - 1;
        }
        if let (Some(keys), Some(names)) = (&self.keys, self.grammar.names()) {
            let limited = names.limited.then_some(&self.matcher);
            keys.filter(&mut self.mask, &Tokens::new(self.grammar.tokenizer(), &names.quotes), limited);
            if self.mask.iter().all(|word| *word == 0) {
                return Err(failed("the object has every name that is allowed"));
            }
        }
        Ok(&self.mask)
    }

    /// A step of the matcher. It keeps every state of the lexer that any token could have led to, and their number is limited: where the
    /// limit is reached, a new one follows the output, with the states of that alone, and takes the step.
    fn step<T>(&mut self, mut take: impl FnMut(&mut Matcher) -> Result<T, String>) -> Result<T, ConstraintError> {
        check_memory()?;
        match take(&mut self.matcher) {
            Err(error) if is_limit(&error) && !self.ids.is_empty() => {
                let followed = limits::REFILL_TOKENS.into_iter().find_map(|refill| self.follow_again(refill).transpose());
                self.matcher = followed.ok_or_else(|| failed(&error))??;
                check_memory()?;
                take(&mut self.matcher).map_err(|error| failed(&error))
            }
            result => result.map_err(|error| failed(&error)),
        }
    }

    /// A new matcher after the output so far. Masks, of which one is computed every `refill` tokens, fill up the fuel of the lexer. What
    /// this costs is bounded: a grammar that uses up every new matcher soon is given up.
    fn follow_again(&mut self, refill: usize) -> Result<Option<Matcher>, ConstraintError> {
        let masks = self.ids.len().div_ceil(refill);
        if masks > limits::MASKS_AT_ONCE || self.masks_again + masks > limits::MASKS_AGAIN + self.ids.len() * limits::MASKS_PER_TOKEN {
            return Ok(None);
        }
        self.masks_again += masks;
        let mut matcher = self.grammar.matcher();
        for ids in self.ids.chunks(refill) {
            check_memory()?;
            if matcher.consume_tokens(ids).is_err() || matcher.compute_mask_or_eos().is_err() {
                return Ok(None);
            }
        }
        Ok(Some(matcher))
    }

    fn find_forced(&mut self) -> Result<(), ConstraintError> {
        if self.forced.is_empty() && !self.is_complete() {
            self.forced = self
                .step(|matcher| {
                    let forced = matcher.compute_ff_tokens();
                    matcher.get_error().map_or(Ok(forced), Err)
                })?
                .into();
        }
        Ok(())
    }
}

impl Constraint for Position {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        self.find_forced()?;
        let Some(&id) = self.forced.front() else { return self.open_mask() };
        self.mask.clear();
        self.mask.resize(self.grammar.tokenizer().vocab_size().div_ceil(32), 0);
        allow(&mut self.mask, id);
        Ok(&self.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        match self.forced.front() {
            Some(&forced) if forced == id => drop(self.forced.pop_front()),
            Some(_) => return Err(ConstraintError::Output(format!("token {id} is not the one that must follow by the grammar"))),
            None => {}
        }
        self.step(|matcher| matcher.consume_token(id).map_err(|error| error.to_string()))?;
        self.ids.push(id);
        if let Some(keys) = &mut self.keys
            && !keys.read(self.grammar.tokenizer().token_bytes(id).unwrap_or_default())
        {
            return Err(ConstraintError::Output(format!("token {id} ends a name that the object has already")));
        }
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<u32>, ConstraintError> {
        self.find_forced()?;
        Ok(self.forced.iter().copied().collect())
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }
}

pub fn allows(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

pub fn allow(mask: &mut [u32], id: u32) {
    if let Some(word) = mask.get_mut(id as usize / 32) {
        *word |= 1 << (id % 32);
    }
}

/// Whether there is memory for a mask.
fn check_memory() -> Result<(), ConstraintError> {
    memory::check(limits::MASK_BYTES).map_err(|error| ConstraintError::OutOfMemory(error.to_string()))
}

fn failed(error: &str) -> ConstraintError {
    ConstraintError::Output(format!("the output cannot follow the grammar any further: {}", plain(error)))
}
