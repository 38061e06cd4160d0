//! The tokens: their texts as the file writes them, the bytes that they stand for, and their kinds.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Error;

/// What a token is for, as `tokenizer.ggml.token_type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Steers the model (`<|im_end|>`); never comes from plain text.
    Control,
    /// A literal text that is always one token, also in plain text.
    UserDefined,
    /// A place in the vocabulary that is not used.
    Unused,
    /// One byte, for text that no other token covers.
    Byte,
}

impl TokenKind {
    /// The kind of a number in the file. Numbers that the format does not define are as `Unused`.
    pub(super) fn from_file(kind: i32) -> Self {
        match kind {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }

    /// Whether decoding with `skip_special` leaves it out.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Byte strings one after the other.
#[derive(Debug, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    pub fn push(&mut self, parts: impl IntoIterator<Item = u8>) -> Result<(), Error> {
        self.bytes.extend(parts);
        self.ends.push(u32::try_from(self.bytes.len()).map_err(|_| Error::TooLarge("the vocabulary"))?);
        Ok(())
    }

    #[inline]
    pub fn get(&self, index: u32) -> Option<&[u8]> {
        let index = index as usize;
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        self.bytes.get(start..end)
    }

    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

/// Finds an index by its string; the strings themselves are elsewhere. Hashing is seeded.
#[derive(Debug, Default)]
pub struct Index {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// Adds `index` under `text` unless the text is there already.
    pub fn insert<'a>(&mut self, text: &[u8], index: u32, of: impl Fn(u32) -> &'a [u8]) {
        let hash = self.hasher.hash_one(text);
        if self.table.find(hash, |&i| of(i) == text).is_none() {
            self.table.insert_unique(hash, index, |&i| self.hasher.hash_one(of(i)));
        }
    }

    #[inline]
    pub fn find<'a>(&self, text: &[u8], of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        self.table.find(self.hasher.hash_one(text), |&i| of(i) == text).copied()
    }

    pub fn reserve(&mut self, n: usize) {
        // Only on an empty table: there is nothing to hash again.
        self.table.reserve(n, |_| 0);
    }
}

/// How the texts of the file stand for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// One character for each byte, from the table that GPT-2 introduced.
    Bytes,
    /// UTF-8 in which ▁ stands for the space, and `<0xXX>` tokens for single bytes.
    Characters,
}

/// The vocabulary.
#[derive(Debug)]
pub struct Vocab {
    texts: Strings,
    pieces: Strings,
    kinds: Vec<TokenKind>,
    by_text: Index,
    /// The token of kind `Byte` for each byte.
    pub bytes: [Option<u32>; 256],
}

pub const SPACE_MARK: char = '▁';

impl Vocab {
    /// `kinds` are the numbers of the file, where it has them.
    pub fn build<'a>(tokens: impl Iterator<Item = &'a [u8]>, kinds: Option<&[i32]>, alphabet: Alphabet) -> Result<Self, Error> {
        let mut vocab = Self {
            texts: Strings::default(),
            pieces: Strings::default(),
            kinds: Vec::new(),
            by_text: Index::default(),
            bytes: [None; 256],
        };
        vocab.by_text.reserve(tokens.size_hint().1.unwrap_or(0).min(1 << 20));
        for (index, text) in tokens.enumerate() {
            let id = u32::try_from(index).map_err(|_| Error::TooLarge("the vocabulary"))?;
            let text = std::str::from_utf8(text).map_err(|e| entry(index, &format!("is not UTF-8: {e}")))?;
            let byte = hex_byte(text);
            let kind = match kinds.and_then(|kinds| kinds.get(index)) {
                Some(kind) => TokenKind::from_file(*kind),
                None if byte.is_some() && alphabet == Alphabet::Characters => TokenKind::Byte,
                None => TokenKind::Normal,
            };
            match kind {
                TokenKind::Byte => {
                    let byte = byte
                        .ok_or_else(|| entry(index, &format!("is of type byte, but {:?} is not \"<0x00>\" to \"<0xFF>\"", clip(text))))?;
                    vocab.bytes[byte as usize].get_or_insert(id);
                    vocab.pieces.push([byte])?;
                }
                TokenKind::Normal | TokenKind::Unused => vocab.pieces.push(piece_of(text, alphabet))?,
                TokenKind::UserDefined | TokenKind::Control | TokenKind::Unknown => vocab.pieces.push(text.bytes())?,
            }
            vocab.texts.push(text.bytes())?;
            vocab.kinds.push(kind);
            if !text.is_empty() {
                let texts = &vocab.texts;
                vocab.by_text.insert(text.as_bytes(), id, |i| texts.get(i).unwrap_or_default());
            }
        }
        vocab.texts.shrink();
        vocab.pieces.shrink();
        Ok(vocab)
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The text as in the file.
    pub fn text(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.texts.get(id)?).ok()
    }

    /// The bytes that the token stands for.
    #[inline]
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id)
    }

    /// The first token with this text.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.by_text.find(text.as_bytes(), |i| self.texts.get(i).unwrap_or_default())
    }

    /// As [`find`](Self::find), where merging plain text may end in this token: control tokens never come from plain text, and a
    /// literal text only where its characters mean themselves.
    pub fn find_plain(&self, text: &str, alphabet: Alphabet) -> Option<u32> {
        self.find(text).filter(|&id| match self.kind(id) {
            Some(TokenKind::Normal) => true,
            Some(TokenKind::UserDefined) => piece_of(text, alphabet) == text.as_bytes(),
            _ => false,
        })
    }

    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.len() as u32
    }
}

fn entry(index: usize, what: &str) -> Error {
    Error::Entry { key: "tokenizer.ggml.tokens", index, what: what.to_owned() }
}

/// The start of a text from a file, short enough for a message.
pub fn clip(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(at, _)| &text[..at])
}

/// `<0x00>` to `<0xFF>`, with two hexadecimal digits of either case.
fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes that a text of the file stands for.
pub fn piece_of(text: &str, alphabet: Alphabet) -> Vec<u8> {
    let mut utf8 = [0; 4];
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match (alphabet, byte_of(c)) {
            (Alphabet::Bytes, Some(byte)) => bytes.push(byte),
            (Alphabet::Characters, _) if c == SPACE_MARK => bytes.push(b' '),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    bytes
}

/// The byte that a character stands for in byte-level vocabularies: printable Latin-1 is itself, the other 68 bytes are the characters
/// from U+0100 on, in order.
pub fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        c @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The inverse of [`byte_of`].
pub fn char_of(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0..=0x20 => 0x100 + code,
        0x7f..=0xa0 => 0x121 + code - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!((0..0x300).filter_map(char::from_u32).filter_map(byte_of).count(), 256);
    }

    #[test]
    fn byte_tokens_have_two_digits() {
        assert_eq!(hex_byte("<0x0A>"), Some(10));
        assert_eq!(hex_byte("<0xfe>"), Some(254));
        for text in ["<0xZZ>", "<0x-1>", "<0x+1>", "<0x>", "<0x1>", "<0x100>", "0x41", "<0x41", ""] {
            assert_eq!(hex_byte(text), None, "{text}");
        }
    }
}
