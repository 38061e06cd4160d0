//! Stops a forward pass that is under way when a request in it is cancelled.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lock;

/// The requests in the current forward pass, and its cancel flag.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    abort: AtomicBool,
    step: Mutex<Step>,
}

#[derive(Debug, Default)]
struct Step {
    members: Vec<u64>,
    /// Go on while one member is left: set after an aborted step, so that a storm of cancellations cannot starve the others.
    shielded: bool,
    /// The engine is being shut down: nothing runs any more.
    shut_down: bool,
}

impl Interrupt {
    /// Declares the members of the forward pass that follows. A member whose cancellation came before is seen by a check after this
    /// call; one that comes later sets the flag.
    pub(crate) fn arm(&self, members: impl Iterator<Item = u64>, shielded: bool) {
        let mut step = lock(&self.step);
        step.members.clear();
        step.members.extend(members);
        step.shielded = shielded;
        self.abort.store(step.shut_down, Ordering::Release);
    }

    /// The forward pass is over.
    pub(crate) fn disarm(&self) {
        lock(&self.step).members.clear();
    }

    /// A request was cancelled: aborts the forward pass when it takes part in it.
    pub(crate) fn cancelled(&self, id: u64) {
        let mut step = lock(&self.step);
        if let Some(index) = step.members.iter().position(|&member| member == id) {
            step.members.swap_remove(index);
            if !step.shielded || step.members.is_empty() {
                self.abort.store(true, Ordering::Release);
            }
        }
    }

    /// Aborts this forward pass and all that follow.
    pub(crate) fn shut_down(&self) {
        lock(&self.step).shut_down = true;
        self.abort.store(true, Ordering::Release);
    }

    /// The cancel flag of the forward pass.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.abort
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(interrupt: &Interrupt) -> bool {
        interrupt.flag().load(Ordering::Acquire)
    }

    #[test]
    fn only_members_abort_a_step() {
        let interrupt = Interrupt::default();
        interrupt.arm([1, 2].into_iter(), false);
        interrupt.cancelled(3);
        assert!(!aborted(&interrupt));
        interrupt.cancelled(2);
        assert!(aborted(&interrupt));
        interrupt.arm([1].into_iter(), false);
        assert!(!aborted(&interrupt), "a flag of the step before is cleared");
        interrupt.disarm();
        interrupt.cancelled(1);
        assert!(!aborted(&interrupt));
    }

    #[test]
    fn a_shielded_step_is_aborted_when_nobody_is_left() {
        let interrupt = Interrupt::default();
        interrupt.arm([1, 2].into_iter(), true);
        interrupt.cancelled(1);
        interrupt.cancelled(1);
        assert!(!aborted(&interrupt));
        interrupt.cancelled(2);
        assert!(aborted(&interrupt));
    }

    #[test]
    fn a_shutdown_aborts_every_step() {
        let interrupt = Interrupt::default();
        interrupt.shut_down();
        interrupt.arm([1].into_iter(), true);
        assert!(aborted(&interrupt));
    }
}
