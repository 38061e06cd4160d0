//! What a caller asks for, and the checks before it is accepted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::constraint::Constraint;
use crate::error::{ParamError, SubmitError};
use crate::sampling::{MAX_LOGPROBS, SamplingParams};
use crate::stop::{Pieces, StopParams};

/// Called when an event was added to an empty queue; the caller then takes events until there are none. It runs on a thread of the
/// engine, or on the one that cancels, and must neither block nor panic.
pub type Notify = Box<dyn Fn() + Send + Sync>;

/// Takes the logits after each position, in order: `(position, logits)`.
pub type LogitsVisitor = Box<dyn FnMut(usize, &[f32]) + Send>;

/// A text to continue.
pub struct Request {
    /// Ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// What ends the text.
    pub stop: StopParams,
    /// Report the log-probabilities of the tokens of the prompt, each with this many alternatives. The whole prompt is computed then.
    pub prompt_logprobs: Option<u32>,
    /// Maximum number of tokens to make, 0: only the prompt is read; `None`: until the context is full.
    pub max_tokens: Option<u32>,
    /// Most time from submission to the end; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Requests of a higher priority leave the queue and read their prompts first.
    pub priority: i32,
    /// Prefix caching happens only among requests with the same salt: others can neither use nor notice what this one computed.
    pub cache_salt: Arc<str>,
    /// Ids with which the model ends its text.
    pub end_of_generation: Arc<[u32]>,
    /// The text of ids.
    pub pieces: Box<dyn Pieces>,
    /// What the output must follow; `None`: nothing.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Whether tokens that the constraint leaves no choice of are appended without asking the model for each. The output is the same.
    pub skip_ahead: bool,
    /// Tells the caller of events.
    pub notify: Option<Notify>,
}

impl Request {
    /// A request with default options.
    pub fn new(prompt: Vec<u32>, pieces: Box<dyn Pieces>) -> Self {
        Self {
            prompt,
            sampling: SamplingParams::default(),
            stop: StopParams::default(),
            prompt_logprobs: None,
            max_tokens: None,
            timeout: None,
            priority: 0,
            cache_salt: Arc::from(""),
            end_of_generation: Arc::new([]),
            pieces,
            constraint: None,
            skip_ahead: true,
            notify: None,
        }
    }

    /// Checks everything that can be known before the request runs.
    pub(crate) fn validate(&self, context_length: usize, vocab_size: usize) -> Result<(), SubmitError> {
        self.sampling.validate()?;
        self.stop.validate()?;
        if let Some(k) = self.prompt_logprobs.filter(|&k| k > MAX_LOGPROBS) {
            return Err(ParamError::new("prompt_logprobs", k.to_string(), format!("0 to {MAX_LOGPROBS}")).into());
        }
        let known = |id: u32| (id as usize) < vocab_size;
        let bias = self.sampling.logit_bias.keys().map(|&id| ("logit_bias", id));
        let breakers = self.sampling.dry_sequence_breakers.iter().map(|&id| ("dry_sequence_breakers", id));
        let stops = self.stop.token_ids.iter().map(|&id| ("stop_token_ids", id));
        if let Some((field, id)) = bias.chain(breakers).chain(stops).find(|&(_, id)| !known(id)) {
            return Err(ParamError::new(field, format!("id {id}"), format!("ids below {vocab_size}")).into());
        }
        validate_prompt(&self.prompt, context_length, vocab_size)
    }
}

/// Checks that `prompt` can be run at all.
pub(crate) fn validate_prompt(prompt: &[u32], context_length: usize, vocab_size: usize) -> Result<(), SubmitError> {
    if prompt.is_empty() {
        return Err(SubmitError::EmptyPrompt);
    }
    if prompt.len() > context_length {
        return Err(SubmitError::ContextOverflow { prompt_tokens: prompt.len(), context_length });
    }
    match prompt.iter().position(|&id| id as usize >= vocab_size) {
        Some(index) => Err(SubmitError::TokenOutOfRange { index, id: prompt[index], vocab_size }),
        None => Ok(()),
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("prompt_tokens", &self.prompt.len())
            .field("sampling", &self.sampling)
            .field("stop", &self.stop)
            .field("max_tokens", &self.max_tokens)
            .field("timeout", &self.timeout)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}
