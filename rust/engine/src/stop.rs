//! Where the output ends: stop strings across token borders, and which tokens may be shown before that is decided.
//!
//! A stop string ends the output at the byte that completes it, wherever the token borders are: of several strings the one that is
//! complete first wins, and of those complete at the same byte the longest.

use std::collections::VecDeque;

use crate::error::ParamError;
use crate::event::Token;
use crate::sampling::TokenLogprobs;

/// Most stop strings of a request.
pub const MAX_STOP_STRINGS: usize = 256;
/// Most bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 4096;

/// The text that ids complete, one after the other. Given by the caller, so that the engine needs no tokenizer.
pub trait Pieces: Send {
    /// Appends to `text` what token `id` completes: whole characters. Bytes of an unfinished character wait for a later call.
    fn push(&mut self, id: u32, text: &mut String);

    /// Appends what is left at the end of the output, such as replacement characters for an unfinished character.
    fn finish(&mut self, text: &mut String);
}

/// What ends the output besides its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopParams {
    /// Texts that end the output; they are not part of it.
    pub strings: Vec<String>,
    /// Ids that end the output; they are not part of it.
    pub token_ids: Vec<u32>,
    /// Treat the model's end-of-generation ids as any other token.
    pub ignore_eos: bool,
}

impl StopParams {
    /// Checks number and length of the stop strings.
    ///
    /// # Errors
    /// Names `stop`, the value and what is allowed.
    pub fn validate(&self) -> Result<(), ParamError> {
        if self.strings.len() > MAX_STOP_STRINGS {
            return Err(ParamError::new("stop", format!("{} strings", self.strings.len()), format!("at most {MAX_STOP_STRINGS} strings")));
        }
        match self.strings.iter().find(|string| string.is_empty() || string.len() > MAX_STOP_BYTES) {
            Some(string) => {
                let value = format!("a string of {} bytes", string.len());
                Err(ParamError::new("stop", value, format!("strings of 1 to {MAX_STOP_BYTES} bytes")))
            }
            None => Ok(()),
        }
    }
}

/// One stop string as a Knuth-Morris-Pratt automaton over bytes.
#[derive(Debug)]
struct Automaton {
    needle: Box<[u8]>,
    /// `border[i]`: length of the longest proper prefix of `needle[..=i]` that is also its suffix.
    border: Box<[usize]>,
    /// Bytes of the needle that the text ends with.
    matched: usize,
}

impl Automaton {
    fn new(needle: &str) -> Self {
        let needle = needle.as_bytes();
        let mut border = vec![0; needle.len()];
        let mut matched = 0;
        for i in 1..needle.len() {
            matched = advance(needle, &border, matched, needle[i]);
            border[i] = matched;
        }
        Self { needle: needle.into(), border: border.into(), matched: 0 }
    }

    /// Feeds one byte; whether the needle is now complete.
    fn push(&mut self, byte: u8) -> bool {
        self.matched = advance(&self.needle, &self.border, self.matched, byte);
        self.matched == self.needle.len()
    }
}

fn advance(needle: &[u8], border: &[usize], mut matched: usize, byte: u8) -> usize {
    loop {
        if needle.get(matched) == Some(&byte) {
            return matched + 1;
        }
        if matched == 0 {
            return 0;
        }
        matched = border[matched - 1];
    }
}

/// A stop string that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    /// Index of the string.
    index: usize,
    /// Its length in bytes.
    len: usize,
    /// Bytes of the last piece up to its end.
    end: usize,
}

/// The output of one request: turns ids into [`Token`]s that may be shown.
pub(crate) struct Output {
    pieces: Box<dyn Pieces>,
    stops: Vec<Automaton>,
    /// Tokens whose text is, or follows, the possible beginning of a stop string.
    held: VecDeque<Token>,
    /// Bytes of text in `held`.
    held_bytes: usize,
}

impl Output {
    pub(crate) fn new(pieces: Box<dyn Pieces>, stop_strings: &[String]) -> Self {
        Self { pieces, stops: stop_strings.iter().map(|s| Automaton::new(s)).collect(), held: VecDeque::new(), held_bytes: 0 }
    }

    /// Adds a token. Gives to `show` the tokens that are now certain, and returns the index of a stop string that is now complete.
    pub(crate) fn push(&mut self, id: u32, logprobs: Option<TokenLogprobs>, show: &mut dyn FnMut(Token)) -> Option<usize> {
        let mut text = String::new();
        self.pieces.push(id, &mut text);
        self.add(Token { id, text, logprobs }, show)
    }

    /// Ends the output. Gives the tokens still held back to `show`; returns the text after them, and a stop string completed by it.
    pub(crate) fn finish(&mut self, show: &mut dyn FnMut(Token)) -> (String, Option<usize>) {
        let mut text = String::new();
        self.pieces.finish(&mut text);
        if let Some(found) = self.search(&text) {
            let kept = self.held_bytes + found.end - found.len;
            text.truncate(kept.saturating_sub(self.held_bytes));
            self.show_first(kept, show);
            return (text, Some(found.index));
        }
        self.held.drain(..).for_each(show);
        (text, None)
    }

    fn add(&mut self, token: Token, show: &mut dyn FnMut(Token)) -> Option<usize> {
        let found = self.search(&token.text);
        let before = self.held_bytes;
        self.held_bytes += token.text.len();
        self.held.push_back(token);
        if let Some(found) = found {
            self.show_first(before + found.end - found.len, show);
            return Some(found.index);
        }
        let undecided = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        while self.held.front().is_some_and(|first| self.held_bytes - first.text.len() >= undecided) {
            if let Some(token) = self.held.pop_front() {
                self.held_bytes -= token.text.len();
                show(token);
            }
        }
        None
    }

    /// Feeds `text` up to the first byte that completes a stop string.
    fn search(&mut self, text: &str) -> Option<Match> {
        if self.stops.is_empty() {
            return None;
        }
        text.bytes().enumerate().find_map(|(at, byte)| {
            let mut found: Option<Match> = None;
            for (index, stop) in self.stops.iter_mut().enumerate() {
                if stop.push(byte) && found.is_none_or(|found| found.len < stop.needle.len()) {
                    found = Some(Match { index, len: stop.needle.len(), end: at + 1 });
                }
            }
            found
        })
    }

    /// Shows the first `bytes` of the text held back and drops the rest.
    fn show_first(&mut self, mut bytes: usize, show: &mut dyn FnMut(Token)) {
        for mut token in self.held.drain(..) {
            if token.text.len() > bytes {
                token.text.truncate(bytes);
                if bytes > 0 {
                    show(token);
                }
                break;
            }
            bytes -= token.text.len();
            show(token);
        }
        self.held_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces given by the test, one for each id.
    struct Fixed(Vec<String>, String);

    impl Pieces for Fixed {
        fn push(&mut self, id: u32, text: &mut String) {
            text.push_str(&self.0[id as usize]);
        }

        fn finish(&mut self, text: &mut String) {
            text.push_str(&self.1);
        }
    }

    /// The output for `pieces` and `tail`: tokens shown, text after them, and the index of the stop string.
    fn run(pieces: &[String], tail: &str, stops: &[String]) -> (Vec<Token>, String, Option<usize>) {
        let mut output = Output::new(Box::new(Fixed(pieces.to_vec(), tail.to_owned())), stops);
        let mut shown = Vec::new();
        for id in 0..pieces.len() as u32 {
            let found = output.push(id, None, &mut |token| shown.push(token));
            if found.is_some() {
                return (shown, String::new(), found);
            }
            let text: String = shown.iter().map(|token| token.text.as_str()).collect();
            let so_far = pieces[..=id as usize].concat();
            let beginning = |cut: usize| so_far.is_char_boundary(cut) && stops.iter().any(|stop| stop.starts_with(&so_far[cut..]));
            let first = (0..so_far.len()).find(|&cut| beginning(cut)).unwrap_or(so_far.len());
            assert!(text.len() <= first, "{text:?} of {so_far:?} was shown before it was decided");
            let last_piece = pieces[..=id as usize].iter().rev().find(|piece| !piece.is_empty()).map_or(0, String::len);
            assert!(first < so_far.len() || text == so_far, "{text:?} of {so_far:?}: nothing to hold back in {last_piece} bytes");
        }
        let (text, found) = output.finish(&mut |token| shown.push(token));
        (shown, text, found)
    }

    /// The whole text, cut at the stop string that is complete first, of those the longest.
    fn oracle<'a>(text: &'a str, stops: &[String]) -> (&'a str, Option<usize>) {
        for end in 1..=text.len() {
            let complete = (0..stops.len()).filter(|&i| text.as_bytes()[..end].ends_with(stops[i].as_bytes()));
            if let Some(index) = complete.min_by_key(|&i| (std::cmp::Reverse(stops[i].len()), i)) {
                return (&text[..end - stops[index].len()], Some(index));
            }
        }
        (text, None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn agrees_with_a_search_in_the_whole_text(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            tail in "[abé]{0,2}",
            stops in prop::collection::vec("[abé]{1,5}", 0..4),
        ) {
            let (shown, text, found) = run(&pieces, &tail, &stops);
            let whole = pieces.concat() + &tail;
            let (expected, index) = oracle(&whole, &stops);
            prop_assert_eq!(shown.iter().map(|token| token.text.as_str()).collect::<String>() + &text, expected);
            prop_assert_eq!(found, index);
            // Tokens come in order, and only the last can be cut.
            for (at, token) in shown.iter().enumerate() {
                prop_assert_eq!(token.id, at as u32);
                prop_assert!(token.text == pieces[at] || at + 1 == shown.len());
            }
        }
    }

    #[test]
    fn a_false_start_is_released_at_once() {
        let pieces = ["x", "a", "a", "b", "a"].map(String::from);
        let mut output = Output::new(Box::new(Fixed(pieces.to_vec(), String::new())), &["aac".into()]);
        let mut counts = Vec::new();
        for id in 0..5 {
            let mut shown = 0;
            assert_eq!(output.push(id, None, &mut |_| shown += 1), None);
            counts.push(shown);
        }
        assert_eq!(counts, [1, 0, 0, 3, 0]);
    }
}
