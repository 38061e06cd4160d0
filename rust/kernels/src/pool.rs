//! A thread pool for short parallel loops.
//!
//! Tasks are claimed one by one, so a thread that is descheduled delays at most the task it holds. Waiting threads spin for a while and
//! then park: a busy pool answers within a microsecond, an idle one costs nothing.
#![allow(unsafe_code)]
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Rounds of waiting with the CPU's pause instruction before a thread parks: about 50 to 100 microseconds.
const SPINS: usize = 2000;

type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The word that tasks are claimed from: epoch, number of tasks, next task. One `fetch_add` claims a task and tells whether it exists,
/// so that a late thread can never claim a task of a loop that has ended.
///
/// Every thread claims at most once in vain per loop: `next` ends at most [`MOST_THREADS`] above `tasks`, far from the carry into the
/// number of tasks that would bring a finished loop back to life. Epochs may wrap: they only tell a waiting thread that something is new.
#[derive(Clone, Copy)]
struct Ticket(u64);

const NEXT_BITS: u32 = 21;
const TASK_BITS: u32 = 21;
/// Most tasks of a ticket; longer loops take several.
const MOST_TASKS: usize = 1 << (NEXT_BITS - 1);
/// Most threads of a pool.
const MOST_THREADS: usize = 1024;
const _: () = assert!(MOST_TASKS + MOST_THREADS < 1 << NEXT_BITS && MOST_TASKS < 1 << TASK_BITS);

impl Ticket {
    fn new(epoch: u64, tasks: usize) -> Ticket {
        Ticket(epoch << (NEXT_BITS + TASK_BITS) | (tasks as u64) << NEXT_BITS)
    }
    fn epoch(self) -> u64 {
        self.0 >> (NEXT_BITS + TASK_BITS)
    }
    fn tasks(self) -> usize {
        (self.0 >> NEXT_BITS) as usize & ((1 << TASK_BITS) - 1)
    }
    fn next(self) -> usize {
        self.0 as usize & ((1 << NEXT_BITS) - 1)
    }
}

struct Shared {
    ticket: AtomicU64,
    /// A `&Job` on the stack of the thread that runs the loop; valid while a claimed task is unfinished.
    job: AtomicPtr<&'static Job<'static>>,
    finished: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    parked: Vec<AtomicBool>,
    caller: Mutex<Option<Thread>>,
    caller_parked: AtomicBool,
    stop: AtomicBool,
}

/// Some threads, the caller's among them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One loop at a time.
    running: Mutex<u64>,
    /// The process that the threads live in.
    process: u32,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// `threads` threads, the caller's included; fewer if the system refuses them.
    pub fn new(threads: usize) -> Pool {
        let workers = threads.clamp(1, MOST_THREADS) - 1;
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            finished: AtomicUsize::new(0),
            panic: Mutex::new(None),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            caller_parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("fastllm-{}", index + 1);
            std::thread::Builder::new().name(name).spawn(move || work(&shared, index)).ok()
        };
        let workers = (0..workers).map_while(spawn).collect();
        Pool { shared, workers, running: Mutex::new(0), process: std::process::id() }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(task, thread)` for every task below `tasks`, in any order and on any threads, and waits. A panic in a task is raised
    /// here, when the others are done.
    ///
    /// A loop inside a task, or beside a loop of another thread, runs on the thread that calls: as thread 0, which is then no longer one
    /// thread alone. In a forked child, which has no other threads, loops run on the one that calls.
    pub fn run(&self, tasks: usize, job: impl Fn(usize, usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|task| job(task, 0));
            return;
        }
        // A loop inside a task of this pool would wait for itself; and after a fork the lock may be held by a thread that is gone.
        let Ok(mut epoch) = self.running.try_lock() else {
            (0..tasks).for_each(|task| job(task, 0));
            return;
        };
        for first in (0..tasks).step_by(MOST_TASKS) {
            *epoch += 1;
            self.run_some(*epoch, tasks.min(first + MOST_TASKS) - first, &|task, thread| job(first + task, thread));
        }
        // Before the next loop may begin: a panic belongs to the loop that it happened in.
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(epoch);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn run_some(&self, epoch: u64, tasks: usize, job: &Job<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The reference is used by claimed tasks of this loop only, and this function returns when all
        // are finished: nothing below unwinds, because `claim` catches the panics of tasks.
        let mut job: &'static Job<'static> = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        // Relaxed stores are enough: who claims a task has read the ticket, or one counted on from it, and so sees what came before it.
        shared.finished.store(0, Ordering::Relaxed);
        shared.job.store(&raw mut job, Ordering::Relaxed);
        shared.ticket.store(Ticket::new(epoch, tasks).0, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&shared.parked) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.claim(usize::MAX);
        let mut spins = 0;
        while shared.finished.load(Ordering::Acquire) < tasks {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            *shared.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
            shared.caller_parked.store(true, Ordering::SeqCst);
            if shared.finished.load(Ordering::SeqCst) < tasks {
                std::thread::park();
            }
            shared.caller_parked.store(false, Ordering::SeqCst);
        }
    }

    /// Calls `f(index, item)` for every item, on any threads.
    pub fn for_each_mut<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        self.for_each_worker(items, |index, _, item| f(index, item));
    }

    /// Calls `f(index, thread, item)` for every item, on any threads.
    pub fn for_each_worker<T: Send>(&self, items: &mut [T], f: impl Fn(usize, usize, &mut T) + Sync) {
        let count = items.len();
        let all = crate::buffer::Columns::new(items, count.max(1));
        // SAFETY: every task takes its own item.
        self.run(count, |task, thread| f(task, thread, unsafe { &mut all.part(0, task, 1)[0] }));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A forked child has no such threads: waiting for them would never end, and their handles are not its to release.
            std::mem::forget(std::mem::take(&mut self.workers));
            return;
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its tasks, so it ends in good order.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Does tasks of the present loop until none is left; returns its epoch. The caller's thread is worker `usize::MAX`.
    fn claim(&self, worker: usize) -> u64 {
        loop {
            let ticket = Ticket(self.ticket.fetch_add(1, Ordering::AcqRel));
            if ticket.next() >= ticket.tasks() {
                return ticket.epoch();
            }
            // SAFETY: a claimed task keeps its loop, and with it the job, alive until `finished` is raised.
            let job = unsafe { *self.job.load(Ordering::Relaxed) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(ticket.next(), worker.wrapping_add(1)))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                if first.is_none() {
                    *first = Some(panic);
                } else {
                    // Dropping it could panic again, and `finished` would never be raised.
                    std::mem::forget(panic);
                }
            }
            if self.finished.fetch_add(1, Ordering::SeqCst) + 1 == ticket.tasks()
                && self.caller_parked.load(Ordering::SeqCst)
                && let Some(caller) = &*self.caller.lock().unwrap_or_else(PoisonError::into_inner)
            {
                caller.unpark();
            }
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    let mut spins = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        if Ticket(shared.ticket.load(Ordering::Acquire)).epoch() != seen {
            seen = shared.claim(index);
            spins = 0;
            continue;
        }
        spins += 1;
        if spins < SPINS {
            std::hint::spin_loop();
            continue;
        }
        shared.parked[index].store(true, Ordering::SeqCst);
        let idle = Ticket(shared.ticket.load(Ordering::SeqCst)).epoch() == seen;
        if idle && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        shared.parked[index].store(false, Ordering::SeqCst);
        spins = 0;
    }
}

/// Threads that this process may use well: what affinity and the cgroup's quota allow, at most the physical cores.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// Physical cores, counted by the sets of sibling threads that Linux lists.
fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::HashSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        if let Ok(siblings) = std::fs::read_to_string(entry.path().join("topology/thread_siblings_list")) {
            cores.insert(siblings);
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::new(3);
        for tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..200 {
                pool.run(tasks, |task, thread| {
                    assert!(thread < 3);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 200));
        }
    }

    #[test]
    fn parked_threads_wake_up() {
        let pool = Pool::new(2);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.run(64, |task, _| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 64 * 63 / 2);
        }
    }

    #[test]
    fn a_panic_is_raised_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for _ in 0..10 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(8, |task, _| assert!(task != 5, "task five"))));
            assert!(result.is_err());
            pool.run(8, |_, _| {});
        }
    }

    #[test]
    fn several_threads_share_a_pool() {
        let pool = Pool::new(2);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..500 {
                        let mut items = [1u32; 10];
                        pool.for_each_mut(&mut items, |i, x| *x += i as u32);
                        assert_eq!(items.iter().sum::<u32>(), 55);
                    }
                });
            }
        });
    }
}
