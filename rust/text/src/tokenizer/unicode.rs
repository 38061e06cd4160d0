//! One byte of Unicode classes for each code point: all that the expressions of the pre-tokenizers ask about a character.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Uppercase and titlecase letters (Lu, Lt).
pub const UPPER: u8 = 1;
/// Lowercase letters (Ll).
pub const LOWER: u8 = 1 << 1;
/// Letters without case (Lm, Lo).
pub const CASELESS: u8 = 1 << 2;
/// Combining marks (M).
pub const MARK: u8 = 1 << 3;
/// Numbers (N).
pub const NUMBER: u8 = 1 << 4;
/// Punctuation (P).
pub const PUNCTUATION: u8 = 1 << 5;
/// Symbols (S).
pub const SYMBOL: u8 = 1 << 6;
/// White space (`\s`).
pub const SPACE: u8 = 1 << 7;
/// Letters (L).
pub const LETTER: u8 = UPPER | LOWER | CASELESS;

const BLOCK: usize = 256;
const BLOCKS: usize = 0x11_0000 / BLOCK;

/// A two-stage table: code point / 256 selects a block, the low byte an entry in it.
pub struct Classes {
    index: Vec<u16>,
    blocks: Vec<[u8; BLOCK]>,
}

static SHARED: LazyLock<Classes> = LazyLock::new(Classes::build);

impl Classes {
    /// The table of this process, built on first use (about a millisecond, 40 KB).
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// The classes of one code point; 0 for unassigned, control and format characters and beyond Unicode.
    #[inline]
    pub fn of(&self, c: u32) -> u8 {
        let block = self.index.get(c as usize / BLOCK).copied().unwrap_or(0);
        self.blocks[block as usize][c as usize % BLOCK]
    }

    fn build() -> Self {
        let mut flat = vec![0u8; 0x11_0000];
        let properties = [
            (r"[\p{Lu}\p{Lt}]", UPPER),
            (r"\p{Ll}", LOWER),
            (r"[\p{Lm}\p{Lo}]", CASELESS),
            (r"\p{M}", MARK),
            (r"\p{N}", NUMBER),
            (r"\p{P}", PUNCTUATION),
            (r"\p{S}", SYMBOL),
            (r"\s", SPACE),
        ];
        for (expression, bit) in properties {
            // The expressions are constants of this file: failing to parse one is our bug, and a test covers it.
            let hir = regex_syntax::parse(expression).expect("a constant expression");
            let HirKind::Class(Class::Unicode(class)) = hir.kind() else { unreachable!("{expression} is a class") };
            for range in class.ranges() {
                for entry in &mut flat[range.start() as usize..=range.end() as usize] {
                    *entry |= bit;
                }
            }
        }
        // Most blocks repeat the one before them (ideographs, unassigned planes); block 0 serves what is beyond the table.
        let mut blocks: Vec<[u8; BLOCK]> = vec![[0; BLOCK]];
        let mut index = Vec::with_capacity(BLOCKS);
        for block in flat.as_chunks::<BLOCK>().0 {
            let found = blocks.iter().position(|known| known == block).unwrap_or_else(|| {
                blocks.push(*block);
                blocks.len() - 1
            });
            index.push(found as u16);
        }
        Self { index, blocks }
    }
}

/// The character at `at` in valid UTF-8 and the position after it. `bytes` comes from a `str` and `at` is a boundary below its
/// length; elsewhere the answer is meaningless, but defined.
#[inline]
pub fn decode(bytes: &[u8], at: usize) -> (u32, usize) {
    let byte = |i: usize| u32::from(bytes.get(i).copied().unwrap_or(0));
    let tail = |i: usize| byte(i) & 0x3f;
    match byte(at) {
        b @ 0..0x80 => (b, at + 1),
        b @ 0x80..0xe0 => ((b & 0x1f) << 6 | tail(at + 1), at + 2),
        b @ 0xe0..0xf0 => ((b & 0x0f) << 12 | tail(at + 1) << 6 | tail(at + 2), at + 3),
        b => ((b & 0x07) << 18 | tail(at + 1) << 12 | tail(at + 2) << 6 | tail(at + 3), at + 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_known_characters() {
        let classes = Classes::shared();
        let cases = [
            ('A', UPPER),
            ('ǅ', UPPER),
            ('ß', LOWER),
            ('ʰ', CASELESS),
            ('中', CASELESS),
            ('\u{93f}', MARK),
            ('½', NUMBER),
            ('٣', NUMBER),
            ('_', PUNCTUATION),
            ('🦙', SYMBOL),
            ('+', SYMBOL),
            ('\u{3000}', SPACE),
            ('\t', SPACE),
            ('\0', 0),
            ('\u{200d}', 0),
            ('\u{10ffff}', 0),
        ];
        for (c, class) in cases {
            assert_eq!(classes.of(c as u32), class, "{c:?}");
        }
        assert_eq!(classes.of(u32::MAX), 0);
    }

    #[test]
    fn decode_reads_every_length() {
        let text = "aé中🦙";
        let mut at = 0;
        for c in text.chars() {
            let (code, next) = decode(text.as_bytes(), at);
            assert_eq!((code, next), (c as u32, at + c.len_utf8()));
            at = next;
        }
    }
}
