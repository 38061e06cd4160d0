//! States of sequences in files: tokens, and the decoder's pieces of what it computed for them.
//!
//! ```text
//! "fastllm state\n\0\0", version u32, identity [u8; 32], tokens u64 and [u32], pieces: length u64 and bytes, u64::MAX, BLAKE3 of it all
//! ```
//! Numbers are little-endian. The identity is that of model and configuration: a state is of no use to another.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 16] = b"fastllm state\n\0\0";
const VERSION: u32 = 1;
const END: u64 = u64::MAX;

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("the saved state is damaged: {0}")]
    Damaged(&'static str),
    /// It was written by another version, for another model, or with other options.
    #[error("the saved state is of {0}")]
    Other(&'static str),
}

/// Writes a state.
pub struct StateWriter {
    file: Box<dyn Write + Send>,
    hash: blake3::Hasher,
}

impl StateWriter {
    /// Begins with the tokens.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(file: impl Write + Send + 'static, identity: &[u8; 32], tokens: &[u32]) -> Result<Self, StateError> {
        let mut new = Self { file: Box::new(file), hash: blake3::Hasher::new() };
        new.write(MAGIC)?;
        new.write(&VERSION.to_le_bytes())?;
        new.write(identity)?;
        new.write(&(tokens.len() as u64).to_le_bytes())?;
        let tokens: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        new.write(&tokens)?;
        Ok(new)
    }

    pub(crate) fn piece(&mut self, piece: &[u8]) -> Result<(), StateError> {
        self.write(&(piece.len() as u64).to_le_bytes())?;
        self.write(piece)
    }

    pub(crate) fn finish(&mut self) -> Result<(), StateError> {
        self.write(&END.to_le_bytes())?;
        let hash = self.hash.finalize();
        self.file.write_all(hash.as_bytes())?;
        Ok(self.file.flush()?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.hash.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }
}

/// Reads a state.
pub struct StateReader {
    file: Box<dyn Read + Send>,
    hash: blake3::Hasher,
    /// Bytes that are left: nothing longer is believed.
    left: u64,
    tokens: Vec<u32>,
}

impl StateReader {
    /// Reads up to the tokens of a file of `len` bytes.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or has another identity.
    pub fn new(file: impl Read + Send + 'static, len: u64, identity: &[u8; 32]) -> Result<Self, StateError> {
        let mut new = Self { file: Box::new(file), hash: blake3::Hasher::new(), left: len, tokens: Vec::new() };
        if new.array()? != *MAGIC {
            return Err(StateError::Damaged("it does not begin like one"));
        }
        if u32::from_le_bytes(new.array()?) != VERSION {
            return Err(StateError::Other("another version"));
        }
        if new.array()? != *identity {
            return Err(StateError::Other("another model, or of one with other options"));
        }
        let count = u64::from_le_bytes(new.array()?);
        let tokens = new.bytes(count.saturating_mul(4))?;
        new.tokens = tokens.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        Ok(new)
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The next piece; none at the end, which was then found to be what was written.
    pub(crate) fn piece(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let len = u64::from_le_bytes(self.array()?);
        if len != END {
            return self.bytes(len).map(Some);
        }
        let hash = self.hash.finalize();
        let found: [u8; 32] = self.array()?;
        if found != *hash.as_bytes() || self.left != 0 {
            return Err(StateError::Damaged("its checksum is another"));
        }
        Ok(None)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, StateError> {
        if len > self.left {
            return Err(StateError::Damaged("it is cut off"));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StateError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(StateError::Damaged("it is cut off"))?;
        self.file.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }
}
