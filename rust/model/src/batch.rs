//! What one forward pass computes: rows of (sequence, position, token).

/// A sequence that owns KV-cache blocks. Ids are reused after the sequence is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u32);

/// One token of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The sequence whose cache the row reads and extends.
    pub sequence: SequenceId,
    /// Position in the sequence; rows of a sequence come in ascending order without gaps.
    pub position: u32,
    /// Token id, below the vocabulary size.
    pub token: u32,
    /// Whether the logits after this token are wanted.
    pub logits: bool,
}
