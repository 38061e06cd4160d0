//! What can be wrong with a tokenizer of a file, or with a request to it.

/// An error of the tokenizer. Each names what is wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file lacks a key without which there is no tokenizer, or the value has another type than the key demands.
    #[error("tokenizer metadata: {0}")]
    Metadata(String),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error("tokenizer model {0:?} is not supported (supported: \"llama\", \"gpt2\", \"gemma4\")")]
    UnsupportedModel(String),
    /// An array does not have one entry for each token.
    #[error("{key} has {found} entries, but the vocabulary has {expected} tokens")]
    Length {
        /// The metadata key of the array.
        key: &'static str,
        /// The number of entries.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// A key names a token beyond the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {vocab_size} tokens")]
    SpecialId {
        /// The metadata key.
        key: &'static str,
        /// Its value.
        id: u32,
        /// The number of tokens.
        vocab_size: usize,
    },
    /// An entry of the vocabulary or of the merges cannot be read.
    #[error("{key}[{index}] {what}")]
    Entry {
        /// The metadata key of the array.
        key: &'static str,
        /// The index of the entry.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The vocabulary or a text is larger than 32-bit positions can address.
    #[error("{0} is larger than 4 GiB")]
    TooLarge(&'static str),
    /// An id that no token has.
    #[error("token id {id} is beyond the vocabulary of {vocab_size} tokens")]
    UnknownId {
        /// The id.
        id: u32,
        /// The number of tokens.
        vocab_size: usize,
    },
    /// An allocation that the length of the input decides has failed.
    #[error("not enough memory to convert between text and tokens")]
    OutOfMemory,
    /// The caller's check asked to stop.
    #[error("tokenizing was cancelled")]
    Cancelled,
}

impl From<std::collections::TryReserveError> for Error {
    fn from(_: std::collections::TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

impl From<fastllm_gguf::Error> for Error {
    fn from(error: fastllm_gguf::Error) -> Self {
        Self::Metadata(error.to_string())
    }
}
