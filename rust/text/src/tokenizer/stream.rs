//! Decoding one token at a time.

use super::{Error, Tokenizer};

/// Turns ids into text as they come, releasing whole characters only.
///
/// A character may be split over several tokens: its bytes are held back until it is complete. The concatenation of all that
/// [`push`](Self::push) and [`flush`](Self::flush) return is what [`Tokenizer::decode`] returns for all ids at once.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    /// The beginning of a character: at most three bytes between calls.
    held: Vec<u8>,
    skip_special: bool,
    /// Special tokens that are never skipped, sorted.
    shown: Vec<u32>,
    after_special: bool,
}

impl StreamDecoder {
    /// A decoder at the beginning of a text.
    #[must_use]
    pub fn new(skip_special: bool) -> Self {
        Self { held: Vec::new(), skip_special, shown: Vec::new(), after_special: true }
    }

    /// A decoder for what follows `prompt`, so that the space which begins a word of the answer is kept where the answer goes on
    /// with a text, and dropped where encoding would have added it.
    #[must_use]
    pub fn after(tokenizer: &Tokenizer, prompt: &[u32], skip_special: bool) -> Self {
        let after_special = prompt.last().is_none_or(|id| tokenizer.starts_text(*id));
        Self { held: Vec::new(), skip_special, shown: Vec::new(), after_special }
    }

    /// Shows these special tokens in any case.
    #[must_use]
    pub fn showing(mut self, mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        self.shown = ids;
        self
    }

    /// The characters that `id` completes.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id beyond the vocabulary; the decoder is as before.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, Error> {
        let skip = self.skip_special && self.shown.binary_search(&id).is_err();
        tokenizer.append_bytes(id, skip, &mut self.after_special, &mut self.held)?;
        Ok(self.release())
    }

    /// What is held back, at the end: the replacement character for an incomplete one, otherwise nothing.
    #[must_use]
    pub fn flush(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    fn release(&mut self) -> String {
        let mut out = String::new();
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            if done + invalid.len() == self.held.len() && is_incomplete(invalid) {
                break;
            }
            if !invalid.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            done += invalid.len();
        }
        self.held.drain(..done);
        out
    }
}

/// Whether more bytes could make a character of these.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
