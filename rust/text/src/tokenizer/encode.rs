//! Text to ids: special tokens first, then pieces, then merges within a piece.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::merge::Scratch;
use super::model::NONE;
use super::special::Visit;
use super::vocab::{Alphabet, SPACE_MARK};
use super::{Error, Tokenizer};

/// Slots of the cache of pieces, a power of two.
const CACHE: usize = 1 << 13;
/// Texts shorter than this are done before a cache would pay for itself.
const CACHE_FROM: usize = 1 << 10;
/// Pieces between two questions whether to go on.
const CHECK_EVERY: u32 = 1 << 12;

/// Where a piece stood before, in the text and in the ids.
#[derive(Clone, Copy, Default)]
struct Slot {
    text: u32,
    text_len: u32,
    ids: u32,
    ids_len: u32,
}

/// Where a special token stands in a text.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    pub id: u32,
}

/// The work on one text.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    text: &'a str,
    ids: Vec<u32>,
    symbols: Vec<u32>,
    scratch: Scratch,
    cache: Vec<Slot>,
    hasher: RandomState,
    until_check: u32,
    go_on: &'a mut dyn FnMut(usize) -> bool,
}

impl<'a> Encoder<'a> {
    pub fn new(tokenizer: &'a Tokenizer, text: &'a str, go_on: &'a mut dyn FnMut(usize) -> bool) -> Self {
        Self {
            tokenizer,
            text,
            ids: Vec::new(),
            symbols: Vec::new(),
            scratch: Scratch::default(),
            cache: if text.len() < CACHE_FROM { Vec::new() } else { vec![Slot::default(); CACHE] },
            hasher: RandomState::default(),
            until_check: CHECK_EVERY,
            go_on,
        }
    }

    pub fn run(self, add_special: bool, parse_special: bool) -> Result<Vec<u32>, Error> {
        let (tokenizer, text) = (self.tokenizer, self.text);
        self.run_parts(add_special, |visit| tokenizer.specials.split(text, parse_special, visit))
    }

    /// The text in which the special tokens are those of `spans`, and those whose meaning is their text.
    pub fn run_spans(self, spans: &[Span]) -> Result<Vec<u32>, Error> {
        let (tokenizer, text) = (self.tokenizer, self.text);
        self.run_parts(false, |visit| {
            let mut from = 0;
            for &Span { start, end, id } in spans {
                tokenizer.specials.split(&text[from..start], false, &mut |at, part, id| visit(from + at, part, id))?;
                visit(start, &text[start..end], Some(id))?;
                from = end;
            }
            tokenizer.specials.split(&text[from..], false, &mut |at, part, id| visit(from + at, part, id))
        })
    }

    /// Encodes what `parts` visits: all of the text, in its order.
    fn run_parts(mut self, add_special: bool, parts: impl FnOnce(&mut Visit<'_>) -> Result<(), Error>) -> Result<Vec<u32>, Error> {
        // Slots and the merge loop count in 32 bits.
        if u32::try_from(self.text.len()).is_err() {
            return Err(Error::TooLarge("the text"));
        }
        let tokenizer = self.tokenizer;
        if add_special && tokenizer.add_bos {
            self.ids.extend(tokenizer.bos);
        }
        let (mut after_special, mut strip) = (true, false);
        parts(&mut |at, part, id| {
            if let Some(id) = id {
                self.push(id)?;
                after_special = true;
                strip = tokenizer.strip_after_special && !matches!(part, "<s>" | "<unk>" | "<|endoftext|>");
                return Ok(());
            }
            let kept = if strip { part.trim_start() } else { part };
            if kept.is_empty() {
                return Ok(());
            }
            self.plain(at + part.len() - kept.len(), kept, after_special)?;
            after_special = false;
            Ok(())
        })?;
        if add_special && tokenizer.add_eos {
            self.ids.extend(tokenizer.eos);
        }
        Ok(self.ids)
    }

    /// Text between special tokens; `at` is its place in the whole.
    fn plain(&mut self, at: usize, text: &str, after_special: bool) -> Result<(), Error> {
        let tokenizer = self.tokenizer;
        match tokenizer.model.alphabet {
            Alphabet::Bytes => tokenizer.pretokenizer.split(text, &mut |from, piece| self.cached(at + from, piece, Self::bytes)),
            Alphabet::Characters => {
                let mut prefix = tokenizer.add_space_prefix && after_special;
                tokenizer.pretokenizer.split(text, &mut |from, piece| self.words(at + from, piece, &mut prefix))
            }
        }
    }

    /// Cuts where no merge can reach over: before a ▁ (or space) that no symbol holds after the character which stands before it.
    /// What is left are words, mostly, so that a text is not one piece as long as itself.
    fn words(&mut self, at: usize, text: &str, prefix: &mut bool) -> Result<(), Error> {
        if text.starts_with('\n')
            && !*prefix
            && let Some(id) = self.newline_run(text)
        {
            return self.push(id);
        }
        let mut start = 0;
        let mut before = ' ';
        for (here, c) in text.char_indices() {
            if (c == ' ' || c == SPACE_MARK) && !self.tokenizer.model.spans_space(before) {
                self.word(at + start, &text[start..here], std::mem::take(prefix))?;
                start = here;
            }
            before = c;
        }
        self.word(at + start, &text[start..], std::mem::take(prefix))
    }

    fn word(&mut self, at: usize, word: &str, prefix: bool) -> Result<(), Error> {
        if prefix {
            let mut prefixed = String::new();
            prefixed.try_reserve_exact(word.len() + 1)?;
            prefixed.push(' ');
            prefixed.push_str(word);
            return self.characters(&prefixed);
        }
        self.cached(at, word, Self::characters)
    }

    /// The token that a run of line feeds is, for tokenizers that split at such runs.
    fn newline_run(&self, text: &str) -> Option<u32> {
        let tokenizer = self.tokenizer;
        (tokenizer.whole_newline_runs && text.bytes().all(|b| b == b'\n'))
            .then(|| tokenizer.vocab.find_plain(text, Alphabet::Characters))?
    }

    /// Encodes a piece, or copies the ids that it had before.
    fn cached(&mut self, at: usize, piece: &str, encode: fn(&mut Self, &str) -> Result<(), Error>) -> Result<(), Error> {
        self.until_check -= 1;
        if self.until_check == 0 {
            self.until_check = CHECK_EVERY;
            if !(self.go_on)(self.ids.len()) {
                return Err(Error::Cancelled);
            }
        }
        if self.cache.is_empty() {
            return encode(self, piece);
        }
        let place = self.hasher.hash_one(piece.as_bytes()) as usize % CACHE;
        let slot = self.cache[place];
        let (text, ids) = (slot.text as usize, slot.ids as usize);
        if slot.text_len as usize == piece.len() && self.text.as_bytes()[text..text + piece.len()] == *piece.as_bytes() {
            self.ids.try_reserve(slot.ids_len as usize)?;
            self.ids.extend_from_within(ids..ids + slot.ids_len as usize);
            return Ok(());
        }
        let before = self.ids.len();
        encode(self, piece)?;
        let (ids, ids_len) = (before as u32, (self.ids.len() - before) as u32);
        self.cache[place] = Slot { text: at as u32, text_len: piece.len() as u32, ids, ids_len };
        Ok(())
    }

    fn push(&mut self, id: u32) -> Result<(), Error> {
        self.ids.try_reserve(1)?;
        self.ids.push(id);
        Ok(())
    }

    /// A piece of a byte-level vocabulary. Bytes that the vocabulary lacks are dropped, as Hugging Face's tokenizers do: what stands
    /// on both sides of them may merge.
    fn bytes(&mut self, piece: &str) -> Result<(), Error> {
        let tokenizer = self.tokenizer;
        if let Some(id) = tokenizer.model.whole_word(&tokenizer.vocab, piece.as_bytes()) {
            return self.push(id);
        }
        self.symbols.clear();
        self.symbols.try_reserve(piece.len())?;
        for byte in piece.bytes() {
            match tokenizer.model.byte_symbol(byte) {
                NONE => tokenizer.dropped.record(byte),
                symbol => self.symbols.push(symbol),
            }
        }
        self.merge()
    }

    /// A piece of a vocabulary of characters.
    fn characters(&mut self, piece: &str) -> Result<(), Error> {
        self.symbols.clear();
        self.symbols.try_reserve(piece.len())?;
        for c in piece.chars() {
            let symbol = self.tokenizer.model.character_symbol(c);
            if symbol == NONE {
                // No symbol holds this character: nothing merges over it.
                self.merge()?;
                self.symbols.clear();
                let c = if c == SPACE_MARK { ' ' } else { c };
                self.fallback(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            } else {
                self.symbols.push(symbol);
            }
        }
        self.merge()
    }

    /// Merges `symbols` and appends the ids.
    fn merge(&mut self) -> Result<(), Error> {
        let Tokenizer { model, vocab, .. } = self.tokenizer;
        let (go_on, len) = (&mut *self.go_on, self.ids.len());
        if !model.merges.apply(&mut self.symbols, &mut self.scratch, &mut || go_on(len))? {
            return Err(Error::Cancelled);
        }
        self.ids.try_reserve(self.symbols.len())?;
        for i in 0..self.symbols.len() {
            let symbol = self.symbols[i];
            if (symbol as usize) < vocab.len() {
                self.ids.push(symbol);
            } else {
                self.fallback(&model.absent_bytes(vocab, symbol))?;
            }
        }
        Ok(())
    }

    /// Appends a token for each byte. Where one of them has none, a vocabulary of characters gives the unknown token for all of them;
    /// a byte-level vocabulary, and one without the unknown token, drops the byte.
    fn fallback(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Tokenizer { model, vocab, unknown, dropped, .. } = self.tokenizer;
        let token = |byte: u8| match model.alphabet {
            Alphabet::Bytes => Some(model.byte_symbol(byte)).filter(|symbol| (*symbol as usize) < vocab.len()),
            Alphabet::Characters => vocab.bytes[byte as usize],
        };
        let before = self.ids.len();
        self.ids.try_reserve(bytes.len())?;
        for &byte in bytes {
            match (token(byte), unknown) {
                (Some(id), _) => self.ids.push(id),
                (None, Some(unknown)) if model.alphabet == Alphabet::Characters => {
                    self.ids.truncate(before);
                    self.ids.push(*unknown);
                    return Ok(());
                }
                (None, _) => dropped.record(byte),
            }
        }
        Ok(())
    }
}
