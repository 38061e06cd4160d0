//! The alternatives from which the expressions of the pre-tokenizers are made, as scanners: each looks at one position and says
//! where a match from there ends. Every scanner is linear in what it reads, and what it reads beyond its match is bounded by the
//! matches around it, so that a whole text is linear too.

use crate::tokenizer::unicode::{Classes, LETTER, MARK, NUMBER, SPACE, decode};

/// A text with the classes of its characters at hand.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    classes: &'static Classes,
}

/// One character: its code point, its classes, and where it ends.
#[derive(Clone, Copy)]
pub struct At {
    pub c: u32,
    pub class: u8,
    pub end: usize,
}

impl At {
    pub fn is(self, mask: u8) -> bool {
        self.class & mask != 0
    }

    pub fn is_newline(self) -> bool {
        self.c == 0x0a || self.c == 0x0d
    }
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), classes: Classes::shared() }
    }

    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// The character at `at`, or `None` at the end.
    #[inline]
    pub fn at(self, at: usize) -> Option<At> {
        if at >= self.bytes.len() {
            return None;
        }
        let (c, end) = decode(self.bytes, at);
        Some(At { c, class: self.classes.of(c), end })
    }

    /// The end of the longest run from `at` whose characters all satisfy `test`.
    #[inline]
    pub fn run(self, mut at: usize, test: impl Fn(At) -> bool) -> usize {
        while let Some(here) = self.at(at) {
            if !test(here) {
                break;
            }
            at = here.end;
        }
        at
    }

    /// `test+`: as [`run`](Self::run), but at least one character.
    #[inline]
    pub fn some(self, at: usize, test: impl Fn(At) -> bool) -> Option<usize> {
        let end = self.run(at, test);
        (end > at).then_some(end)
    }

    /// ` ?test+`: an optional space before a run.
    #[inline]
    pub fn spaced(self, at: usize, test: impl Fn(At) -> bool) -> Option<usize> {
        // The space itself never satisfies `test` in the expressions here, so that there is nothing to backtrack to.
        let start = if self.bytes.get(at) == Some(&b' ') { at + 1 } else { at };
        self.some(start, test)
    }

    /// `test{1,max}`.
    #[inline]
    pub fn at_most(self, at: usize, max: usize, test: impl Fn(At) -> bool) -> Option<usize> {
        let mut end = at;
        for _ in 0..max {
            match self.at(end) {
                Some(here) if test(here) => end = here.end,
                _ => break,
            }
        }
        (end > at).then_some(end)
    }

    /// The end of a run of the bytes of `set`.
    #[inline]
    pub fn bytes_of(self, mut at: usize, set: &[u8]) -> usize {
        while self.bytes.get(at).is_some_and(|b| set.contains(b)) {
            at += 1;
        }
        at
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`, with `any_case` as under `(?i)`, where ſ (U+017F) is an s.
    pub fn contraction(self, at: usize, any_case: bool) -> Option<usize> {
        if self.bytes.get(at) != Some(&b'\'') {
            return None;
        }
        let fold = |i: usize| {
            let b = self.bytes.get(i).copied().unwrap_or(0);
            if any_case { b.to_ascii_lowercase() } else { b }
        };
        match (fold(at + 1), fold(at + 2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
            (0xc5, 0xbf) if any_case => Some(at + 3),
            _ => None,
        }
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+` with `newlines`, `\s+(?!\S)|\s+` without.
    pub fn white_space(self, at: usize, newlines: bool) -> Option<usize> {
        let (mut end, mut last, mut after_newline) = (at, at, None);
        while let Some(here) = self.at(end) {
            if !here.is(SPACE) {
                break;
            }
            last = end;
            end = here.end;
            if here.is_newline() {
                after_newline = Some(end);
            }
        }
        if end == at {
            return None;
        }
        match after_newline {
            Some(newline) if newlines => Some(newline),
            // The last white space before a word belongs to the word, unless it is all there is.
            _ if end < self.len() && last > at => Some(last),
            _ => Some(end),
        }
    }

    /// `[^\r\n\p{L}\p{N}]?word+`, where `word` holds no character but letters and marks.
    pub fn prefixed_word(self, at: usize, word: u8) -> Option<usize> {
        let first = self.at(at)?;
        if !first.is_newline()
            && !first.is(LETTER | NUMBER)
            && let Some(end) = self.some(first.end, |c| c.is(word))
        {
            return Some(end);
        }
        self.some(at, |c| c.is(word))
    }

    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` and, where that fails,
    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`.
    pub fn cased_word(self, at: usize) -> Option<usize> {
        let first = self.at(at)?;
        let prefix = (!first.is_newline() && !first.is(LETTER | NUMBER)).then_some(first.end);
        if let Some(end) = prefix.and_then(|start| self.capitals_then_small(start)) {
            return Some(end);
        }
        if let Some(end) = self.capitals_then_small(at) {
            return Some(end);
        }
        // Without a match above, a run of capitals is followed by nothing small: `*` of the second form is empty.
        let capitals = |start| self.some(start, |c| c.is(LETTER & !crate::tokenizer::unicode::LOWER | MARK));
        prefix.and_then(capitals).or_else(|| capitals(at))
    }

    /// `upper*lower+`, where letters without case and marks are both.
    fn capitals_then_small(self, at: usize) -> Option<usize> {
        use crate::tokenizer::unicode::{CASELESS, LOWER, UPPER};
        // Greedy capitals, remembering where the last character that is also small ends: what backtracking would find.
        let (mut end, mut both) = (at, None);
        while let Some(here) = self.at(end) {
            if !here.is(UPPER | CASELESS | MARK) {
                break;
            }
            end = here.end;
            if !here.is(UPPER) {
                both = Some(end);
            }
        }
        self.some(end, |c| c.is(LOWER | CASELESS | MARK)).or(both)
    }
}
