//! The pool under stress: late threads, nested loops, panics, forks, neighbours.
use fastllm_kernels::pool::Pool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A small generator (xorshift64), so that delays differ and runs repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn spin(rounds: u64) {
    (0..rounds).for_each(|_| std::hint::spin_loop());
}

/// Every loop has its own state on the stack, which dies with the loop. With more threads than cores, threads are descheduled between
/// any two steps: one that ran a task of an ended loop would find it dead, or count a task twice.
#[test]
fn a_late_thread_runs_no_job_of_an_ended_loop() {
    let pool = Pool::new(thread::available_parallelism().map_or(2, usize::from) * 4);
    let mut random = Random(7);
    let end = Instant::now() + Duration::from_secs(3);
    let mut loops = 0;
    while Instant::now() < end {
        let tasks = 1 + random.below(12) as usize;
        let (alive, delay) = (AtomicBool::new(true), random.below(300));
        let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        pool.run(tasks, |task, _| {
            assert!(alive.load(Ordering::Relaxed), "the loop has ended");
            match (task as u64 + delay) % 5 {
                0 => thread::yield_now(),
                1 => spin(delay),
                _ => {}
            }
            counts[task].fetch_add(1, Ordering::Relaxed);
            assert!(alive.load(Ordering::Relaxed), "the loop has ended");
        });
        alive.store(false, Ordering::Relaxed);
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        if loops % 64 == 0 {
            // Long enough for threads to park.
            thread::sleep(Duration::from_micros(random.below(400)));
        }
        loops += 1;
    }
    println!("{loops} loops");
    assert!(loops > 100);
}

/// Claims beyond the last task must not carry into the other fields of the ticket.
#[test]
fn very_long_loops_run_every_task_once() {
    let pool = Pool::new(9);
    for tasks in [1 << 20, (1 << 20) + 1, (1 << 21) - 9, (1 << 21) - 3, (1 << 21) - 2, (1 << 21) - 1, 1 << 21, (1 << 22) + 5] {
        let counts: Vec<AtomicU8> = (0..tasks).map(|_| AtomicU8::new(0)).collect();
        pool.run(tasks, |task, _| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        // Time for threads that come late.
        thread::sleep(Duration::from_millis(2));
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{tasks} tasks");
    }
}

#[test]
fn loops_nest() {
    let pool = Pool::new(4);
    let other = Pool::new(3);
    let count = AtomicUsize::new(0);
    for _ in 0..200 {
        pool.run(8, |_, _| {
            pool.run(5, |_, thread| {
                assert_eq!(thread, 0);
                count.fetch_add(1, Ordering::Relaxed);
            });
            other.run(3, |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
    }
    assert_eq!(count.into_inner(), 200 * 8 * 8);
}

/// Right after a loop, while threads spin, and later, when they are parked.
#[test]
fn pools_come_and_go() {
    for i in 0..300 {
        let pool = Pool::new(1 + i % 7);
        let sum = AtomicUsize::new(0);
        pool.run(i % 11, |task, _| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), (i % 11) * (i % 11).saturating_sub(1) / 2);
        if i % 50 == 0 {
            thread::sleep(Duration::from_millis(3));
        }
    }
    assert_eq!(Pool::new(0).threads(), 1);
    drop(Pool::new(300));
}

#[test]
fn many_pools_live_side_by_side() {
    let pools: Vec<Pool> = (0..40).map(|_| Pool::new(3)).collect();
    thread::scope(|s| {
        for first in 0..4 {
            let pools = &pools;
            s.spawn(move || {
                for round in 0..50 {
                    for pool in pools.iter().skip((first + round) % 4).step_by(4) {
                        let mut items = [0usize; 9];
                        pool.for_each_mut(&mut items, |i, x| *x = i);
                        assert!(items.iter().enumerate().all(|(i, x)| i == *x));
                    }
                }
            });
        }
    });
}

/// Two threads share a pool; tasks of one panic. Each hears of its own panics, of all of them, and of no others.
#[test]
fn a_panic_belongs_to_its_loop() {
    let pool = Pool::new(3);
    let done = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|info| {
        if info.payload_as_str() != Some("on purpose") {
            eprintln!("{info}");
        }
    }));
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..3000 {
                let panics = |pool: &Pool| pool.run(6, |task, _| assert!(task % 2 == 0, "on purpose"));
                assert!(catch_unwind(AssertUnwindSafe(|| panics(&pool))).is_err());
            }
            done.store(true, Ordering::Relaxed);
        });
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let count = AtomicUsize::new(0);
                pool.run(6, |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(count.into_inner(), 6);
            }
        });
    });
    let _ = std::panic::take_hook();
}

/// The panic of a payload's destructor must not keep a loop from ending.
#[test]
fn a_payload_that_panics_when_dropped_is_survived() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(thread::panicking(), "the destructor");
        }
    }
    let pool = Pool::new(3);
    for _ in 0..20 {
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(9, |_, _| std::panic::resume_unwind(Box::new(Bomb)))));
        std::mem::forget(caught.unwrap_err());
        pool.run(9, |_, _| {});
    }
}

/// A forked child has the pool but not its threads: loops run on the caller's, and dropping waits for nobody.
#[test]
#[cfg(target_os = "linux")]
fn a_forked_child_runs_loops_and_ends() {
    for parked in [false, true] {
        let pool = Pool::new(4);
        pool.run(16, |_, _| {});
        if parked {
            thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: the child allocates little, takes no lock that another thread of the parent could hold, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let count = AtomicUsize::new(0);
            for _ in 0..10 {
                pool.run(16, |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            drop(pool);
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(count.into_inner() != 160)) };
        }
        assert!(child > 0);
        let mut status = -1;
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            // SAFETY: waits for the child started above.
            match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
                0 if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
                0 => {
                    // SAFETY: ends the child started above.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                    panic!("the child hangs");
                }
                _ => break,
            }
        }
        assert_eq!(status, 0);
        pool.run(16, |_, _| {});
    }
}

/// Prints what busy neighbours cost: with tasks claimed one by one, about their share of the CPU and no more.
#[test]
fn throughput_with_more_threads_than_cores_and_busy_neighbours() {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let work = |pool: &Pool| {
        let start = Instant::now();
        let done = AtomicU64::new(0);
        while start.elapsed() < Duration::from_millis(300) {
            pool.run(64, |_, _| {
                spin(500);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        done.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    for threads in [1, cores, 2 * cores, 8 * cores] {
        let pool = Pool::new(threads);
        let alone = work(&pool);
        let stop = AtomicBool::new(false);
        let beside = thread::scope(|s| {
            for _ in 0..cores {
                s.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        spin(100);
                    }
                });
            }
            let beside = work(&pool);
            stop.store(true, Ordering::Relaxed);
            beside
        });
        println!(
            "{threads} threads on {cores} cores: {alone:.0} tasks/s alone, {:.0} % beside {cores} busy threads",
            100.0 * beside / alone
        );
    }
}
