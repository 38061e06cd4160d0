//! Output that must follow a rule: which ids may come next.
//!
//! A [`Constraint`] is asked for a mask before each token and told what was chosen. Masks are computed on a thread of their own while
//! the model computes the logits that they apply to. Nothing depends on which of the two is ready first: the sampler waits for both.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use crate::error::Failure;
use crate::scheduler::guard::catch;
use crate::scheduler::lock;

/// Stack of the thread that computes masks: rules come from strangers, and code that follows them may recurse.
const STACK_BYTES: usize = 16 << 20;

/// Which ids may come next. The engine knows ids only; what the rule says of text is the implementation's.
///
/// What it answers must depend on its rule and the ids accepted so far alone. One thread at a time uses it.
pub trait Constraint: Send {
    /// The ids that may come next, as bits: id `i` is bit `i % 32` of word `i / 32`; ids beyond the words are not allowed. The ids that
    /// end a text are among them where it may end, and only there.
    ///
    /// # Errors
    /// Nothing may follow although the text may not end here, or a limit was reached.
    fn mask(&mut self) -> Result<&[u32], ConstraintError>;

    /// `id`, which the mask allows, is the next token.
    ///
    /// # Errors
    /// The mask does not allow it, or a limit was reached.
    fn accept(&mut self, id: u32) -> Result<(), ConstraintError>;

    /// The ids that must follow now, in order; none where there is a choice. As long as they are not accepted, the mask allows the
    /// first of them and nothing else, so that asking for them changes no output.
    ///
    /// # Errors
    /// A limit was reached.
    fn forced(&mut self) -> Result<Vec<u32>, ConstraintError>;

    /// Whether the text is complete: nothing but its end may follow.
    fn is_complete(&self) -> bool;
}

/// Why a constraint cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Nothing may follow, a limit was reached, or a token is not allowed.
    #[error("{0}")]
    Output(String),
    /// Not enough memory is available for the next step.
    #[error("{0}")]
    OutOfMemory(String),
}

/// A constraint, and the mask after it once that was computed.
struct Parts {
    constraint: Box<dyn Constraint>,
    /// Ids that are in no mask.
    banned: Arc<[u32]>,
    mask: Vec<u32>,
}

type Computed = Result<Result<Parts, ConstraintError>, Failure>;

/// The constraint of a running request: at hand, or with the thread that computes its mask.
pub(crate) struct Constrained {
    state: State,
    worker: Arc<MaskWorker>,
    /// Whether forced tokens are appended without asking the model.
    skip_ahead: bool,
}

enum State {
    Idle(Parts),
    Computing(Receiver<Computed>),
    /// It failed before.
    Lost,
}

impl Constrained {
    /// Starts with the mask of the first token. `banned` ids are taken out of all masks.
    pub(crate) fn new(constraint: Box<dyn Constraint>, banned: Arc<[u32]>, skip_ahead: bool, worker: Arc<MaskWorker>) -> Self {
        let mut new = Self { state: State::Idle(Parts { constraint, banned, mask: Vec::new() }), worker, skip_ahead };
        new.prepare();
        new
    }

    /// Lets the mask of the next token be computed.
    pub(crate) fn prepare(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(parts) => State::Computing(self.worker.compute(parts)),
            other => other,
        };
    }

    /// The mask of the next token; waits for it.
    pub(crate) fn mask(&mut self) -> Result<&[u32], Failure> {
        Ok(&self.parts()?.mask)
    }

    /// `id` is the next token. Whether the text is complete.
    pub(crate) fn accept(&mut self, id: u32) -> Result<bool, Failure> {
        let constraint = &mut self.parts()?.constraint;
        constraint.accept(id)?;
        Ok(constraint.is_complete())
    }

    /// The tokens that must follow.
    pub(crate) fn forced(&mut self) -> Result<Vec<u32>, Failure> {
        if self.skip_ahead { Ok(self.parts()?.constraint.forced()?) } else { Ok(Vec::new()) }
    }

    fn parts(&mut self) -> Result<&mut Parts, Failure> {
        if let State::Computing(receiver) = &self.state {
            let computed = receiver.recv().unwrap_or(Err(Failure::ShutDown));
            self.state = State::Lost;
            self.state = State::Idle(computed??);
        }
        match &mut self.state {
            State::Idle(parts) => Ok(parts),
            State::Computing(_) | State::Lost => Err(ConstraintError::Output("the constraint has failed before".to_owned()).into()),
        }
    }
}

/// The thread that computes masks, started with the first constraint.
#[derive(Default)]
pub(crate) struct MaskWorker {
    thread: Mutex<Option<Thread>>,
}

struct Thread {
    jobs: Sender<(Parts, Sender<Computed>)>,
    handle: JoinHandle<()>,
}

impl MaskWorker {
    /// Starts the thread unless it runs.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let (jobs, queue) = channel::<(Parts, Sender<Computed>)>();
            let run = move || {
                for (parts, reply) in queue {
                    // The request may have ended meanwhile.
                    drop(reply.send(catch("computing a mask", || compute(parts))));
                }
            };
            let handle = Builder::new().name("fastllm-masks".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
            *thread = Some(Thread { jobs, handle });
        }
        Ok(())
    }

    /// Where the result will be; nothing comes when the thread was shut down.
    fn compute(&self, parts: Parts) -> Receiver<Computed> {
        let (reply, receiver) = channel();
        if let Some(thread) = &*lock(&self.thread) {
            drop(thread.jobs.send((parts, reply)));
        }
        receiver
    }

    /// Ends the thread.
    pub(crate) fn shut_down(&self) {
        let thread = lock(&self.thread).take();
        if let Some(Thread { jobs, handle }) = thread {
            drop(jobs);
            drop(handle.join());
        }
    }
}

fn compute(mut parts: Parts) -> Result<Parts, ConstraintError> {
    let mask = parts.constraint.mask()?;
    parts.mask.clear();
    parts.mask.extend_from_slice(mask);
    for &id in &*parts.banned {
        if let Some(word) = parts.mask.get_mut(id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }
    Ok(parts)
}
