//! Limits on what strangers send.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// Most bytes of a grammar, a schema or a regex, or of all choices together.
pub const SOURCE_BYTES: usize = 1 << 20;
/// Most levels of nesting of a schema. Also the limit of the JSON parser.
pub const SCHEMA_DEPTH: usize = 128;
/// Most values (schemas, keywords, elements) of a schema, with the copies that references need.
pub const SCHEMA_VALUES: usize = 200_000;
/// Most properties of one object. The work grows with their square.
pub const SCHEMA_PROPERTIES: usize = 1_000;
/// Most different targets of `$ref` in a schema.
pub const SCHEMA_REFERENCES: usize = 2_000;
/// Most levels of parentheses of a grammar.
pub const GRAMMAR_DEPTH: usize = 100;
/// Most rules and terminals of a grammar.
pub const GRAMMAR_RULES: usize = 10_000;
/// Most repetitions that a grammar, a schema or a regex may ask for as a number.
pub const REPETITIONS: u64 = 10_000;
/// Most strings to choose from.
pub const CHOICES: usize = 10_000;
/// How long compilation may take. It is bounded by other limits: this one is the net below them.
pub const COMPILE_TIME: Duration = Duration::from_secs(5);
/// How many grammars are compiled at a time.
pub const COMPILE_THREADS: usize = 4;
/// Stack of a thread that compiles. Pages that are not used take no memory.
pub const STACK_BYTES: usize = 256 << 20;
/// Bytes of compiled grammars that are kept for the next request.
pub const CACHE_BYTES: usize = 64 << 20;

/// Maximum number of bytes of a regex. Literals of 1 MB take 400 MB and seconds to be refused; repeated classes of that length would
/// work, and are refused too.
pub const REGEX_BYTES: usize = 512 << 10;
/// Maximum number of Unicode character classes (`\w`, `\p{L}`) of a regex, or of a grammar's regexes: each takes some kilobytes.
pub const REGEX_CLASSES: usize = 50_000;
/// Memory that compiling a grammar may take, by the limits below. Measured: 102 MiB for a short regex that uses up all fuel.
pub const COMPILE_BYTES: usize = 160 << 20;
/// What each byte of the source may take besides. Measured: 400 for literals, 1,150 for `\w`.
pub const COMPILE_BYTES_PER_BYTE: usize = 1_200;
/// Memory that one mask may take, by the limits below. Above 32 MiB, so that glibc does not keep it for small allocations. Measured: 45
/// MiB in all masks of an output of 150 tokens.
pub const MASK_BYTES: usize = 40 << 20;
/// After how many tokens the fuel for masks is filled up while an output is followed again: first seldom, and more often where that is
/// not enough.
pub const REFILL_TOKENS: [usize; 3] = [64, 8, 1];
/// Maximum number of masks that are computed to follow an output again at once.
pub const MASKS_AT_ONCE: usize = 256;
/// The same in all, for each token of the output.
pub const MASKS_PER_TOKEN: usize = 4;
/// The same in all, besides those for each token.
pub const MASKS_AGAIN: usize = 64;

/// Limits within llguidance: counts, so that the same input always meets the same limit.
pub(crate) fn parser() -> ParserLimits {
    ParserLimits {
        // Four for each optional property of an object.
        max_items_in_row: 5_000,
        // 50,000 are a millisecond.
        initial_lexer_fuel: 1_000_000,
        // 14,000 are a millisecond.
        step_lexer_fuel: 400_000,
        step_max_items: 50_000,
        // One to two kilobytes each, for every running request.
        max_lexer_states: 50_000,
        max_grammar_size: 500_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}
