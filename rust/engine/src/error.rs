//! What can go wrong, by the moment at which it does: start, submission, run.

use crate::constraint::ConstraintError;
use crate::decoder::DecodeError;
use crate::sampling::SampleError;
use crate::saved::StateError;

/// An option outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} is not allowed: {allowed}")]
pub struct ParamError {
    /// Name of the option.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl ParamError {
    pub(crate) fn new(field: &'static str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { field, value: value.into(), allowed: allowed.into() }
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option of the engine is out of range.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The system gave no thread.
    #[error("the engine thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a request was refused before it started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// An option of the request is out of range.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// There is no token to start from.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The prompt is longer than the context.
    #[error("the prompt has {prompt_tokens} tokens, the context holds {context_length}")]
    ContextOverflow {
        /// Length of the prompt.
        prompt_tokens: usize,
        /// Positions that the context has.
        context_length: usize,
    },
    /// The prompt contains an id that the vocabulary does not have.
    #[error("prompt token {index} has id {id}, the vocabulary has {vocab_size} ids")]
    TokenOutOfRange {
        /// Position in the prompt.
        index: usize,
        /// The id.
        id: u32,
        /// Number of ids.
        vocab_size: usize,
    },
    /// The queue is full; try again later.
    #[error("busy: {waiting} requests are waiting, the limit is {limit}")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
        /// Most requests that may wait.
        limit: usize,
    },
    /// The system gave no thread for the constraint.
    #[error("the thread for constraints could not be started: {0}")]
    Thread(String),
    /// The engine was shut down.
    #[error("the engine was shut down")]
    ShutDown,
}

/// Why a running request ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The model failed on the rows of this request.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The constraint of the request cannot be followed any further.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A state cannot be saved or restored.
    #[error(transparent)]
    State(#[from] StateError),
    /// Code that served this request panicked: a bug. Other requests and the engine go on.
    #[error("internal error in {stage}: {message}")]
    Panicked {
        /// What was being done.
        stage: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The engine was shut down while the request waited or ran.
    #[error("the engine was shut down")]
    ShutDown,
}

/// Why a synchronous call has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The result needs more memory than there is.
    #[error("no memory for a result of {bytes} bytes")]
    OutOfMemory {
        /// Size of the result.
        bytes: usize,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
}
