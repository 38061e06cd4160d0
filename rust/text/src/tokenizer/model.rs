//! What merging works on: symbols (tokens, and texts that occur in merges without being tokens), the pairs of them that merge, and
//! how text becomes symbols to begin with. Built once from the vocabulary.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::Error;
use super::merge::Merges;
use super::vocab::{Alphabet, Index, SPACE_MARK, Vocab, char_of, clip, piece_of};

/// No symbol.
pub const NONE: u32 = u32::MAX;

/// Symbols and merges of one vocabulary.
#[derive(Debug)]
pub struct Model {
    pub alphabet: Alphabet,
    pub merges: Merges,
    /// The texts of the symbols that are no tokens: symbol `vocab.len() + i` is entry `i`.
    absent: Vec<Box<str>>,
    /// `Alphabet::Bytes`: the symbol of each byte.
    byte_symbols: [u32; 256],
    /// `Alphabet::Characters`: the symbols of single characters.
    ascii: [u32; 128],
    characters: HashMap<char, u32, RandomState>,
    /// Characters after which some symbol goes on with ▁: elsewhere a word that ▁ begins merges with nothing before it.
    before_space: HashSet<char, RandomState>,
    /// Tokens by the bytes that they stand for, where whole words take precedence over merges.
    words: Option<Index>,
}

/// Finds or makes symbols while a model is built.
struct Symbols<'v> {
    vocab: &'v Vocab,
    alphabet: Alphabet,
    absent: HashMap<Box<str>, u32, RandomState>,
}

impl Symbols<'_> {
    fn of(&mut self, text: &str) -> Result<u32, Error> {
        if let Some(id) = self.vocab.find_plain(text, self.alphabet) {
            return Ok(id);
        }
        if let Some(symbol) = self.absent.get(text) {
            return Ok(*symbol);
        }
        let next = u32::try_from(self.vocab.len() + self.absent.len()).ok().filter(|s| *s < NONE);
        let next = next.ok_or(Error::TooLarge("the vocabulary"))?;
        self.absent.insert(text.into(), next);
        Ok(next)
    }
}

impl Model {
    /// Byte-pair encoding: `merges` are `left right`, the earlier the first.
    pub fn bpe<'a>(vocab: &Vocab, alphabet: Alphabet, merges: impl Iterator<Item = &'a [u8]>, whole_words: bool) -> Result<Self, Error> {
        let mut symbols = Symbols { vocab, alphabet, absent: HashMap::default() };
        let mut table = Merges::with_capacity(merges.size_hint().1.unwrap_or(0).min(1 << 20));
        let mut text = String::new();
        for (rank, merge) in merges.enumerate() {
            let (left, right) = parts(merge).map_err(|what| Error::Entry { key: "tokenizer.ggml.merges", index: rank, what })?;
            text.clear();
            text.push_str(left);
            text.push_str(right);
            let rank = u32::try_from(rank).map_err(|_| Error::TooLarge("the list of merges"))?;
            table.insert(symbols.of(left)?, symbols.of(right)?, rank, symbols.of(&text)?);
        }
        let mut model = Self::with_symbols(symbols, table);
        if whole_words {
            model.words = Some(words(vocab));
        }
        Ok(model)
    }

    /// SentencePiece: any two neighbours whose concatenation is a token merge, the highest score first.
    pub fn sentencepiece(vocab: &Vocab, scores: &[f32]) -> Result<Self, Error> {
        let alphabet = Alphabet::Characters;
        let mut symbols = Symbols { vocab, alphabet, absent: HashMap::default() };
        let tokens: Vec<(&str, u32)> = vocab
            .ids()
            .filter_map(|id| {
                let text = vocab.text(id)?;
                (vocab.find_plain(text, alphabet) == Some(id)).then_some((text, id))
            })
            .collect();
        let mut all = tokens.clone();
        let mut utf8 = [0; 4];
        let letters: HashSet<char, RandomState> = tokens.iter().flat_map(|(text, _)| text.chars()).collect();
        let letters: Vec<String> = letters.into_iter().map(|c| c.encode_utf8(&mut utf8).to_owned()).collect();
        for letter in &letters {
            let symbol = symbols.of(letter)?;
            if symbol as usize >= vocab.len() {
                all.push((letter, symbol));
            }
        }
        let mut table = Merges::with_capacity(tokens.len());
        for (index, (left, right)) in splits(&all) {
            let (_, merged) = all[index];
            let score = scores.get(merged as usize).copied().unwrap_or_default();
            if score.is_nan() {
                let (index, what) = (merged as usize, "is not a number".to_owned());
                return Err(Error::Entry { key: "tokenizer.ggml.scores", index, what });
            }
            table.insert(left, right, rank_of(score), merged);
        }
        Ok(Self::with_symbols(symbols, table))
    }

    fn with_symbols(symbols: Symbols<'_>, merges: Merges) -> Self {
        let Symbols { vocab, alphabet, absent: map } = symbols;
        let plain = |text: &str| vocab.find_plain(text, alphabet);
        let mut utf8 = [0; 4];
        let byte_symbols: [u32; 256] = std::array::from_fn(|byte| {
            let text = &*char_of(byte as u8).encode_utf8(&mut utf8);
            plain(text).or_else(|| map.get(text).copied()).unwrap_or(NONE)
        });
        let mut absent: Vec<(Box<str>, u32)> = map.into_iter().collect();
        absent.sort_unstable_by_key(|(_, symbol)| *symbol);
        let mut model = Self {
            alphabet,
            merges,
            absent: absent.into_iter().map(|(text, _)| text).collect(),
            byte_symbols,
            ascii: [NONE; 128],
            characters: HashMap::default(),
            before_space: HashSet::default(),
            words: None,
        };
        if alphabet == Alphabet::Bytes {
            return model;
        }
        let tokens = vocab.ids().filter_map(|id| Some((vocab.text(id)?, id))).filter(|(text, id)| plain(text) == Some(*id));
        let absent = std::mem::take(&mut model.absent);
        let others = absent.iter().zip(vocab.len() as u32..).map(|(text, symbol)| (&**text, symbol));
        for (text, symbol) in tokens.chain(others) {
            model.add_characters(text, symbol);
        }
        model.absent = absent;
        model
    }

    fn add_characters(&mut self, text: &str, symbol: u32) {
        let mut chars = text.chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            if let Some(entry) = self.ascii.get_mut(c as usize) {
                *entry = symbol;
            }
            self.characters.insert(c, symbol);
            if c == SPACE_MARK {
                self.ascii[b' ' as usize] = symbol;
            }
        }
        let mut before = SPACE_MARK;
        for c in text.chars() {
            if c == SPACE_MARK && before != SPACE_MARK {
                self.before_space.insert(before);
            }
            before = c;
        }
    }

    #[inline]
    pub fn byte_symbol(&self, byte: u8) -> u32 {
        self.byte_symbols[byte as usize]
    }

    /// The symbol of one character; a space is ▁.
    #[inline]
    pub fn character_symbol(&self, c: char) -> u32 {
        match self.ascii.get(c as usize) {
            Some(symbol) => *symbol,
            None => self.characters.get(&c).copied().unwrap_or(NONE),
        }
    }

    /// Whether a symbol may reach from `before` over a following ▁.
    pub fn spans_space(&self, before: char) -> bool {
        before == ' ' || before == SPACE_MARK || self.before_space.contains(&before)
    }

    /// The token that stands for the whole of `piece`, where whole words take precedence.
    pub fn whole_word(&self, vocab: &Vocab, piece: &[u8]) -> Option<u32> {
        self.words.as_ref()?.find(piece, |id| vocab.piece(id).unwrap_or_default())
    }

    /// The bytes of a symbol that is no token.
    pub fn absent_bytes(&self, vocab: &Vocab, symbol: u32) -> Vec<u8> {
        let text = (symbol as usize).checked_sub(vocab.len()).and_then(|i| self.absent.get(i));
        text.map_or_else(Vec::new, |text| piece_of(text, self.alphabet))
    }
}

/// The two sides of a merge: they part at the first space after the first byte.
pub fn parts(merge: &[u8]) -> Result<(&str, &str), String> {
    let text = std::str::from_utf8(merge).map_err(|e| format!("is not UTF-8: {e}"))?;
    let space = merge.iter().skip(1).position(|b| *b == b' ').map(|i| i + 1);
    let (left, right) = space.and_then(|at| text.split_at_checked(at)).map(|(l, r)| (l, &r[1..])).unwrap_or_default();
    if left.is_empty() || right.is_empty() {
        return Err(format!("is {:?}, not two symbols with a space between them", clip(text)));
    }
    Ok((left, right))
}

/// Scores as ranks: the higher the score, the lower the rank.
fn rank_of(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

fn words(vocab: &Vocab) -> Index {
    let mut index = Index::default();
    index.reserve(vocab.len().min(1 << 20));
    for id in vocab.ids() {
        let (Some(text), Some(piece)) = (vocab.text(id), vocab.piece(id)) else { continue };
        let every_character_is_a_byte = text.chars().count() == piece.len();
        if every_character_is_a_byte && !piece.is_empty() && vocab.find_plain(text, Alphabet::Bytes) == Some(id) {
            index.insert(piece, id, |i| vocab.piece(i).unwrap_or_default());
        }
    }
    index
}

/// Every way to write a text of `all` as two others: (its index, (symbol, symbol)).
///
/// In sorted order, the proper prefixes of a text are on a stack when it comes, so that all prefixes and (sorting backwards) all
/// suffixes are found in time linear in the texts. Looking up each split would be quadratic in the longest text.
fn splits(all: &[(&str, u32)]) -> Vec<(usize, (u32, u32))> {
    let mut order: Vec<u32> = (0..all.len() as u32).collect();
    let text = |i: u32| all[i as usize].0.as_bytes();
    order.sort_unstable_by_key(|i| text(*i));
    let prefix = chains(&order, all.len(), |part, whole| text(whole).starts_with(text(part)));
    order.sort_unstable_by(|a, b| text(*a).iter().rev().cmp(text(*b).iter().rev()));
    let suffix = chains(&order, all.len(), |part, whole| text(whole).ends_with(text(part)));
    let mut found = Vec::with_capacity(all.len());
    for (index, (whole, _)) in all.iter().enumerate() {
        // Prefixes from the longest down, suffixes from the longest down: the latter are taken from the end.
        let mut suffixes: Vec<u32> = follow(&suffix, index as u32).collect();
        for left in follow(&prefix, index as u32) {
            let rest = whole.len() - text(left).len();
            while suffixes.last().is_some_and(|right| text(*right).len() < rest) {
                suffixes.pop();
            }
            if let Some(right) = suffixes.last().filter(|right| text(**right).len() == rest) {
                found.push((index, (all[left as usize].1, all[*right as usize].1)));
            }
        }
    }
    found
}

/// For each text the longest other one that it begins (or ends) with.
fn chains(order: &[u32], n: usize, is_part: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let mut parent = vec![NONE; n];
    let mut stack: Vec<u32> = Vec::new();
    for &whole in order {
        while stack.last().is_some_and(|part| !is_part(*part, whole)) {
            stack.pop();
        }
        parent[whole as usize] = stack.last().copied().unwrap_or(NONE);
        stack.push(whole);
    }
    parent
}

fn follow(parent: &[u32], from: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(parent.get(from as usize).copied(), |i| parent.get(*i as usize).copied()).filter(|i| *i != NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_descend_with_scores() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -1.0, -31740.0, f32::NEG_INFINITY];
        assert!(scores.map(rank_of).is_sorted_by(|a, b| a < b));
        assert_eq!(rank_of(0.0), rank_of(-0.0));
        assert!(rank_of(f32::NEG_INFINITY) < u32::MAX);
    }

    #[test]
    fn splits_are_all_there() {
        let texts = ["a", "b", "ab", "aba", "ba", "abab", "c", "aa"];
        let all: Vec<(&str, u32)> = texts.iter().zip(0..).map(|(t, i)| (*t, i)).collect();
        let mut expected = Vec::new();
        for (index, whole) in texts.iter().enumerate() {
            for at in 1..whole.len() {
                let (left, right) = whole.split_at(at);
                let place = |part| texts.iter().position(|t| *t == part).map(|i| i as u32);
                expected.extend(place(left).zip(place(right)).map(|pair| (index, pair)));
            }
        }
        let mut found = splits(&all);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn merges_part_at_the_first_space_after_the_first_byte() {
        assert_eq!(parts("Ġ t".as_bytes()), Ok(("Ġ", "t")));
        assert_eq!(parts(b"  x"), Ok((" ", "x")));
        assert_eq!(parts("\n\n \n".as_bytes()), Ok(("\n\n", "\n")));
        for bad in [&b""[..], b" ", b"ab", b"ab ", b" ab", b"\xff x"] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }
}
