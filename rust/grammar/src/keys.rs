//! Names of JSON objects, none of which may come twice: a grammar cannot say that, as it does not count.
//!
//! [`Keys`] reads the output byte by byte and knows the names of every object that is open. From a mask it takes the tokens that would
//! end a name which the object has already, and those after which no other name is possible.

use std::collections::HashSet;

use fastllm_text::tokenizer::Tokenizer;
use llguidance::Matcher;

use crate::constraint::allows;

/// Maximum number of positions that are looked at to find out whether a name can still become a new one.
const MAX_POSITIONS: usize = 64;
/// The same for all tokens of a mask. Where it is used up, the tokens that are left are taken for ones after which no other name comes.
const MAX_POSITIONS_OF_MASK: usize = 1024;

/// The part of a JSON text where its last byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In no string; whether the next string is a name.
    Between { name_follows: bool },
    /// In a string; whether it is a name, and whether the last byte was a backslash.
    String { name: bool, escaped: bool },
    #[default]
    Start,
}

/// What a text does to the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// No name is there twice.
    Fine,
    /// A name came twice.
    Twice,
    /// The text ends in a name that begins as one of the same object did.
    Unfinished,
}

/// Follows a JSON text.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    place: Place,
    /// The names of each object that is open, as they are written; `None` for an array.
    open: Vec<Option<HashSet<Vec<u8>>>>,
    /// The name that is being written.
    name: Vec<u8>,
}

impl Keys {
    /// Reads more of the text.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.byte(*byte))
    }

    /// Reads a byte. False if it ends a name that the object has already.
    fn byte(&mut self, byte: u8) -> bool {
        let top_is_object = |keys: &Self| keys.open.last().is_some_and(Option::is_some);
        self.place = match (self.place, byte) {
            (Place::String { name, escaped: true }, _) => {
                self.push(name, byte);
                Place::String { name, escaped: false }
            }
            (Place::String { name, .. }, b'\\') => {
                self.push(name, byte);
                Place::String { name, escaped: true }
            }
            (Place::String { name, .. }, b'"') => {
                self.place = Place::Between { name_follows: false };
                return !name || self.end_name();
            }
            (Place::String { name, .. }, _) => {
                self.push(name, byte);
                return true;
            }
            (Place::Between { name_follows: name }, b'"') => {
                self.name.clear();
                Place::String { name, escaped: false }
            }
            (Place::Start, b'"') => Place::String { name: false, escaped: false },
            (_, b'{') => {
                self.open.push(Some(HashSet::new()));
                Place::Between { name_follows: true }
            }
            (_, b'[') => {
                self.open.push(None);
                Place::Between { name_follows: false }
            }
            (_, b'}' | b']') => {
                self.open.pop();
                Place::Between { name_follows: false }
            }
            (_, b',') => Place::Between { name_follows: top_is_object(self) },
            (place, _) => place,
        };
        true
    }

    fn push(&mut self, name: bool, byte: u8) {
        if name {
            self.name.push(byte);
        }
    }

    fn end_name(&mut self) -> bool {
        let name = plain(&std::mem::take(&mut self.name));
        self.open.last_mut().and_then(Option::as_mut).is_none_or(|names| names.insert(name))
    }

    /// Whether a text may follow.
    fn outcome(&self, bytes: &[u8]) -> Outcome {
        let mut after = Self { place: self.place, open: Vec::new(), name: self.name.clone() };
        // Only the innermost object matters to a text that opens and closes none.
        if bytes.iter().any(|byte| matches!(byte, b'{' | b'[' | b'}' | b']')) {
            after.open.clone_from(&self.open);
        } else {
            after.open.extend(self.open.last().cloned());
        }
        if !after.read(bytes) {
            return Outcome::Twice;
        }
        let unfinished = matches!(after.place, Place::String { name: true, .. })
            && after.open.last().and_then(Option::as_ref).is_some_and(|names| names.iter().any(|name| name.starts_with(&after.name)));
        if unfinished { Outcome::Unfinished } else { Outcome::Fine }
    }

    fn in_name(&self) -> bool {
        matches!(self.place, Place::String { name: true, .. })
    }

    fn in_object(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Takes from a mask the tokens that lead to a name which is there already. `limited`: not every beginning of a name can go on in
    /// endless ways, so that `matcher`, which stands after this text, is asked for others.
    pub fn filter(&self, mask: &mut [u32], tokens: &Tokens, limited: Option<&Matcher>) {
        if !self.in_object() {
            return;
        }
        let ids: &mut dyn Iterator<Item = u32> =
            if limited.is_some() && self.in_name() { &mut (0..tokens.count) } else { &mut tokens.quotes.iter().copied() };
        let mut left = MAX_POSITIONS_OF_MASK;
        for id in ids {
            if !allows(mask, id) {
                continue;
            }
            let keep = match self.outcome(tokens.bytes(id)) {
                Outcome::Fine => true,
                Outcome::Twice => false,
                Outcome::Unfinished => limited.is_none_or(|matcher| {
                    let most = left.min(MAX_POSITIONS);
                    let mut positions = most;
                    let differs = self.can_differ(matcher, id, tokens, &mut positions);
                    left -= most - positions;
                    differs
                }),
            };
            if !keep && let Some(word) = mask.get_mut(id as usize / 32) {
                *word &= !(1 << (id % 32));
            }
        }
    }

    /// Whether the name that is unfinished after the token `id` can become one that is not there yet. `positions`: how many may be
    /// looked at.
    fn can_differ(&self, matcher: &Matcher, id: u32, tokens: &Tokens, positions: &mut usize) -> bool {
        if *positions == 0 {
            return false;
        }
        *positions -= 1;
        let mut matcher = matcher.clone();
        let mut after = self.clone();
        if !after.read(tokens.bytes(id)) || matcher.consume_token(id).is_err() {
            return false;
        }
        let Ok(mask) = matcher.compute_mask() else { return false };
        let mut unfinished = Vec::new();
        for next in (0..tokens.count).filter(|next| allows(mask.as_slice(), *next)) {
            match after.outcome(tokens.bytes(next)) {
                Outcome::Fine => return true,
                Outcome::Twice => {}
                Outcome::Unfinished => unfinished.push(next),
            }
        }
        unfinished.into_iter().any(|next| after.can_differ(&matcher, next, tokens, positions))
    }
}

/// A name as it is compared: escapes that stand for plain characters are replaced.
fn plain(name: &[u8]) -> Vec<u8> {
    if !name.contains(&b'\\') {
        return name.to_vec();
    }
    let quoted = [b"\"", name, b"\""].concat();
    let decoded = serde_json::from_slice::<String>(&quoted).and_then(|text| serde_json::to_vec(&text));
    decoded.ok().and_then(|text| Some(text.get(1..text.len().checked_sub(1)?)?.to_vec())).unwrap_or_else(|| name.to_vec())
}

/// The bytes of the tokens.
pub struct Tokens<'a> {
    tokenizer: &'a Tokenizer,
    count: u32,
    /// Tokens with a quote.
    quotes: &'a [u32],
}

impl<'a> Tokens<'a> {
    pub fn new(tokenizer: &'a Tokenizer, quotes: &'a [u32]) -> Self {
        Self { tokenizer, count: tokenizer.vocab_size() as u32, quotes }
    }

    fn bytes(&self, id: u32) -> &'a [u8] {
        self.tokenizer.token_bytes(id).unwrap_or_default()
    }
}

/// The tokens with a quote.
pub fn quotes(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.token_bytes(*id).is_some_and(|bytes| bytes.contains(&b'"'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Keys {
        let mut keys = Keys::default();
        assert!(keys.read(text.as_bytes()), "{text}");
        keys
    }

    #[test]
    fn names_that_come_twice_are_seen() {
        let twice = |text: &str, more: &str| after(text).outcome(more.as_bytes()) == Outcome::Twice;
        assert!(twice(r#"{"a": 1, "a"#, "\""));
        assert!(twice(r#"{"a": 1, "#, r#""a": 2"#));
        assert!(twice(r#"{"a": {"b": "\"{", "c": [{}]}, "#, r#""a""#));
        assert!(twice(r#"{"\u0061\n": 1, "#, r#""a\n""#));
        assert!(twice(r#"[{"a": 1, "b": {"#, r#"}, "a""#));
        for (text, more) in [
            (r#"{"a": 1, "#, r#""b": "a""#),
            (r#"{"a": 1, "b": {"#, r#""a""#),
            (r#"[{"a": 1}, {"#, r#""a""#),
            (r#"{"a": ""#, r#"a""#),
            (r#"["a", "#, r#""a""#),
            ("", r#""a""#),
            (r#"{"a\"": 1, "#, r#""a""#),
        ] {
            assert!(!twice(text, more), "{text} {more}");
        }
    }

    #[test]
    fn a_name_that_may_become_one_that_is_there_is_unfinished() {
        assert_eq!(after(r#"{"ab": 1, ""#).outcome(b"a"), Outcome::Unfinished);
        assert_eq!(after(r#"{"ab": 1, ""#).outcome(b"ab"), Outcome::Unfinished);
        assert_eq!(after(r#"{"ab": 1, "#).outcome(b"\""), Outcome::Unfinished);
        assert_eq!(after(r#"{"ab": 1, ""#).outcome(b"b"), Outcome::Fine);
        assert_eq!(after(r#"{"ab": ""#).outcome(b"a"), Outcome::Fine);
    }
}
