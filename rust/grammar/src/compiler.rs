//! From a source to a grammar.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Instant;

use fastllm_engine::Constraint;
use fastllm_text::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};

use crate::cache::Cache;
use crate::constraint::Position;
use crate::error::{GrammarError, limit};
use crate::source::Source;
use crate::{gbnf, keys, lark, limits, memory, schema, vocabulary};

/// What every compiled grammar takes beside its lexer: tables of the parser, with what a request adds to them.
const FIXED_BYTES: usize = 64 << 10;

/// How many outputs are followed to try a grammar out, and for how many tokens.
const PROBES: usize = 3;
const PROBE_TOKENS: usize = 8;
/// Fuel of the lexer and items of the parser in one step, above which no further step is tried.
const PROBE_FUEL: usize = 50_000;
const PROBE_ITEMS: usize = 5_000;

/// A compiled grammar. May be shared by any number of requests.
pub struct Grammar {
    /// As compilation left it. It is copied for each request, so that none sees which states others have visited.
    matcher: Mutex<Matcher>,
    tokenizer: Arc<Tokenizer>,
    names: Option<Names>,
    bytes: usize,
}

/// What it takes to keep the names of objects apart, in a grammar whose whole text is JSON.
pub struct Names {
    /// The tokens with a quote.
    pub quotes: Arc<Vec<u32>>,
    /// Whether a pattern limits the names of an object.
    pub limited: bool,
}

impl Grammar {
    /// The constraint of one request.
    pub fn constraint(self: &Arc<Self>) -> Box<dyn Constraint> {
        Box::new(self.start())
    }

    pub(crate) fn start(self: &Arc<Self>) -> Position {
        Position::new(Arc::clone(self))
    }

    /// What llguidance needs to follow one output, before its first token.
    pub(crate) fn matcher(&self) -> Matcher {
        lock(&self.matcher).deep_clone()
    }

    pub(crate) fn names(&self) -> Option<&Names> {
        self.names.as_ref()
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Compiles grammars for one tokenizer, and keeps those that were used last.
pub struct Compiler {
    tokenizer: Arc<Tokenizer>,
    /// Made with the first grammar.
    factory: OnceLock<Result<Arc<ParserFactory>, GrammarError>>,
    cache: Mutex<Cache>,
    slots: Arc<Slots>,
    /// The tokens with a quote; found with the first schema.
    quotes: OnceLock<Arc<Vec<u32>>>,
}

impl Compiler {
    /// A compiler for the tokens of `tokenizer`. The work is left for the first grammar.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new(), cache: Mutex::default(), slots: Arc::default(), quotes: OnceLock::new() }
    }

    /// The tokenizer whose tokens the masks are of.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The grammar of `source`: compiled now, or before. Waits for it.
    ///
    /// # Errors
    /// What is wrong with the source.
    pub fn compile(&self, source: &Source) -> Result<Arc<Grammar>, GrammarError> {
        source.check_size()?;
        if let Some(grammar) = lock(&self.cache).get(source) {
            return Ok(grammar);
        }
        memory::check(compile_bytes(source))?;
        let factory = self.factory()?;
        let mut grammar = self.on_thread(factory, source.clone())?;
        if let Some(names) = &mut grammar.names {
            names.quotes = Arc::clone(self.quotes.get_or_init(|| Arc::new(keys::quotes(&self.tokenizer))));
        }
        let grammar = Arc::new(grammar);
        lock(&self.cache).insert(source.clone(), &grammar, limits::CACHE_BYTES);
        Ok(grammar)
    }

    /// Makes parsers for the vocabulary; made with the first grammar, and not before there was memory for it.
    fn factory(&self) -> Result<Arc<ParserFactory>, GrammarError> {
        self.factory.get_or_init(|| vocabulary::factory(&self.tokenizer).map(Arc::new)).clone()
    }

    /// Compiles on a thread with a known stack.
    fn on_thread(&self, factory: Arc<ParserFactory>, source: Source) -> Result<Grammar, GrammarError> {
        let started = Instant::now();
        let slot = Slots::take(&self.slots).ok_or(GrammarError::Time(limits::COMPILE_TIME))?;
        let (reply, result) = sync_channel(1);
        let tokenizer = Arc::clone(&self.tokenizer);
        let run = move || {
            let compile = || memory::check(compile_bytes(&source)).and_then(|()| compile(&factory, tokenizer, &source));
            let compiled = catch_unwind(AssertUnwindSafe(compile));
            drop(slot);
            drop(reply.send(compiled.unwrap_or_else(|panic| Err(GrammarError::Compile(format!("panic: {}", message(panic.as_ref())))))));
        };
        let thread = Builder::new().name("fastllm-grammar".to_owned()).stack_size(limits::STACK_BYTES);
        thread.spawn(run).map_err(|error| GrammarError::Thread(error.to_string()))?;
        match result.recv_timeout(limits::COMPILE_TIME.saturating_sub(started.elapsed())) {
            Ok(compiled) => compiled,
            Err(RecvTimeoutError::Timeout) => Err(GrammarError::Time(limits::COMPILE_TIME)),
            Err(RecvTimeoutError::Disconnected) => Err(GrammarError::Compile("the thread that compiles it ended".to_owned())),
        }
    }
}

fn compile_bytes(source: &Source) -> usize {
    limits::COMPILE_BYTES + limits::COMPILE_BYTES_PER_BYTE * source.len()
}

fn compile(factory: &ParserFactory, tokenizer: Arc<Tokenizer>, source: &Source) -> Result<Grammar, GrammarError> {
    let (grammar, names) = grammar(&tokenizer, source)?;
    let parser = factory.create_parser(grammar).map_err(|error| GrammarError::Compile(plain(&format!("{error:#}"))))?;
    let bytes = FIXED_BYTES + parser.parser.lexer_stats().num_bytes + 16 * source.len();
    let mut matcher = Matcher::new(Ok(parser));
    // Finds out whether there is a first token at all, and leaves what that needs in the state that requests start from.
    matcher.compute_mask_or_eos().map_err(|error| no_output(&error.to_string()))?;
    (0..PROBES).try_for_each(|seed| probe(matcher.deep_clone(), seed))?;
    Ok(Grammar { matcher: Mutex::new(matcher), tokenizer, names, bytes })
}

/// Follows a random output for a few tokens: a grammar whose single steps are beyond the limits is refused now, and not in the middle of
/// an answer.
fn probe(mut matcher: Matcher, seed: usize) -> Result<(), GrammarError> {
    let mut fuel = 0;
    for step in 1..=PROBE_TOKENS {
        let id = match matcher.compute_mask_or_eos() {
            Ok(mask) => mask.iter().nth((seed * 7919 + step * 104_729) % mask.num_set().max(1)),
            Err(error) if is_limit(&error.to_string()) => return Err(no_output(&error.to_string())),
            Err(_) => None,
        };
        // What takes long was tried out enough: a limit that it keeps is kept.
        let stats = matcher.last_step_stats().map_or((usize::MAX, usize::MAX), |stats| (stats.lexer_cost as usize, stats.all_items));
        let is_expensive = step > 1 && stats.0.saturating_sub(fuel) > PROBE_FUEL || stats.1 > PROBE_ITEMS;
        fuel = stats.0;
        let Some(id) = id.filter(|_| !is_expensive) else { return Ok(()) };
        match matcher.consume_token(id) {
            Err(error) if is_limit(&error.to_string()) => return Err(no_output(&error.to_string())),
            Ok(()) if !matcher.is_stopped() => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn no_output(error: &str) -> GrammarError {
    let what = if is_limit(error) {
        "a step of it is beyond the limits of the lexer; a lower maxLength, or lower counts in a pattern, may help".to_owned()
    } else {
        format!("it allows no output: {}", plain(error))
    };
    GrammarError::Compile(what)
}

fn grammar(tokenizer: &Tokenizer, source: &Source) -> Result<(TopLevelGrammar, Option<Names>), GrammarError> {
    let grammar = match source {
        Source::JsonSchema(text) => {
            let schema = schema::prepare(text)?;
            let names = schema::has_open_objects(&schema).then(|| Names { quotes: Arc::default(), limited: schema::limits_names(&schema) });
            return Ok((TopLevelGrammar::from_json_schema(schema), names));
        }
        Source::Regex(regex) => {
            lark::check_regex(regex)?;
            TopLevelGrammar::from_regex(regex)
        }
        Source::Lark(text) => TopLevelGrammar::from_lark(lark::prepare(text, tokenizer)?),
        Source::Gbnf(text) => TopLevelGrammar::from_lark(lark::prepare(&gbnf::to_lark(text)?, tokenizer)?),
        Source::Choices(choices) => TopLevelGrammar::from_lark(lark_of_choices(choices)?),
    };
    Ok((grammar, None))
}

/// One terminal that is any of the strings.
fn lark_of_choices(choices: &[String]) -> Result<String, GrammarError> {
    limit("choices", choices.len(), limits::CHOICES)?;
    if choices.is_empty() {
        return Err(GrammarError::Choices("there is none".to_owned()));
    }
    if choices.iter().any(String::is_empty) {
        return Err(GrammarError::Choices("one is the empty string".to_owned()));
    }
    let options: Vec<String> = choices.iter().map(|choice| lark::string(choice)).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}\n", options.join(" | ")))
}

/// Whether llguidance has used up a limit, by its message: of what it counts, the states of the lexer do not depend on the text alone.
pub fn is_limit(message: &str) -> bool {
    ["too many states", "too many expressions", "lexer error"].iter().any(|part| message.contains(part))
}

/// A message of llguidance without the marks that it puts around its state, and in words of ours where it speaks of its interface.
pub fn plain(message: &str) -> String {
    let end = ["<non-verbose/>", "<state>", "<backtrace>"].iter().filter_map(|mark| message.find(mark)).min();
    let message = message[..end.unwrap_or(message.len())].trim();
    if message == "NoExtensionBias" {
        return "no token of the vocabulary can follow".to_owned();
    }
    if message.contains("coerce_one_of") {
        return "oneOf: that its branches exclude each other cannot be seen; give them different types, or one property with different constants"
            .to_owned();
    }
    // An assertion of llguidance, which numbers symbols with 16 bits.
    if message.contains("grammar.symbols.len()") {
        return "it has too many symbols, of which there may be 65,524: write parts that are repeated as rules".to_owned();
    }
    message.to_owned()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_owned())
}

/// A panic does not poison anything: what it was changing is not used again, or is whole at each point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places for threads that compile.
#[derive(Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

struct Slot(Arc<Slots>);

impl Slots {
    /// A place; waits for one as long as compilation may take.
    fn take(slots: &Arc<Self>) -> Option<Slot> {
        let full = |taken: &mut usize| *taken >= limits::COMPILE_THREADS;
        let waited = slots.freed.wait_timeout_while(lock(&slots.taken), limits::COMPILE_TIME, full);
        let (mut taken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        *taken += 1;
        Some(Slot(Arc::clone(slots)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
        self.0.freed.notify_one();
    }
}
