//! What can go wrong with a template, and which limit it ran into.

use std::error::Error as StdError;
use std::fmt;

use minijinja::{Error, ErrorKind};

/// Why a template could not be compiled or rendered. The line is that of the template, counted from 1, where it is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The source is not a template of this dialect.
    #[error("chat template syntax error{}: {message}", Line(*line))]
    Syntax {
        /// What is wrong.
        message: String,
        /// Line of the template.
        line: Option<usize>,
    },
    /// The template itself refused the conversation by calling `raise_exception`.
    #[error("{message}")]
    Raised {
        /// The template's own words.
        message: String,
        /// Line of the call.
        line: Option<usize>,
    },
    /// The template asked for more than it may have; see [`Limit`].
    #[error("chat template{}: the limit on {limit} is exceeded", Line(*line))]
    Limit {
        /// Which limit.
        limit: Limit,
        /// Line of the template.
        line: Option<usize>,
    },
    /// An operation does not apply to its operands (what Python reports as `TypeError`, `UndefinedError`, `ValueError`, …).
    #[error("chat template{}: {message}", Line(*line))]
    Evaluation {
        /// What was tried on what.
        message: String,
        /// Line of the template.
        line: Option<usize>,
    },
    /// There is less memory than the conversation is likely to need, or none for the thread on which templates run.
    #[error("not enough memory to render the conversation: about {needed} bytes")]
    OutOfMemory {
        /// Bytes that are likely to be needed.
        needed: usize,
    },
    /// The interpreter failed in a way that is not the template's fault.
    #[error("chat template: {0}")]
    Internal(String),
}

/// The limits that make a hostile template harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of the template source.
    SourceSize,
    /// Nesting and chain length of expressions and statements.
    Nesting,
    /// Number of arguments or elements written out in one place.
    Arguments,
    /// Work: instructions, bytes and items processed. Grows with the size of the conversation.
    Work,
    /// Depth of a list or mapping.
    ValueDepth,
    /// Length of a `range`.
    Range,
    /// Depth of macro calls.
    Recursion,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::SourceSize => "the size of the source",
            Limit::Nesting => "the nesting of the source",
            Limit::Arguments => "the number of arguments or elements",
            Limit::Work => "work and memory",
            Limit::ValueDepth => "the depth of a value",
            Limit::Range => "the length of a range",
            Limit::Recursion => "the depth of calls",
        })
    }
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// What our own functions attach to an error of the interpreter, so that it keeps its meaning on the way out.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Cause {
    #[error("{0}")]
    Raised(String),
    #[error("the limit on {0} is exceeded")]
    Limit(Limit),
}

/// An error of the interpreter that says which operation failed on what.
pub(super) fn fail(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An error of the interpreter for an exceeded limit.
pub(super) fn limit(limit: Limit) -> Error {
    Error::from(ErrorKind::InvalidOperation).with_source(Cause::Limit(limit))
}

/// An error of the interpreter for `raise_exception`.
pub(super) fn raised(message: String) -> Error {
    Error::from(ErrorKind::InvalidOperation).with_source(Cause::Raised(message))
}

impl From<Error> for TemplateError {
    fn from(error: Error) -> Self {
        let mut line = error.line();
        let mut kind = error.kind();
        let mut message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let mut source = error.source();
        while let Some(inner) = source {
            match inner.downcast_ref::<Cause>() {
                Some(Cause::Raised(message)) => return TemplateError::Raised { message: message.clone(), line },
                Some(&Cause::Limit(limit)) => return TemplateError::Limit { limit, line },
                None => {}
            }
            if let Some(inner) = inner.downcast_ref::<Error>() {
                line = inner.line().or(line);
                kind = inner.kind();
                message = inner.detail().map_or_else(|| inner.kind().to_string(), str::to_owned);
            }
            source = inner.source();
        }
        // The interpreter reports its own two limits by message only.
        if kind == ErrorKind::OutOfFuel {
            return TemplateError::Limit { limit: Limit::Work, line };
        }
        if message.contains("recursion limit") {
            let limit = if kind == ErrorKind::SyntaxError { Limit::Nesting } else { Limit::Recursion };
            return TemplateError::Limit { limit, line };
        }
        match kind {
            ErrorKind::SyntaxError | ErrorKind::BadEscape => TemplateError::Syntax { message, line },
            _ => TemplateError::Evaluation { message, line },
        }
    }
}
