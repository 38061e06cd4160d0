//! The tokens of a model as llguidance wants them: a trie of their bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fastllm_text::tokenizer::{EncodeOptions, TokenKind, Tokenizer};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use crate::error::{GrammarError, limit};
use crate::limits;

/// Longer tokens are in no mask: the trie has 1024 levels, one of which is the mark of special tokens.
const LONGEST_TOKEN: usize = 1023;
/// Most tokens, and most bytes of all of them: the trie numbers its nodes with 22 bits.
const MOST_TOKENS: usize = 2_000_000;
const MOST_BYTES: usize = 4_000_000;

/// Some tokenizers begin a text with a space: this character, which merges with nothing, then stands before the text.
const SENTINEL: &str = "\u{2}";

/// Makes parsers for the vocabulary of `tokenizer`.
pub fn factory(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory, GrammarError> {
    limit("a vocabulary with tokens", tokenizer.vocab_size(), MOST_TOKENS)?;
    let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(|id| word(tokenizer, id)).collect();
    limit("a vocabulary with bytes", words.iter().map(Vec::len).sum(), MOST_BYTES)?;
    let build = || {
        let ends = tokenizer.end_of_generation();
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let trie = TokTrie::from(&info, &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) };
        let tokens: TokEnv = Arc::new(Tokens { tokenizer: Arc::clone(tokenizer), trie });
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let mut factory = ParserFactory::new(&tokens, capabilities, &SlicedBiasComputer::general_slices())?;
        factory.quiet();
        *factory.limits_mut() = limits::parser();
        Ok::<_, anyhow::Error>(factory)
    };
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(built) => built.map_err(|error| GrammarError::Vocabulary(error.to_string())),
        Err(_) => Err(GrammarError::Vocabulary("its tokens make no trie".to_owned())),
    }
}

/// The bytes of a token; none if it is in no mask. Control tokens begin with a byte that no text has, so that only their name brings
/// them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    if bytes.is_empty() || bytes.len() > LONGEST_TOKEN {
        return Vec::new();
    }
    match tokenizer.kind(id) {
        Some(TokenKind::Control) => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        Some(TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte)
            if bytes[0] != TokTrie::SPECIAL_TOKEN_MARKER || bytes.len() == 1 =>
        {
            bytes.to_vec()
        }
        _ => Vec::new(),
    }
}

/// The trie, and how text becomes tokens.
struct Tokens {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// As the model would write the text within another one. Bytes that are no characters become the longest tokens.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            ids.extend(self.text(chunk.valid()));
            ids.extend(self.trie.greedy_tokenize(chunk.invalid()));
        }
        ids
    }
}

impl Tokens {
    fn text(&self, text: &str) -> Vec<u32> {
        within(&self.tokenizer, text, false).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
    }
}

/// The ids of a marker within a text: its own token, or as the model would write it.
pub fn ids(tokenizer: &Tokenizer, marker: &str) -> Vec<u32> {
    if let Some(id) = tokenizer.control_id(marker) {
        return vec![id];
    }
    let longest = |rest: &[u8]| {
        let fits = |id: &u32| tokenizer.token_bytes(*id).is_some_and(|bytes| !bytes.is_empty() && rest.starts_with(bytes));
        (0..tokenizer.vocab_size() as u32).filter(fits).max_by_key(|id| tokenizer.token_bytes(*id).map(<[u8]>::len))
    };
    within(tokenizer, marker, false).unwrap_or_else(|| {
        let (mut rest, mut ids) = (marker.as_bytes(), Vec::new());
        while let Some(id) = longest(rest) {
            rest = &rest[tokenizer.token_bytes(id).map_or(rest.len(), <[u8]>::len)..];
            ids.push(id);
        }
        ids
    })
}

/// The ids of a text within another one, with `parse_special` those of control tokens too, if the tokenizer has them.
pub fn within(tokenizer: &Tokenizer, text: &str, parse_special: bool) -> Option<Vec<u32>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let options = EncodeOptions { add_special: false, parse_special };
    let encode = |text: &str| tokenizer.encode(text, options).unwrap_or_default();
    let plain = encode(text);
    if stands_for(tokenizer, &plain, text) {
        return Some(plain);
    }
    let marked = encode(&format!("{SENTINEL}{text}"));
    let start = (0..marked.len().min(3)).find(|&start| stands_for(tokenizer, &marked[start..], text));
    start.map(|start| marked[start..].to_vec())
}

/// Whether the bytes of `ids` are those of `text`.
fn stands_for(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> bool {
    let mut rest = text.as_bytes();
    for &id in ids {
        match tokenizer.token_bytes(id).and_then(|bytes| rest.strip_prefix(bytes)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}
