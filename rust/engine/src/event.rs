//! What a request reports while it runs.

use std::fmt;

use crate::error::Failure;
use crate::sampling::TokenLogprobs;
use crate::timings::Timings;

/// Something that happened to a request. `Finished` and `Failed` are last, and exactly one of them comes.
#[derive(Debug)]
pub enum Event {
    /// Another part of the prompt is in the KV cache.
    Prefill {
        /// Tokens of the prompt that were processed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// Log-probabilities of tokens of the prompt, when the request asked for them: those after the ones that were reported before,
    /// beginning with the second token, because nothing comes before the first.
    PromptLogprobs(Vec<(u32, TokenLogprobs)>),
    /// A token of the output.
    Token(Token),
    /// The request ended as it should.
    Finished(Box<Finished>),
    /// The request ended with an error.
    Failed(Failure),
}

/// One token of the output. A token whose text may belong to a stop string is held back until that is decided, so that no part of a
/// stop string is ever reported; tokens that lie within one never are.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text it completes: whole characters, possibly none. The texts of all tokens and [`Finished::text`] make up the output.
    pub text: String,
    /// Log-probabilities, when the request asked for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// What stopped it, when `reason` is [`FinishReason::Stop`].
    pub stop: Option<StopCause>,
    /// Text after that of the last token: bytes that never became a whole character, as replacement characters.
    pub text: String,
    /// Token counts.
    pub usage: Usage,
    /// Speed.
    pub timings: Timings,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its text, or a stop token or stop string came.
    Stop,
    /// `max_tokens` were made, or the context is full.
    Length,
    /// The caller cancelled, or dropped the handle.
    Cancelled,
    /// The time limit of the request passed.
    Timeout,
}

impl FinishReason {
    /// The name in the Python and HTTP interfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request with [`FinishReason::Stop`] stopped at. Unless it says otherwise, none of it is part of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// An end-of-generation id of the model.
    EndOfGeneration(u32),
    /// One of the request's `stop_token_ids`.
    Token(u32),
    /// The stop string with this index in the request.
    String(usize),
    /// Nothing more may follow by the constraint of the request. The last token is part of the output.
    Constraint,
}

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, the tokens whose keys and values were taken from a cache instead of being computed.
    pub cached_tokens: usize,
    /// Tokens made, without an end-of-generation or stop token, with those that a stop string swallowed.
    pub completion_tokens: usize,
}
