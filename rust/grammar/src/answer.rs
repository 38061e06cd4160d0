//! An answer in parts: reasoning of a limited length, and then one of some grammars.
//!
//! The grammars are followed side by side, until a token leaves one of them. Each is compiled by itself: what they have in common at
//! their beginnings does not matter, and names in one mean nothing in another.

use std::collections::VecDeque;
use std::sync::Arc;

use fastllm_engine::{Constraint, ConstraintError};
use fastllm_text::tokenizer::Tokenizer;
use fastllm_text::tools;

use crate::compiler::{Compiler, Grammar};
use crate::constraint::{Position, allow, allows};
use crate::error::GrammarError;
use crate::source::Source;
use crate::vocabulary;

/// Most bytes of white space between reasoning and what follows.
const SPACE: usize = 4;
/// Most bytes of a character after its first.
const CONTINUATION: usize = 3;

/// Reasoning.
struct Reasoning {
    /// All of it, with its markers; `None`: whatever the model writes.
    grammar: Option<Arc<Grammar>>,
    /// What begins it; `None`: the prompt did.
    open: Option<&'static str>,
    /// What ends it.
    close: &'static str,
    /// What begins a call, which ends it too where it has no grammar.
    calls: &'static [&'static str],
    /// Whether the grammar goes on after that.
    goes_on: bool,
    /// Most tokens between the two.
    budget: Option<usize>,
}

/// What may follow.
enum Alternative {
    /// Anything.
    Free,
    /// A text of this grammar.
    Grammar(Arc<Grammar>),
    /// A text of the first, whose end can be told, and then of the second.
    Both(Arc<Grammar>, Arc<Grammar>),
}

impl Compiler {
    /// The grammars of an answer. `form` is what its content must be, where it says so; `budget` are the most tokens of reasoning,
    /// after which it is ended, with up to three more where a character would be cut.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn answer(&self, answer: tools::Answer, form: Option<&Arc<Grammar>>, budget: Option<usize>) -> Result<Answer, GrammarError> {
        let compile = |text: String| self.compile(&Source::Lark(text));
        let thought = |thought: tools::Thought| {
            let tools::Thought { grammar, open, close, calls, goes_on } = thought;
            Ok::<_, GrammarError>(Reasoning { grammar: grammar.map(compile).transpose()?, open, close, calls, goes_on, budget })
        };
        let reasoning = answer.thought.map(thought).transpose()?;
        let mut alternatives = Vec::with_capacity(answer.alternatives.len());
        for alternative in answer.alternatives {
            alternatives.push(match (alternative, form) {
                (tools::Alternative::Grammar(text), _) => Alternative::Grammar(compile(text)?),
                (tools::Alternative::Form(None), Some(form)) => Alternative::Grammar(Arc::clone(form)),
                (tools::Alternative::Form(Some(before)), Some(form)) => Alternative::Both(compile(before)?, Arc::clone(form)),
                (tools::Alternative::Free | tools::Alternative::Form(_), _) => Alternative::Free,
            });
        }
        Ok(Answer::new(Arc::clone(self.tokenizer()), reasoning, alternatives))
    }
}

/// The parts of an answer.
pub struct Answer {
    tokenizer: Arc<Tokenizer>,
    reasoning: Option<Reasoning>,
    alternatives: Vec<Alternative>,
    /// Tokens of white space, and of nothing but bytes that continue a character, with their lengths.
    spaces: Vec<(u32, usize)>,
    continuations: Vec<(u32, usize)>,
}

impl Answer {
    fn new(tokenizer: Arc<Tokenizer>, reasoning: Option<Reasoning>, alternatives: Vec<Alternative>) -> Self {
        let mut answer = Self { tokenizer, reasoning, alternatives, spaces: Vec::new(), continuations: Vec::new() };
        if answer.reasoning.is_some() {
            let all = |most: usize, fits: fn(&u8) -> bool| -> Vec<(u32, usize)> {
                let ids = 0..answer.tokenizer.vocab_size() as u32;
                let bytes = ids.filter_map(|id| Some((id, answer.tokenizer.token_bytes(id)?)));
                bytes.filter(|(_, b)| !b.is_empty() && b.len() <= most && b.iter().all(fits)).map(|(id, b)| (id, b.len())).collect()
            };
            let (spaces, continuations) = (all(SPACE, |b| matches!(b, b' ' | b'\n')), all(CONTINUATION, |b| b >> 6 == 0b10));
            (answer.spaces, answer.continuations) = (spaces, continuations);
        }
        answer
    }

    /// The tokens of a text with which the prompt has begun the answer.
    ///
    /// # Errors
    /// No answer begins with it.
    pub fn begin(self: &Arc<Self>, text: &str) -> Result<Vec<u32>, ConstraintError> {
        let ids = vocabulary::within(&self.tokenizer, text, true);
        let ids =
            ids.ok_or_else(|| ConstraintError::Output("the tokenizer cannot encode the beginning of the answer exactly".to_owned()))?;
        self.start(&ids)?;
        Ok(ids)
    }

    /// The constraint of one request.
    pub fn constraint(self: &Arc<Self>) -> Box<dyn Constraint> {
        Box::new(self.fresh())
    }

    /// The constraint of one request whose prompt has begun the answer with the tokens of [`begin`](Self::begin).
    ///
    /// # Errors
    /// No answer begins with them.
    pub fn constraint_after(self: &Arc<Self>, begun: &[u32]) -> Result<Box<dyn Constraint>, ConstraintError> {
        Ok(Box::new(self.start(begun)?))
    }

    fn start(self: &Arc<Self>, begun: &[u32]) -> Result<Run, ConstraintError> {
        let mut run = self.fresh();
        for &id in begun {
            run.accept(id)?;
        }
        Ok(run)
    }

    fn fresh(self: &Arc<Self>) -> Run {
        let mut run = Run {
            answer: Arc::clone(self),
            phase: Phase::Answer,
            thought: None,
            threads: Vec::new(),
            text: Vec::new(),
            made: 0,
            closing: VecDeque::new(),
            spaces: 0,
            mask: Vec::new(),
        };
        match &self.reasoning {
            None => run.begin_answer(0),
            Some(reasoning) => {
                if reasoning.open.is_some() {
                    run.begin_answer(0);
                    run.phase = Phase::Start;
                } else {
                    run.begin_thought();
                }
                run.thought = reasoning.grammar.as_ref().map(Grammar::start);
            }
        }
        run
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may become reasoning, or an answer without.
    Start,
    Thinking,
    /// After the end of the reasoning, in what its grammar has beyond that.
    Closing,
    Answer,
}

/// One of the alternatives, as far as it was written.
enum Thread {
    Free,
    Grammar(Position),
    Both(Position, Arc<Grammar>),
}

impl Thread {
    fn new(alternative: &Alternative) -> Self {
        match alternative {
            Alternative::Free => Self::Free,
            Alternative::Grammar(grammar) => Self::Grammar(grammar.start()),
            Alternative::Both(first, second) => Self::Both(first.start(), Arc::clone(second)),
        }
    }

    fn position(&mut self) -> Option<&mut Position> {
        match self {
            Self::Free => None,
            Self::Grammar(position) | Self::Both(position, _) => Some(position),
        }
    }

    fn allows(&mut self, id: u32) -> Result<bool, ConstraintError> {
        self.position().map_or(Ok(true), |position| Ok(allows(position.open_mask()?, id)))
    }

    fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        let Some(position) = self.position() else { return Ok(()) };
        position.accept(id)?;
        if let Self::Both(first, second) = self
            && first.is_complete()
        {
            *self = Self::Grammar(second.start());
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        matches!(self, Self::Grammar(position) if position.is_complete())
    }
}

/// An answer, as far as it was written.
struct Run {
    answer: Arc<Answer>,
    phase: Phase,
    /// The reasoning, where it has a grammar and may still come.
    thought: Option<Position>,
    threads: Vec<Thread>,
    /// The end of what was written, as far as the markers need it.
    text: Vec<u8>,
    /// Tokens of reasoning.
    made: usize,
    /// Tokens that end the reasoning.
    closing: VecDeque<u32>,
    /// Bytes of white space that may still come before the answer.
    spaces: usize,
    mask: Vec<u32>,
}

impl Run {
    fn reasoning(&self) -> Option<&Reasoning> {
        self.answer.reasoning.as_ref()
    }

    fn begin_thought(&mut self) {
        self.phase = Phase::Thinking;
        self.threads.clear();
        self.check_budget();
    }

    fn begin_answer(&mut self, spaces: usize) {
        self.phase = Phase::Answer;
        self.thought = None;
        self.text = Vec::new();
        self.spaces = spaces;
        self.threads = self.answer.alternatives.iter().map(Thread::new).collect();
    }

    /// Whether the budget is used up, and only a character is to be completed.
    fn is_over(&self) -> bool {
        self.reasoning().and_then(|reasoning| reasoning.budget).is_some_and(|budget| self.made >= budget)
    }

    /// Whether one alternative is left and nothing may stand before it.
    fn is_alone(&self) -> bool {
        self.phase == Phase::Answer && self.spaces == 0 && self.threads.len() == 1
    }

    /// Begins to end the reasoning when its budget is used up.
    fn check_budget(&mut self) {
        let most = self.reasoning().and_then(|reasoning| reasoning.budget).map_or(usize::MAX, |b| b.saturating_add(CONTINUATION));
        if self.is_over() && (missing(&self.text) == 0 || self.made >= most) {
            self.close();
        }
    }

    /// The tokens of the closing marker, without what is there of it.
    fn close(&mut self) {
        let Some(close) = self.reasoning().map(|reasoning| reasoning.close) else { return };
        let there = (1..close.len()).rev().find(|&n| close.is_char_boundary(n) && self.text.ends_with(&close.as_bytes()[..n])).unwrap_or(0);
        self.closing = vocabulary::ids(&self.answer.tokenizer, &close[there..]).into();
    }

    /// After a token that may open the reasoning.
    fn start(&mut self, id: u32) -> Result<(), ConstraintError> {
        if let Some(thought) = &mut self.thought {
            if allows(thought.open_mask()?, id) {
                thought.accept(id)?;
            } else {
                self.thought = None;
            }
        }
        self.advance_threads(id, self.thought.is_some())?;
        let open = self.reasoning().and_then(|reasoning| reasoning.open).unwrap_or_default();
        let space = self.text.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let (head, open) = (&self.text[space..], open.as_bytes());
        let has_grammar = self.reasoning().is_some_and(|reasoning| reasoning.grammar.is_some());
        if head.is_empty() {
            self.text.clear();
        } else if head.starts_with(open) && (self.thought.is_some() || !has_grammar) {
            self.text.drain(..space + open.len());
            self.begin_thought();
        } else if !open.starts_with(head) || (has_grammar && self.thought.is_none()) {
            self.phase = Phase::Answer;
            self.thought = None;
            self.text = Vec::new();
        }
        Ok(())
    }

    fn think(&mut self, id: u32) -> Result<(), ConstraintError> {
        if let Some(thought) = &mut self.thought {
            thought.accept(id)?;
        }
        let close = self.reasoning().map(|reasoning| reasoning.close).unwrap_or_default();
        if find(&self.text, close.as_bytes()) {
            self.closing.clear();
            if self.thought.is_none() {
                self.begin_answer(0);
            } else if self.reasoning().is_some_and(|reasoning| reasoning.goes_on) {
                self.phase = Phase::Closing;
            } else {
                self.begin_answer(SPACE);
            }
            return Ok(());
        }
        let calls = self.reasoning().map(|reasoning| reasoning.calls).unwrap_or_default();
        if self.thought.is_none() && calls.iter().any(|opener| find(&self.text, opener.as_bytes())) {
            self.closing.clear();
            self.begin_answer(0);
            return Ok(());
        }
        let keep = calls.iter().map(|opener| opener.len()).fold(close.len().max(CONTINUATION + 1), usize::max);
        self.text.drain(..self.text.len().saturating_sub(keep));
        if self.closing.is_empty() {
            self.made += 1;
            self.check_budget();
        }
        Ok(())
    }

    /// Drops the alternatives that `id` leaves.
    fn advance_threads(&mut self, id: u32, may_be_none: bool) -> Result<(), ConstraintError> {
        if let ([thread], false) = (&mut self.threads[..], may_be_none) {
            return thread.accept(id);
        }
        let mut kept = Vec::with_capacity(self.threads.len());
        for mut thread in self.threads.drain(..) {
            if thread.allows(id)? {
                thread.accept(id)?;
                kept.push(thread);
            }
        }
        self.threads = kept;
        if self.threads.is_empty() && !may_be_none {
            return Err(ConstraintError::Output(format!("token {id} is not allowed by the grammar")));
        }
        Ok(())
    }

    fn fill_mask(&mut self) -> Result<(), ConstraintError> {
        let vocab_size = self.answer.tokenizer.vocab_size();
        self.mask.clear();
        self.mask.resize(vocab_size.div_ceil(32), 0);
        if let Some(&id) = self.closing.front() {
            allow(&mut self.mask, id);
            return Ok(());
        }
        let is_thinking = matches!(self.phase, Phase::Thinking | Phase::Closing);
        let is_alone = self.is_alone();
        if let Some(thought) = self.thought.as_mut() {
            add(&mut self.mask, if self.phase == Phase::Closing { thought.mask()? } else { thought.open_mask()? });
        }
        for thread in &mut self.threads {
            match thread.position() {
                None => all(&mut self.mask, vocab_size),
                Some(position) => add(&mut self.mask, if is_alone { position.mask()? } else { position.open_mask()? }),
            }
        }
        if is_thinking && self.thought.is_none() {
            all(&mut self.mask, vocab_size);
        }
        if self.phase == Phase::Answer {
            for &(id, _) in self.answer.spaces.iter().filter(|(_, len)| *len <= self.spaces) {
                allow(&mut self.mask, id);
            }
        }
        if self.phase == Phase::Thinking && self.is_over() {
            self.complete_character();
        }
        Ok(())
    }

    /// Leaves in the mask what completes the character that was begun; where nothing does, the reasoning ends.
    fn complete_character(&mut self) {
        let left = missing(&self.text);
        let mut mask = vec![0; self.mask.len()];
        for &(id, _) in self.answer.continuations.iter().filter(|(id, len)| *len <= left && allows(&self.mask, *id)) {
            allow(&mut mask, id);
        }
        if mask.iter().all(|word| *word == 0) {
            self.close();
            self.closing.front().into_iter().for_each(|&id| allow(&mut mask, id));
        }
        self.mask = mask;
    }
}

impl Constraint for Run {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        self.fill_mask()?;
        Ok(&self.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        if let Some(&next) = self.closing.front() {
            if next != id {
                return Err(ConstraintError::Output(format!("token {id} is not the one that ends the reasoning")));
            }
            self.closing.pop_front();
        }
        if self.phase != Phase::Answer {
            self.text.extend_from_slice(self.answer.tokenizer.token_bytes(id).unwrap_or_default());
        }
        match self.phase {
            Phase::Start => self.start(id),
            Phase::Thinking => self.think(id),
            Phase::Closing => {
                if let Some(thought) = &mut self.thought {
                    thought.accept(id)?;
                }
                if self.thought.as_ref().is_none_or(Position::is_complete) {
                    self.begin_answer(0);
                }
                Ok(())
            }
            Phase::Answer => {
                let space = self.answer.spaces.iter().find(|(space, len)| *space == id && *len <= self.spaces);
                if let Some((_, len)) = space {
                    self.spaces -= len;
                    return Ok(());
                }
                self.spaces = 0;
                self.advance_threads(id, false)
            }
        }
    }

    fn forced(&mut self) -> Result<Vec<u32>, ConstraintError> {
        if !self.closing.is_empty() {
            return Ok(self.closing.iter().copied().collect());
        }
        if self.phase == Phase::Closing {
            return self.thought.as_mut().map_or(Ok(Vec::new()), Position::forced);
        }
        let thread = if self.is_alone() { self.threads.first_mut() } else { None };
        thread.and_then(Thread::position).map_or(Ok(Vec::new()), Position::forced)
    }

    fn is_complete(&self) -> bool {
        self.phase == Phase::Answer && self.closing.is_empty() && !self.threads.is_empty() && self.threads.iter().all(Thread::is_complete)
    }
}

fn add(mask: &mut [u32], more: &[u32]) {
    for (word, more) in mask.iter_mut().zip(more) {
        *word |= more;
    }
}

fn all(mask: &mut [u32], vocab_size: usize) {
    mask.fill(u32::MAX);
    if let Some(last) = mask.last_mut().filter(|_| !vocab_size.is_multiple_of(32)) {
        *last = (1 << (vocab_size % 32)) - 1;
    }
}

fn find(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// Bytes that are missing of the last character of a text.
fn missing(text: &[u8]) -> usize {
    let tail = text.iter().rev().take(CONTINUATION).take_while(|b| *b >> 6 == 0b10).count();
    let Some(&first) = text.len().checked_sub(tail + 1).and_then(|at| text.get(at)) else { return 0 };
    let len = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0usize,
    };
    len.saturating_sub(tail + 1)
}
