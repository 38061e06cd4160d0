//! Roofs: what this machine can do at most. Dot products of bytes and fused multiply-adds with everything in registers and the first
//! cache, and a plain read of memory, with any number of threads. A figure of speed says something beside them only. Knows no formats.
//!
//! Everything stops soon (well under 100 ms) after `cancel` became true; rates are then those of the windows until there.
use crate::buffer::{AlignedVec, Line, OutOfMemory};
use crate::pool::Pool;
use fastllm_simd::tiles::{TILE, Tiles};
use fastllm_simd::{Cpu, Isa, Kernel, ROWS, Range, TileKernel};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Windows that are measured however little time there is, so that a median means something.
const LEAST_WINDOWS: usize = 3;
/// Tasks of a thread in a window, and how long one takes: long beside the microsecond in which a pool begins and ends a loop, short
/// beside the time slices that other processes take.
const TASKS: usize = 4;
const TASK: Duration = Duration::from_micros(100);
/// Lines that a task reads: 1 MiB, so that threads finish together.
const CHUNK: usize = (1 << 20) / size_of::<Line>();

/// Operations or bytes per second, over windows of some hundred microseconds, or passes over a memory.
///
/// Other work can only make a window slower: the best one is the machine's, the median what it gives at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Of the fastest window; 0 if there was none.
    pub best: f64,
    /// Of the median window; 0 if there was none.
    pub median: f64,
}

/// Rate of windows of `work` each, run until `time` is over.
fn windows(work: f64, time: Duration, cancel: &AtomicBool, mut window: impl FnMut()) -> Rate {
    let (start, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < LEAST_WINDOWS || start.elapsed() < time {
        let begin = Instant::now();
        window();
        // A window that was cut short counts nothing.
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        seconds.push(begin.elapsed().as_secs_f64().max(1e-9));
    }
    seconds.sort_by(f64::total_cmp);
    let rate = |at: usize| seconds.get(at).map_or(0.0, |s| work / s);
    Rate { best: rate(0), median: rate(seconds.len() / 2) }
}

/// Rate of `work`, which returns its operations, on all threads of the pool at once.
fn compute(pool: &Pool, time: Duration, cancel: &AtomicBool, work: impl Fn() -> usize + Sync) -> Rate {
    let mut shortest = f64::MAX;
    let mut ops = 0;
    for _ in 0..LEAST_WINDOWS {
        let start = Instant::now();
        ops = work();
        shortest = shortest.min(start.elapsed().as_secs_f64());
    }
    let calls = (TASK.as_secs_f64() / shortest.max(1e-9)).ceil().clamp(1.0, 1e6) as usize;
    let tasks = pool.threads() * TASKS;
    windows((tasks * calls * ops) as f64, time, cancel, || {
        pool.run(tasks, |_, _| {
            for _ in 0..calls {
                if cancel.load(Ordering::Relaxed) {
                    return;
                }
                black_box(work());
            }
        });
    })
}

/// Dot products of bytes on all threads of the pool, in operations per second; a multiply-add counts two. Measured for about `time`.
///
/// Sets with matrix tiles: the tiles' products of 32 columns, with loading and storing them. Scales for 32 columns allow no longer ones.
pub fn integer(cpu: Cpu, pool: &Pool, time: Duration, cancel: &AtomicBool) -> Rate {
    let x = Box::new([[[7i8; 32]; TOKENS]; GROUPS]);
    let vectors = compute(pool, time, cancel, || {
        let (ops, largest) = cpu.run(Dots { x: black_box(&x) });
        black_box(largest);
        ops
    });
    if !cpu.has_tiles() {
        return vectors;
    }
    let tiles = compute(pool, time, cancel, || {
        let mut ops = 0;
        let done = cpu.run_tiled(TileDots { x: black_box(&[3; 32 * TILE]), ops: &mut ops });
        debug_assert!(done.is_ok(), "the set has tiles");
        ops
    });
    Rate { best: vectors.best.max(tiles.best), median: vectors.median.max(tiles.median) }
}

/// Fused multiply-adds of floats on all threads of the pool, in operations per second; one counts two. Measured for about `time`.
pub fn float(cpu: Cpu, pool: &Pool, time: Duration, cancel: &AtomicBool) -> Rate {
    compute(pool, time, cancel, || {
        let (ops, largest) = cpu.run(MultiplyAdds { x: black_box(1.0) });
        black_box(largest);
        ops
    })
}

/// Memory to read: weights as a decoder meets them, in huge pages where the system has them, touched first by the threads.
#[derive(Debug)]
pub struct Memory {
    lines: AlignedVec<Line>,
}

impl Memory {
    /// About `bytes` bytes. Only several times the last cache's size measures memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn new(bytes: usize, pool: &Pool, cancel: &AtomicBool) -> Result<Memory, OutOfMemory> {
        const PAGE: usize = 4096 / size_of::<Line>();
        let mut lines = AlignedVec::try_zeroed((bytes / size_of::<Line>()).max(CHUNK))?;
        let mut chunks: Vec<&mut [Line]> = lines.chunks_mut(CHUNK).collect();
        pool.for_each_mut(&mut chunks, |_, chunk| {
            if !cancel.load(Ordering::Relaxed) {
                // Pages that were never written are all one page of zeros, in the cache.
                for page in chunk.chunks_mut(PAGE) {
                    page[0] = Line([0x3f; 64]);
                }
            }
        });
        drop(chunks);
        Ok(Memory { lines })
    }

    /// Bytes of a pass.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// The rate of [`read`] over all of it.
    pub fn read(&self, cpu: Cpu, pool: &Pool, time: Duration, cancel: &AtomicBool) -> Rate {
        read(&self.lines, cpu, pool, time, cancel)
    }
}

/// Passes over `lines` with the widest loads of the set, shared among the threads of the pool, in bytes per second. Measured for about
/// `time`.
pub fn read(lines: &[Line], cpu: Cpu, pool: &Pool, time: Duration, cancel: &AtomicBool) -> Rate {
    windows(size_of_val(lines) as f64, time, cancel, || {
        pool.run(lines.len().div_ceil(CHUNK), |chunk, _| {
            if !cancel.load(Ordering::Relaxed) {
                let first = chunk * CHUNK;
                black_box(cpu.run(Union { lines: &lines[first..lines.len().min(first + CHUNK)] }));
            }
        });
    })
}

/// Tokens of the loops that measure arithmetic, and groups of 32 columns in them.
const TOKENS: usize = 8;
const GROUPS: usize = 32;

/// Dot products of 4-bit codes that stay in registers with activations in the first cache; one addition for 32 columns.
struct Dots<'a> {
    x: &'a [[[i8; 32]; TOKENS]; GROUPS],
}

impl Dots<'_> {
    /// Operations on the rows of one vector.
    const OPS_PER_LANE: usize = 2 * 32 * TOKENS * GROUPS;
}

impl Kernel for Dots<'_> {
    type Output = (usize, f32);
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (usize, f32) {
        let codes = [isa.and(isa.load_u8(&[0x35; 64], 0), 15); 8];
        let mut sums = [isa.splat(0.0); TOKENS];
        for group in self.x {
            // The register tile of the instruction set: wider ones spill.
            for first in (0..TOKENS).step_by(if I::TOKENS == TOKENS { TOKENS } else { 4 }) {
                if I::TOKENS == TOKENS {
                    let mut q: [&[i8]; TOKENS] = [&[]; TOKENS];
                    for t in 0..TOKENS {
                        q[t] = &group[t];
                    }
                    let dot = isa.dot(&codes, &q, &[0; TOKENS], Range { max: 15, zero: 0 });
                    for t in 0..TOKENS {
                        sums[t] = isa.add(sums[t], isa.to_f32(dot[t]));
                    }
                } else {
                    let mut q: [&[i8]; 4] = [&[]; 4];
                    for t in 0..4 {
                        q[t] = &group[first + t];
                    }
                    let dot = isa.dot(&codes, &q, &[0; 4], Range { max: 15, zero: 0 });
                    for t in 0..4 {
                        sums[t] = isa.add(sums[t], isa.to_f32(dot[t]));
                    }
                }
            }
        }
        let mut total = sums[0];
        for t in 1..TOKENS {
            total = isa.add(total, sums[t]);
        }
        (I::LANES * Self::OPS_PER_LANE, isa.reduce_max(total))
    }
}

/// Products of 16 tokens, 16 rows and 32 columns in matrix tiles, four at a time.
struct TileDots<'a> {
    x: &'a [i8; 32 * TILE],
    ops: &'a mut usize,
}

impl TileKernel for TileDots<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, _: I, tiles: Tiles) {
        const ROUNDS: usize = 256;
        let (weights, mut out) = ([[1u8; 64]; 8], [[[0i32; TILE]; TILE]; 4]);
        let configured = tiles.configure(32);
        for _ in 0..ROUNDS {
            configured.dot::<0>(&weights, self.x, 32, &mut out[0]);
            configured.dot::<1>(&weights, self.x, 32, &mut out[1]);
            configured.dot::<2>(&weights, self.x, 32, &mut out[2]);
            configured.dot::<3>(&weights, self.x, 32, &mut out[3]);
        }
        black_box(&out);
        *self.ops = 2 * 32 * TILE * TILE * 4 * ROUNDS;
    }
}

/// Fused multiply-adds in eight chains.
struct MultiplyAdds {
    x: f32,
}

impl Kernel for MultiplyAdds {
    type Output = (usize, f32);
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (usize, f32) {
        let (x, y) = (isa.splat(self.x), isa.splat(0.5));
        let mut sums = [x; TOKENS];
        for _ in 0..256 {
            for t in 0..TOKENS {
                sums[t] = isa.fma(sums[t], y, x);
            }
        }
        let mut total = sums[0];
        for t in 1..TOKENS {
            total = isa.add(total, sums[t]);
        }
        (I::LANES * 2 * 256 * TOKENS, isa.reduce_max(total))
    }
}

/// All lines, or-ed together: needs every bit, and costs the same whatever they hold. Four chains, so that none waits for another.
struct Union<'a> {
    lines: &'a [Line],
}

impl Kernel for Union<'_> {
    type Output = [u8; 64];
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 64] {
        const CHAINS: usize = 4;
        // A line is up to four vectors.
        let mut unions = [[isa.load_u8(&[0; 64], 0); 4]; CHAINS];
        let whole = self.lines.len() / CHAINS;
        for at in 0..whole {
            let group = &self.lines[at * CHAINS..][..CHAINS];
            for line in 0..CHAINS {
                for part in 0..ROWS / I::LANES {
                    unions[line][part] = isa.or(unions[line][part], isa.load_u8(&group[line].0, part * I::LANES));
                }
            }
        }
        for line in whole * CHAINS..self.lines.len() {
            for part in 0..ROWS / I::LANES {
                unions[0][part] = isa.or(unions[0][part], isa.load_u8(&self.lines[line].0, part * I::LANES));
            }
        }
        let mut out = [0; 64];
        for part in 0..ROWS / I::LANES {
            for line in 1..CHAINS {
                unions[0][part] = isa.or(unions[0][part], unions[line][part]);
            }
            isa.store_u8(unions[0][part], &mut out, part * I::LANES);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(1);

    #[test]
    fn every_instruction_set_has_roofs() {
        let go = AtomicBool::new(false);
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            for cpu in Cpu::available() {
                for rate in [integer(cpu, &pool, TIME, &go), float(cpu, &pool, TIME, &go)] {
                    assert!(rate.median > 1e6 && rate.best >= rate.median && rate.best < 1e15, "{} {rate:?}", cpu.name());
                }
            }
        }
    }

    #[test]
    fn memory_is_read_whole() {
        let (pool, go) = (Pool::new(2), AtomicBool::new(false));
        for bytes in [0, 1 << 20, (3 << 20) + 640] {
            let memory = Memory::new(bytes, &pool, &go).unwrap();
            assert_eq!(memory.bytes(), bytes.max(1 << 20));
            for cpu in Cpu::available() {
                let rate = memory.read(cpu, &pool, TIME, &go);
                assert!(rate.median > 1e6 && rate.best >= rate.median && rate.best < 1e14, "{} {rate:?}", cpu.name());
            }
        }
    }

    #[test]
    fn a_read_needs_every_byte() {
        for cpu in Cpu::available() {
            for byte in (0..64 * 13).step_by(7) {
                let mut lines = [Line([0x40; 64]); 13];
                lines[byte / 64].0[byte % 64] = 0x03;
                let union = cpu.run(Union { lines: &lines });
                assert!((0..64).all(|i| union[i] == if i == byte % 64 { 0x43 } else { 0x40 }), "{} {byte}", cpu.name());
            }
        }
    }

    #[test]
    fn too_much_memory_is_an_error() {
        let error = Memory::new(usize::MAX, &Pool::new(1), &AtomicBool::new(false)).unwrap_err();
        assert!(error.bytes > usize::MAX / 2);
    }

    #[test]
    fn a_cancelled_measurement_ends_at_once() {
        let (pool, long) = (Pool::new(2), Duration::from_secs(1000));
        let memory = Memory::new(4 << 20, &pool, &AtomicBool::new(false)).unwrap();
        let measure: [&dyn Fn(&AtomicBool) -> Rate; 3] =
            [&|cancel| integer(Cpu::best(), &pool, long, cancel), &|cancel| float(Cpu::best(), &pool, long, cancel), &|cancel| {
                memory.read(Cpu::best(), &pool, long, cancel)
            }];
        for measure in measure {
            assert_eq!(measure(&AtomicBool::new(true)), Rate::default());
            let cancel = AtomicBool::new(false);
            let rate = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(50));
                    cancel.store(true, Ordering::Relaxed);
                });
                measure(&cancel)
            });
            assert!(rate.best > 0.0, "the windows until there count");
        }
    }
}
