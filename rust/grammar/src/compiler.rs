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
use crate::{gbnf, lark, limits, schema, vocabulary};

/// What every compiled grammar takes beside its lexer: tables of the parser, with what a request adds to them.
const FIXED_BYTES: usize = 64 << 10;

/// A compiled grammar. May be shared by any number of requests.
pub struct Grammar {
    /// As compilation left it. It is copied for each request, so that none sees which states others have visited.
    matcher: Mutex<Matcher>,
    vocab_size: usize,
    bytes: usize,
}

impl Grammar {
    /// The constraint of one request.
    pub fn constraint(&self) -> Box<dyn Constraint> {
        Box::new(Position::new(lock(&self.matcher).deep_clone(), self.vocab_size))
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
}

impl Compiler {
    /// A compiler for the tokens of `tokenizer`. The work is left for the first grammar.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new(), cache: Mutex::default(), slots: Arc::default() }
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
        let factory = self.factory.get_or_init(|| vocabulary::factory(&self.tokenizer).map(Arc::new)).clone()?;
        let grammar = Arc::new(self.on_thread(factory, source.clone())?);
        lock(&self.cache).insert(source.clone(), &grammar, limits::CACHE_BYTES);
        Ok(grammar)
    }

    /// Compiles on a thread with a known stack.
    fn on_thread(&self, factory: Arc<ParserFactory>, source: Source) -> Result<Grammar, GrammarError> {
        let started = Instant::now();
        let slot = Slots::take(&self.slots).ok_or(GrammarError::Time(limits::COMPILE_TIME))?;
        let (reply, result) = sync_channel(1);
        let tokenizer = Arc::clone(&self.tokenizer);
        let run = move || {
            let compiled = catch_unwind(AssertUnwindSafe(|| compile(&factory, &tokenizer, &source)));
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

fn compile(factory: &ParserFactory, tokenizer: &Tokenizer, source: &Source) -> Result<Grammar, GrammarError> {
    let parser = factory.create_parser(grammar(tokenizer, source)?).map_err(|error| GrammarError::Compile(plain(&format!("{error:#}"))))?;
    let bytes = FIXED_BYTES + parser.parser.lexer_stats().num_bytes + 16 * source.len();
    let mut matcher = Matcher::new(Ok(parser));
    // Finds out whether there is a first token at all, and leaves what that needs in the state that requests start from.
    matcher.compute_mask_or_eos().map_err(|error| GrammarError::Compile(format!("it allows no output: {}", plain(&error.to_string()))))?;
    Ok(Grammar { matcher: Mutex::new(matcher), vocab_size: tokenizer.vocab_size(), bytes })
}

fn grammar(tokenizer: &Tokenizer, source: &Source) -> Result<TopLevelGrammar, GrammarError> {
    match source {
        Source::JsonSchema(text) => Ok(TopLevelGrammar::from_json_schema(schema::prepare(text)?)),
        Source::Regex(regex) => {
            lark::check_regex(regex)?;
            Ok(TopLevelGrammar::from_regex(regex))
        }
        Source::Lark(text) => Ok(TopLevelGrammar::from_lark(lark::prepare(text, tokenizer)?)),
        Source::Gbnf(text) => Ok(TopLevelGrammar::from_lark(lark::prepare(&gbnf::to_lark(text)?, tokenizer)?)),
        Source::Choices(choices) => Ok(TopLevelGrammar::from_lark(lark_of_choices(choices)?)),
    }
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
