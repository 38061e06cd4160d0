//! Finding the tokens whose text is one token wherever it stands.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::Error;
use super::vocab::{TokenKind, Vocab};

/// Longer texts are not looked for: a file could otherwise make every position of a text cost as much as its longest token.
const LONGEST: usize = 256;
/// The most bytes of texts that one search holds. Vocabularies in use have less than 200 KB.
const TOTAL: usize = 4 << 20;

/// Searches for the literal tokens of a vocabulary. Of several at one place, the longest is taken, and the search goes on after it.
#[derive(Debug, Default)]
pub struct Specials {
    /// Found in every text.
    literal: Option<Search>,
    /// Found where special tokens are parsed: the literal ones and the others.
    all: Option<Search>,
    /// The others alone, also where they overlap.
    control: Option<AhoCorasick>,
    /// The characters that they begin with.
    firsts: BTreeSet<char>,
}

/// Receives a part of a text: its position, the part, and the token that it is, if it is a special one.
pub type Visit<'v> = dyn FnMut(usize, &str, Option<u32>) -> Result<(), Error> + 'v;

#[derive(Debug)]
struct Search {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Specials {
    pub fn build(vocab: &Vocab, warnings: &mut Vec<String>) -> Result<Self, Error> {
        let of = |wanted: &[TokenKind]| -> Vec<(u32, &str)> {
            let wanted = |id: &u32| vocab.kind(*id).is_some_and(|kind| wanted.contains(&kind));
            let texts = vocab.ids().filter(wanted).filter_map(|id| Some((id, vocab.text(id)?)));
            texts.filter(|(_, text)| !text.is_empty()).collect()
        };
        let mut all = of(&[TokenKind::UserDefined, TokenKind::Control, TokenKind::Unknown]);
        all.retain(|(id, text)| {
            if text.len() > LONGEST {
                warnings.push(format!("special token {id} has {} bytes and is never found in text (the most is {LONGEST})", text.len()));
            }
            text.len() <= LONGEST
        });
        let control: Vec<&str> =
            all.iter().filter(|(id, _)| vocab.kind(*id) != Some(TokenKind::UserDefined)).map(|(_, text)| *text).collect();
        let literal: Vec<(u32, &str)> = all.iter().filter(|(id, _)| vocab.kind(*id) == Some(TokenKind::UserDefined)).copied().collect();
        Ok(Self {
            literal: search(&literal)?,
            all: search(&all)?,
            firsts: control.iter().filter_map(|text| text.chars().next()).collect(),
            control: if control.is_empty() { None } else { Some(AhoCorasick::new(control).map_err(failed)?) },
        })
    }

    /// Whether a control token could begin in the text.
    pub fn may_begin(&self, text: &str) -> bool {
        text.contains(|c| self.firsts.contains(&c))
    }

    /// The text with `guard` after the first character of each text of a control token, and whether there were any.
    pub fn break_tokens(&self, text: &str, guard: char) -> (String, bool) {
        let found = self.control.iter().flat_map(|search| search.find_overlapping_iter(text));
        let starts: BTreeSet<usize> = found.map(|found| found.start()).collect();
        let broken = text.char_indices().flat_map(|(at, c)| [Some(c), starts.contains(&at).then_some(guard)]).flatten().collect();
        (broken, !starts.is_empty())
    }

    /// The text with `guard` after every character with which a control token could begin.
    pub fn break_beginnings(&self, text: &str, guard: char) -> String {
        text.chars().flat_map(|c| [Some(c), self.firsts.contains(&c).then_some(guard)]).flatten().collect()
    }

    /// Calls `visit` with the texts between special tokens and with these, from left to right.
    pub fn split(&self, text: &str, parse_special: bool, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut at = 0;
        if let Some(search) = if parse_special { &self.all } else { &self.literal } {
            for found in search.automaton.find_iter(text) {
                visit(at, &text[at..found.start()], None)?;
                visit(found.start(), &text[found.range()], search.ids.get(found.pattern().as_usize()).copied())?;
                at = found.end();
            }
        }
        visit(at, &text[at..], None)
    }
}

fn search(tokens: &[(u32, &str)]) -> Result<Option<Search>, Error> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let total: usize = tokens.iter().map(|(_, text)| text.len()).sum();
    if total > TOTAL {
        return Err(Error::Metadata(format!("special tokens have {total} bytes of text (the most is {TOTAL})")));
    }
    let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(tokens.iter().map(|(_, text)| text));
    let automaton = automaton.map_err(failed)?;
    Ok(Some(Search { automaton, ids: tokens.iter().map(|(id, _)| *id).collect() }))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Metadata(format!("special tokens: {error}"))
}
