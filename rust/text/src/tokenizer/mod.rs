//! Tokenizers: text to token ids and back. Knows no model.
//!
//! A [`Tokenizer`] is built from the metadata of a GGUF file and is one of three kinds: byte-level byte-pair encoding
//! (`tokenizer.ggml.model` = `gpt2`), SentencePiece (`llama`) and byte-pair encoding over characters (`gemma4`).
//!
//! **What is lost, and what is not.** Byte-level vocabularies that have all 256 bytes return every text unchanged. Some lack a few
//! control characters (falcon, starcoder): such bytes are dropped, as the tokenizers of these models do, and
//! [`Tokenizer::take_dropped`] reports the first one. The other kinds write spaces as ▁ (U+2581), so that a ▁ of the text returns as a space; a character without token becomes one token for
//! each of its bytes and returns unchanged, or, where the vocabulary lacks these, the unknown token. Nothing is normalised: neither
//! NFC nor NFKC, no folding of white space. Decoding does not tidy up spaces before punctuation.
//!
//! **Control tokens** never come from plain text. With [`EncodeOptions::parse_special`] their texts become the tokens; without it,
//! only user-defined tokens are found, whose meaning is their text. Of several at one place the longest wins.
//!
//! **Time** is O(n log n) in the text and linear in the file, whatever they hold: some 20 to 80 MB/s for ordinary text, more than
//! 1 MB/s for a text that is a single word. **Memory** is that of the ids, and about 30 bytes for each byte of the longest piece.

mod dropped;
mod encode;
mod error;
mod load;
mod merge;
mod model;
mod pretokenize;
mod special;
mod stream;
#[cfg(test)]
mod tests;
mod unicode;
mod vocab;

use std::borrow::Cow;

use fastllm_gguf::Metadata;

pub use error::Error;
pub use stream::StreamDecoder;
pub use vocab::TokenKind;

use dropped::Dropped;
use model::Model;
use pretokenize::Pretokenizer;
use special::Specials;
use vocab::Vocab;

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add BOS and EOS where the tokenizer of the file does ([`Tokenizer::add_bos`], [`Tokenizer::add_eos`]).
    pub add_special: bool,
    /// Turn the texts of control tokens into these tokens. Off for text that is not trusted.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    /// With BOS and EOS, control tokens as plain text.
    fn default() -> Self {
        Self { add_special: true, parse_special: false }
    }
}

/// A tokenizer. Immutable: any number of threads may use it at once.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file or a habit of one family")]
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    pretokenizer: Pretokenizer,
    specials: Specials,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    end_of_generation: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    /// Drops white space that follows a special token, as Phi-3 does.
    strip_after_special: bool,
    /// A run of line feeds that is a token is that token, whatever the merges say.
    whole_newline_runs: bool,
    warnings: Vec<String>,
    dropped: Dropped,
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys of a file.
    ///
    /// # Errors
    /// A key that is missing, has the wrong type or names a token beyond the vocabulary; an unsupported kind of tokenizer; tokens or
    /// merges that cannot be read. An unknown pre-tokenizer is a [warning](Self::warnings).
    pub fn from_metadata(m: &Metadata) -> Result<Self, Error> {
        load::load(m)
    }

    /// The ids of `text`. Empty text has none, apart from BOS and EOS.
    ///
    /// # Errors
    /// [`Error::TooLarge`] from 4 GiB of text on, [`Error::OutOfMemory`].
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, Error> {
        self.encode_while(text, options, |_| true)
    }

    /// As [`encode`](Self::encode), asking `go_on` every few thousand pieces or merges whether to continue; it is given the number of ids so
    /// far. This is how to cancel, and how to stop at text that is too long anyway.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Error::Cancelled`] once `go_on` returns false.
    pub fn encode_while(&self, text: &str, options: EncodeOptions, mut go_on: impl FnMut(usize) -> bool) -> Result<Vec<u32>, Error> {
        encode::Encoder::new(self, text, &mut go_on).run(options.add_special, options.parse_special)
    }

    /// The ids of a text that is partly not trusted: `guard`, which is no part of it, stands within the texts of control tokens that
    /// mean themselves. The other texts of control tokens become the tokens. Nothing is added at the beginning and the end.
    ///
    /// # Errors
    /// As [`encode_while`](Self::encode_while).
    pub fn encode_guarded(&self, text: &str, guard: char, mut go_on: impl FnMut(usize) -> bool) -> Result<Vec<u32>, Error> {
        let mut plain = String::new();
        plain.try_reserve_exact(text.len())?;
        plain.extend(text.split(guard));
        let mut spans = Vec::new();
        let mut start = 0;
        self.specials.split(text, true, &mut |_, part, id| {
            let end = start + if id.is_some() { part.len() } else { part.len() - part.matches(guard).count() * guard.len_utf8() };
            spans.try_reserve(1)?;
            spans.extend(id.map(|id| encode::Span { start, end, id }));
            start = end;
            Ok(())
        })?;
        encode::Encoder::new(self, &plain, &mut go_on).run_spans(&spans)
    }

    /// Whether a control token could begin in the text: otherwise it never becomes one, whatever stands around it.
    pub fn may_begin_control(&self, text: &str) -> bool {
        self.specials.may_begin(text)
    }

    /// The text with `guard` within each text of a control token, for [`encode_guarded`](Self::encode_guarded), and whether there
    /// were any.
    pub fn guard_control(&self, text: &str, guard: char) -> (String, bool) {
        self.specials.break_tokens(text, guard)
    }

    /// The text with `guard` wherever a control token could begin, also where what follows is not its text.
    pub fn guard_beginnings(&self, text: &str, guard: char) -> String {
        self.specials.break_beginnings(text, guard)
    }

    /// The ids of these texts that are control tokens, which decoding with `skip_special` leaves out. Sorted.
    pub fn control_ids(&self, texts: &[&str]) -> Vec<u32> {
        let ids = texts.iter().filter_map(|text| self.control_id(text));
        ids.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The id of a text that is a control token.
    pub fn control_id(&self, text: &str) -> Option<u32> {
        self.token_id(text).filter(|id| self.vocab.kind(*id).is_some_and(TokenKind::is_special))
    }

    /// The bytes of a text that begins with `ids`: the space that encoding adds at its start, and after a special token, is left out.
    /// With `skip_special`, control and unknown tokens are left out, otherwise they are their texts.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id beyond the vocabulary, [`Error::OutOfMemory`].
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        bytes.try_reserve(ids.len().saturating_mul(4))?;
        let mut after_special = true;
        for &id in ids {
            self.append_bytes(id, skip_special, &mut after_special, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// As [`decode_bytes`](Self::decode_bytes), as text: bytes that are not UTF-8 become U+FFFD, as in [`String::from_utf8_lossy`].
    ///
    /// # Errors
    /// As [`decode_bytes`](Self::decode_bytes).
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let bytes = match String::from_utf8(self.decode_bytes(ids, skip_special)?) {
            Ok(text) => return Ok(text),
            Err(error) => error.into_bytes(),
        };
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.try_reserve(chunk.valid().len() + char::REPLACEMENT_CHARACTER.len_utf8())?;
            text.push_str(chunk.valid());
            text.extend((!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER));
        }
        Ok(text)
    }

    /// Appends the bytes of `id`. `after_special` is the state between calls: whether a text begins here.
    fn append_bytes(&self, id: u32, skip_special: bool, after_special: &mut bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let unknown = Error::UnknownId { id, vocab_size: self.vocab.len() };
        let (Some(kind), Some(piece)) = (self.vocab.kind(id), self.vocab.piece(id)) else { return Err(unknown) };
        out.try_reserve(piece.len())?;
        if self.starts_text(id) {
            *after_special = true;
            if !(skip_special && kind.is_special()) {
                out.extend_from_slice(piece);
            }
            return Ok(());
        }
        let added = self.add_space_prefix && std::mem::take(after_special) && piece.first() == Some(&b' ');
        out.extend_from_slice(&piece[usize::from(added)..]);
        Ok(())
    }

    /// Whether the text after this token is encoded like the beginning of a text.
    fn starts_text(&self, id: u32) -> bool {
        self.vocab.kind(id).is_some_and(|kind| kind.is_special() || kind == TokenKind::UserDefined)
    }

    /// The bytes that a token stands for, with its leading space; for control tokens their text. `None` beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocab.piece(id)
    }

    /// The text of a token as the file writes it (`Ġthe`, `▁the`, `<0x0A>`). `None` beyond the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocab.text(id)
    }

    /// [`token_bytes`](Self::token_bytes) to show to a reader: U+FFFD for what is no text by itself.
    pub fn token_display(&self, id: u32) -> Option<Cow<'_, str>> {
        self.vocab.piece(id).map(String::from_utf8_lossy)
    }

    /// The first token that the file writes as `text`; the inverse of [`token_text`](Self::token_text).
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.find(text)
    }

    /// What a token is for. `None` beyond the vocabulary.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.vocab.kind(id)
    }

    /// The number of tokens. Logits of a model may have more entries.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The tokens after which generation ends, sorted: EOS, EOT and EOM of the file, and the ends of a turn of the known chat formats
    /// where they are control tokens.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.end_of_generation
    }

    /// Whether encoding with `add_special` begins with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// Whether encoding with `add_special` ends with EOS.
    pub fn add_eos(&self) -> bool {
        self.add_eos && self.eos.is_some()
    }

    /// The first byte that encoding has dropped because the vocabulary lacks it; each tokenizer reports one, once.
    pub fn take_dropped(&self) -> Option<u8> {
        self.dropped.take()
    }

    /// What about the file may make the tokenizer differ from the model's own.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
