//! The stages by name. The comment above each is the expression that it implements.

use super::scan::{At, Scan};
use crate::tokenizer::unicode::{LETTER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL};

/// `[^\s\p{L}\p{N}]`
fn other(c: At) -> bool {
    !c.is(SPACE | LETTER | NUMBER)
}

fn is_one_of(c: At, ranges: &[(u32, u32)]) -> bool {
    ranges.iter().any(|&(low, high)| (low..=high).contains(&c.c))
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
pub fn gpt2(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.contraction(at, false)
        .or_else(|| scan.spaced(at, |c| c.is(LETTER)))
        .or_else(|| scan.spaced(at, |c| c.is(NUMBER)))
        .or_else(|| scan.spaced(at, other))
        .or_else(|| scan.white_space(at, false))
}

/// How the descendants of one expression differ:
/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?word+|\p{N}{1,digits}| ?[^\s word \p{N}]+tail*|\s*[\r\n]+|\s+(?!\S)|\s+
struct Cl100k {
    contractions: bool,
    word: u8,
    digits: usize,
    tail: &'static [u8],
}

impl Cl100k {
    #[inline]
    fn matched(&self, scan: Scan<'_>, at: usize) -> Option<usize> {
        if self.contractions
            && let Some(end) = scan.contraction(at, true)
        {
            return Some(end);
        }
        scan.prefixed_word(at, self.word)
            .or_else(|| scan.at_most(at, self.digits, |c| c.is(NUMBER)))
            .or_else(|| scan.spaced(at, |c| !c.is(SPACE | self.word | NUMBER)).map(|end| scan.bytes_of(end, self.tail)))
            .or_else(|| scan.white_space(at, true))
    }
}

const QWEN2: Cl100k = Cl100k { contractions: true, word: LETTER, digits: 1, tail: b"\r\n" };

// with word \p{L} and three digits
pub fn llama3(scan: Scan<'_>, at: usize) -> Option<usize> {
    Cl100k { digits: 3, ..QWEN2 }.matched(scan, at)
}

// with word \p{L} and \p{N}+
pub fn llama3_long_numbers(scan: Scan<'_>, at: usize) -> Option<usize> {
    Cl100k { digits: usize::MAX, ..QWEN2 }.matched(scan, at)
}

// with word \p{L} and single digits
pub fn qwen2(scan: Scan<'_>, at: usize) -> Option<usize> {
    QWEN2.matched(scan, at)
}

pub fn qwen2_without_contractions(scan: Scan<'_>, at: usize) -> Option<usize> {
    Cl100k { contractions: false, ..QWEN2 }.matched(scan, at)
}

// with no line ends after punctuation
pub fn seed_coder(scan: Scan<'_>, at: usize) -> Option<usize> {
    Cl100k { tail: b"", ..QWEN2 }.matched(scan, at)
}

// with word [\p{L}\p{M}]
pub fn qwen35(scan: Scan<'_>, at: usize) -> Option<usize> {
    Cl100k { word: LETTER | MARK, ..QWEN2 }.matched(scan, at)
}

// A(?i:'s|'t|'re|'ve|'m|'ll|'d)?|B(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
// where A and B are the two forms of `Scan::cased_word`
pub fn gpt4o(scan: Scan<'_>, at: usize) -> Option<usize> {
    let word = scan.cased_word(at).map(|end| scan.contraction(end, true).unwrap_or(end));
    word.or_else(|| after_cased_words(scan, at, 3))
}

// the same without contractions and with single digits
pub fn tekken(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.cased_word(at).or_else(|| after_cased_words(scan, at, 1))
}

fn after_cased_words(scan: Scan<'_>, at: usize, digits: usize) -> Option<usize> {
    scan.at_most(at, digits, |c| c.is(NUMBER))
        .or_else(|| scan.spaced(at, other).map(|end| scan.bytes_of(end, b"\r\n/")))
        .or_else(|| scan.white_space(at, true))
}

// [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
pub fn deepseek3(scan: Scan<'_>, at: usize) -> Option<usize> {
    let first = scan.at(at)?;
    let ascii = |c: At| u8::try_from(c.c).unwrap_or(0x80);
    let word = |c: At| c.is(LETTER | MARK);
    if ascii(first).is_ascii_punctuation()
        && let Some(end) = scan.some(first.end, |c| ascii(c).is_ascii_alphabetic())
    {
        return Some(end);
    }
    if !first.is_newline()
        && !first.is(LETTER | PUNCTUATION | SYMBOL)
        && let Some(end) = scan.some(first.end, word)
    {
        return Some(end);
    }
    scan.some(at, word)
        .or_else(|| scan.spaced(at, |c| c.is(PUNCTUATION | SYMBOL)).map(|end| scan.bytes_of(end, b"\r\n")))
        .or_else(|| scan.white_space(at, true))
}

// \p{N}{1,3}
pub fn numbers_by_three(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.at_most(at, 3, |c| c.is(NUMBER))
}

// \p{N}
pub fn number(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.at_most(at, 1, |c| c.is(NUMBER))
}

// \p{N}+
pub fn numbers(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.some(at, |c| c.is(NUMBER))
}

// [0-9][0-9][0-9]
pub fn three_digits(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.at_most(at, 3, |c| (0x30..0x3a).contains(&c.c)).filter(|end| *end == at + 3)
}

// [\p{P}\$\+<=>\^~\|`]+
pub fn falcon_punctuation(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.some(at, |c| c.is(PUNCTUATION) || b"$+<=>^~|`".iter().any(|b| u32::from(*b) == c.c))
}

// [\p{P}\$\+<=>\^~\|]+
pub fn default_punctuation(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.some(at, |c| c.is(PUNCTUATION) || b"$+<=>^~|".iter().any(|b| u32::from(*b) == c.c))
}

//  ?[^(\s|.,!?…。，、।۔،)]+ with an optional space before it
pub fn bloom(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.spaced(at, |c| !c.is(SPACE) && !char::from_u32(c.c).is_some_and(|c| "(|.,!?…。，、।۔،)".contains(c)))
}

// [^\n]+|\n+
pub fn newline_runs(scan: Scan<'_>, at: usize) -> Option<usize> {
    let newline = scan.at(at)?.c == 0x0a;
    scan.some(at, |c| (c.c == 0x0a) == newline)
}

// [\r\n]
pub fn newline(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.at_most(at, 1, At::is_newline)
}

/// `\s?test+`
fn after_any_space(scan: Scan<'_>, at: usize, test: impl Fn(At) -> bool) -> Option<usize> {
    let first = scan.at(at)?;
    scan.some(if first.is(SPACE) { first.end } else { at }, test)
}

// \s?\p{L}+
pub fn spaced_letters(scan: Scan<'_>, at: usize) -> Option<usize> {
    after_any_space(scan, at, |c| c.is(LETTER))
}

// \s?\p{P}+
pub fn spaced_punctuation(scan: Scan<'_>, at: usize) -> Option<usize> {
    after_any_space(scan, at, |c| c.is(PUNCTUATION))
}

// [一-龥ࠀ-一가-퟿]+
pub fn deepseek_cjk(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.some(at, |c| is_one_of(c, &[(0x4e00, 0x9fa5), (0x0800, 0x4e00), (0xac00, 0xd7ff)]))
}

// [一-龥぀-ゟ゠-ヿ]+
pub fn ideographs_and_kana(scan: Scan<'_>, at: usize) -> Option<usize> {
    scan.some(at, |c| is_one_of(c, &[(0x4e00, 0x9fa5), (0x3040, 0x309f), (0x30a0, 0x30ff)]))
}

// \s?[!-/:-~！-／：-～‘-‟　-。]+
pub fn deepseek_punctuation(scan: Scan<'_>, at: usize) -> Option<usize> {
    const RANGES: [(u32, u32); 6] = [(0x21, 0x2f), (0x3a, 0x7e), (0xff01, 0xff0f), (0xff1a, 0xff5e), (0x2018, 0x201f), (0x3000, 0x3002)];
    // U+3000 is white space and in the class: greedy, it is the optional one, unless nothing of the class follows it.
    after_any_space(scan, at, |c| is_one_of(c, &RANGES)).or_else(|| scan.some(at, |c| is_one_of(c, &RANGES)))
}

// \s?[the cased letters below]+
pub fn deepseek_letters(scan: Scan<'_>, at: usize) -> Option<usize> {
    after_any_space(scan, at, |c| if c.c < 0x80 { c.is(LETTER) } else { DEEPSEEK_LETTERS.binary_search_by(|r| place(*r, c.c)).is_ok() })
}

fn place((low, high): (u32, u32), c: u32) -> std::cmp::Ordering {
    if high < c {
        std::cmp::Ordering::Less
    } else if low > c {
        std::cmp::Ordering::Greater
    } else {
        std::cmp::Ordering::Equal
    }
}

/// The letters beyond ASCII that DeepSeek LLM calls letters, sorted: most, not all, of the letters that had case in Unicode 11. As numbers,
/// because several of them (U+1F71, U+2126, U+212A, U+212B …) turn into others when a source file is normalised.
#[rustfmt::skip]
pub const DEEPSEEK_LETTERS: [(u32, u32); 82] = [
    (0xb5, 0xb5), (0xc0, 0xd6), (0xd8, 0xf6), (0xf8, 0x1ba), (0x1bc, 0x1bf), (0x1c4, 0x293), (0x295, 0x2af), (0x370, 0x373),
    (0x376, 0x377), (0x37b, 0x37d), (0x37f, 0x37f), (0x386, 0x386), (0x388, 0x38a), (0x38c, 0x38c), (0x38e, 0x3a1),
    (0x3a3, 0x3f5), (0x3f7, 0x481), (0x48a, 0x52f), (0x531, 0x556), (0x10a0, 0x10c5), (0x13a0, 0x13f5), (0x13f8, 0x13fd),
    (0x1c90, 0x1cba), (0x1cbd, 0x1cbf), (0x1d00, 0x1d2b), (0x1d6b, 0x1d77), (0x1d79, 0x1d9a), (0x1e00, 0x1f15),
    (0x1f18, 0x1f1d), (0x1f20, 0x1f45), (0x1f48, 0x1f4d), (0x1f50, 0x1f57), (0x1f59, 0x1f59), (0x1f5b, 0x1f5b),
    (0x1f5d, 0x1f5d), (0x1f5f, 0x1f7d), (0x1f80, 0x1fb4), (0x1fb6, 0x1fbc), (0x1fbe, 0x1fbe), (0x1fc2, 0x1fc4),
    (0x1fc6, 0x1fcc), (0x1fd0, 0x1fd3), (0x1fd6, 0x1fdb), (0x1fe0, 0x1fec), (0x1ff2, 0x1ff4), (0x1ff6, 0x1ffc),
    (0x2102, 0x2102), (0x2107, 0x2107), (0x210a, 0x2113), (0x2115, 0x2115), (0x2119, 0x211d), (0x2124, 0x2124),
    (0x2126, 0x2126), (0x2128, 0x2128), (0x212a, 0x212d), (0x212f, 0x2134), (0x2139, 0x2139), (0x213c, 0x213f),
    (0x2145, 0x2149), (0x214e, 0x214e), (0x2183, 0x2184), (0x2c00, 0x2c7b), (0x2c7e, 0x2ce4), (0x2ceb, 0x2cee),
    (0x2cf2, 0x2cf3), (0xa640, 0xa66d), (0xa680, 0xa69b), (0xa722, 0xa76f), (0xa771, 0xa787), (0xa78b, 0xa78e),
    (0xab70, 0xabbf), (0xfb00, 0xfb06), (0xfb13, 0xfb17), (0xff21, 0xff3a), (0xff41, 0xff5a), (0x10400, 0x1044f),
    (0x104b0, 0x104d3), (0x104d8, 0x104fb), (0x10c80, 0x10cb2), (0x10cc0, 0x10cf2), (0x118a0, 0x118df),
    (0x1e900, 0x1e943),
];
