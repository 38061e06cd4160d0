//! One text being written: from the logits after its last token to the next token or the end.

use std::sync::Arc;

use crate::constraint::{Constrained, MaskWorker};
use crate::error::{Failure, ParamError, SubmitError};
use crate::event::{FinishReason, StopCause, Token};
use crate::request::Request;
use crate::sampling::{Choice, Sampler, Scratch, TokenLogprobs, token_logprobs};
use crate::stop::Output;

/// Sampling and stopping of one request.
pub(crate) struct Generation {
    sampler: Sampler,
    output: Output,
    constraint: Option<Constrained>,
    /// Ids with which the model ends its text; none with `ignore_eos`.
    end_ids: Arc<[u32]>,
    stop_ids: Vec<u32>,
    max_tokens: Option<u32>,
    /// Alternatives to report for each token of the prompt; `None`: its log-probabilities are not wanted.
    prompt_logprobs: Option<u32>,
    made: usize,
}

/// The end of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    pub(crate) stop: Option<StopCause>,
}

impl End {
    pub(crate) fn early(reason: FinishReason) -> Self {
        Self { reason, stop: None }
    }

    fn at(cause: StopCause) -> Self {
        Self { reason: FinishReason::Stop, stop: Some(cause) }
    }
}

impl Generation {
    /// Takes what it needs of a valid request; the prompt stays.
    pub(crate) fn new(request: Request, masks: &Arc<MaskWorker>) -> Result<(Self, Vec<u32>), SubmitError> {
        let Request { prompt, sampling, stop, prompt_logprobs, max_tokens, end_of_generation, pieces, constraint, skip_ahead, .. } =
            request;
        // The log-probabilities of a token need the logits before it.
        let skip_ahead = skip_ahead && sampling.logprobs.is_none();
        let banned = if stop.ignore_eos { Arc::clone(&end_of_generation) } else { Arc::new([]) };
        let constraint = constraint.map(|constraint| Constrained::new(constraint, banned, skip_ahead, Arc::clone(masks)));
        let sampler = Sampler::new(sampling, &prompt).map_err(|error: ParamError| SubmitError::from(error))?;
        let end_ids = if stop.ignore_eos { Arc::new([]) } else { end_of_generation };
        let mut stop_ids = stop.token_ids;
        stop_ids.sort_unstable();
        let output = Output::new(pieces, &stop.strings);
        Ok((Self { sampler, output, constraint, end_ids, stop_ids, max_tokens, prompt_logprobs, made: 0 }, prompt))
    }

    /// Whether the logits after every token of the prompt are wanted.
    pub(crate) fn wants_prompt_logprobs(&self) -> bool {
        self.prompt_logprobs.is_some()
    }

    /// The log-probabilities of `tokens` of the prompt, by the logits before each of them.
    pub(crate) fn prompt_logprobs<'a>(
        &self,
        tokens: &[u32],
        logits: impl Iterator<Item = &'a [f32]>,
    ) -> Result<Vec<(u32, TokenLogprobs)>, Failure> {
        let k = self.prompt_logprobs.unwrap_or_default() as usize;
        tokens.iter().zip(logits).map(|(&id, logits)| Ok((id, token_logprobs(logits, id, k)?))).collect()
    }

    /// Tokens made so far.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Tokens that may still be made.
    pub(crate) fn left(&self) -> usize {
        self.max_tokens.map_or(usize::MAX, |max| (max as usize).saturating_sub(self.made))
    }

    /// Chooses the token after `tokens` and appends it and those that must follow it, or ends the text.
    pub(crate) fn advance(
        &mut self,
        tokens: &mut Vec<u32>,
        logits: &[f32],
        context_length: usize,
        scratch: &mut Scratch,
        show: &mut dyn FnMut(Token),
    ) -> Result<Option<End>, Failure> {
        if self.left() == 0 {
            return Ok(Some(End::early(FinishReason::Length)));
        }
        let mask = self.constraint.as_mut().map(Constrained::mask).transpose()?;
        let choice = self.sampler.sample_within(mask, logits, scratch)?;
        let end = self.append(choice, tokens, context_length, show)?;
        if end.is_some() {
            return Ok(end);
        }
        for id in self.constraint.as_mut().map(Constrained::forced).transpose()?.unwrap_or_default() {
            let choice = self.sampler.force(id)?;
            let end = self.append(choice, tokens, context_length, show)?;
            if end.is_some() {
                return Ok(end);
            }
        }
        self.constraint.as_mut().map(Constrained::prepare);
        Ok(None)
    }

    /// Appends a token, unless it ends the text. The end of the text, if it is there.
    fn append(
        &mut self,
        choice: Choice,
        tokens: &mut Vec<u32>,
        context_length: usize,
        show: &mut dyn FnMut(Token),
    ) -> Result<Option<End>, Failure> {
        if self.end_ids.contains(&choice.id) {
            return Ok(Some(End::at(StopCause::EndOfGeneration(choice.id))));
        }
        if self.stop_ids.binary_search(&choice.id).is_ok() {
            return Ok(Some(End::at(StopCause::Token(choice.id))));
        }
        self.made += 1;
        if let Some(index) = self.output.push(choice.id, choice.logprobs, show) {
            return Ok(Some(End::at(StopCause::String(index))));
        }
        tokens.push(choice.id);
        if let Some(constraint) = &mut self.constraint
            && constraint.accept(choice.id)?
        {
            return Ok(Some(End::at(StopCause::Constraint)));
        }
        let full = tokens.len() > context_length || self.max_tokens.is_some_and(|max| self.made >= max as usize);
        Ok(full.then_some(End::early(FinishReason::Length)))
    }

    /// Shows what is held back, when `end` allows it. Returns the text after the last token and the end, which text may change: the
    /// bytes that were left may complete a stop string.
    pub(crate) fn finish(&mut self, end: End, show: &mut dyn FnMut(Token)) -> (String, End) {
        if matches!(end.stop, Some(StopCause::String(_))) {
            return (String::new(), end);
        }
        let (text, found) = self.output.finish(show);
        (text, found.map_or(end, |index| End::at(StopCause::String(index))))
    }
}
