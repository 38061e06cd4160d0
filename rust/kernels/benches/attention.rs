//! Attention over a cold cache: nanoseconds for a query row and key, GFLOP/s beside the roof of fused multiply-adds, and GB/s of keys and
//! values beside a plain read, for every cache type, instruction set, head, depth, number of query tokens, with one and two threads.
//!
//! `cargo bench -p fastllm-kernels --bench attention -- f16 avx512 64x4 d4096 q1 q16 t2` keeps what its words name: cache types,
//! instruction sets (by a part of the name), `head x group`, depths, query tokens and threads; a kind without a word is not filtered.
//! The reference (`scalar`) runs only where it is named.
use fastllm_kernels::attention::{Attend, Attention, CHUNK, CacheType, PAGE, PageLayout, Queries, State, Strided, Workspace, attend};
use fastllm_kernels::buffer::{AlignedVec, Line};
use fastllm_kernels::pool::Pool;
use fastllm_kernels::roofline;
use fastllm_simd::Cpu;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Channels of a head, query heads for each KV head, KV heads.
const HEADS: [(usize, usize, usize); 3] = [(64, 4, 8), (128, 8, 4), (128, 4, 8)];
const DEPTHS: [usize; 3] = [1024, 4096, 16384];
const TOKENS: [usize; 7] = [1, 2, 4, 8, 16, 64, 128];
const THREADS: [usize; 2] = [1, 2];
/// Query tokens of a task, as in a model.
const TASK: usize = 16;
/// Bytes of the cache at least: more than the last cache of a CPU holds for one of its users.
const COLD: usize = 192 << 20;
const TIME: Duration = Duration::from_millis(400);

/// Seconds of the fastest window of `f`, and of the median one.
fn windows(time: Duration, mut f: impl FnMut()) -> (f64, f64) {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time || times.len() < 8 {
        let window = Instant::now();
        f();
        times.push(window.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// A cache as a model has it: blocks of 64 positions with a page for every layer and KV head.
struct Cache {
    attention: Attention,
    data: AlignedVec<Line>,
    depth: usize,
    kv_heads: usize,
    layers: usize,
}

impl Cache {
    fn new(cpu: Cpu, cache_type: CacheType, (head, _, kv_heads): (usize, usize, usize), depth: usize) -> Cache {
        let layout = PageLayout::new(cache_type, head, head).expect("a head that fits");
        let attention = Attention { layout, scale: 1.0 / (head as f32).sqrt(), softcap: None, window: None };
        let layers = COLD.div_ceil(layout.bytes() * kv_heads * depth / PAGE);
        let pages = layers * kv_heads * depth / PAGE;
        let mut data = AlignedVec::try_zeroed(pages * layout.bytes() / 64).expect("memory for a cache");
        let mut state = 1u32;
        let noise: Vec<f32> = (0..PAGE * head + 4096)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        for (i, page) in bytemuck::cast_slice_mut::<Line, u8>(&mut data).chunks_exact_mut(layout.bytes()).enumerate() {
            layout.clear(page);
            let (k, v) = (Strided { data: &noise[i % 2048..], stride: head }, Strided { data: &noise[i * 7 % 4096..], stride: head });
            layout.write(cpu, page, 0, PAGE, k, v);
        }
        Cache { attention, data, depth, kv_heads, layers }
    }

    fn pages(&self, layer: usize, head: usize) -> Vec<&[u8]> {
        let (size, bytes) = (self.attention.layout.bytes(), bytemuck::cast_slice::<Line, u8>(&self.data));
        let page = |block| (block * self.layers + layer) * self.kv_heads + head;
        (0..self.depth / PAGE).map(|block| &bytes[page(block) * size..][..size]).collect()
    }
}

/// Scratch of a thread.
#[derive(Default)]
struct Worker {
    state: State,
    work: Workspace,
}

/// Nanoseconds for a row and key (best, median) and keys read in a second by the best.
fn measure(cpu: Cpu, pool: &Pool, cache: &Cache, group: usize, tokens: usize) -> (f64, f64, f64) {
    let attention = &cache.attention;
    let dim = attention.layout.dim_k();
    // A window is a layer where few rows share the keys, else a task for every thread.
    let tasks = if tokens < TASK { cache.kv_heads } else { pool.threads() };
    let tables: Vec<Vec<&[u8]>> = (0..cache.layers * cache.kv_heads).map(|i| cache.pages(i / cache.kv_heads, i % cache.kv_heads)).collect();
    let rows = tokens.min(TASK) * group;
    let first = cache.depth - tokens.min(TASK);
    let mut queries = Queries::default();
    for row in 0..rows {
        let q: Vec<f32> = (0..dim).map(|i| ((row * dim + i) as f32 * 0.7).sin()).collect();
        queries.push(cpu, attention, &q, first + row / group);
    }
    let workers: Vec<std::sync::Mutex<Worker>> = (0..pool.threads()).map(|_| std::sync::Mutex::default()).collect();
    let mut at = 0;
    let (best, median) = windows(TIME, || {
        let mut done = vec![(); tasks];
        pool.for_each_worker(&mut done, |i, thread, ()| {
            let pages = &tables[(at + i) % tables.len()];
            let next = &tables[(at + i + pool.threads()) % tables.len()];
            let Worker { state, work } = &mut *workers[thread].lock().expect("no panic");
            // More tokens are further tasks over the same pages.
            for _ in 0..tokens.div_ceil(TASK) {
                state.reset(attention, rows);
                let (after, chunks) = (&next[..CHUNK / PAGE], attention.chunks(first, cache.depth - 1));
                attend(cpu, Attend { attention, pages, first_page: 0, after, queries: &queries, rows: 0..rows, chunks, state, work });
            }
            black_box(&*state);
        });
        at += tasks;
    });
    let products = (tasks * cache.depth * group * tokens) as f64;
    (best * 1e9 / products, median * 1e9 / products, (tasks * cache.depth) as f64 / best)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let named = |names: &[String]| words.iter().any(|w| names.contains(w));
    let wanted = |names: Vec<String>, name: &str| !named(&names) || words.iter().any(|w| w == name);
    let all_of = |list: &[usize], letter: char| list.iter().map(|n| format!("{letter}{n}")).collect::<Vec<_>>();
    let isas: Vec<Cpu> = Cpu::available();
    let by_isa: Vec<&String> = words.iter().filter(|w| isas.iter().any(|cpu| cpu.name().contains(w.as_str()))).collect();
    let chosen =
        |cpu: &Cpu| if by_isa.is_empty() { cpu.name() != "scalar" } else { by_isa.iter().any(|w| cpu.name().contains(w.as_str())) };
    let cpus: Vec<Cpu> = isas.iter().copied().filter(chosen).collect();
    let heads = HEADS.map(|(head, group, _)| format!("{head}x{group}")).to_vec();
    for (shape, name) in HEADS.iter().zip(&heads).filter(|(_, name)| wanted(heads.clone(), name)) {
        for cache_type in CacheType::ALL.into_iter().filter(|t| wanted(CacheType::ALL.map(|t| t.name().into()).to_vec(), t.name())) {
            for depth in DEPTHS.into_iter().filter(|d| wanted(all_of(&DEPTHS, 'd'), &format!("d{d}"))) {
                let cache = Cache::new(Cpu::best(), cache_type, *shape, depth);
                for threads in THREADS.into_iter().filter(|t| wanted(all_of(&THREADS, 't'), &format!("t{t}"))) {
                    let pool = Pool::new(threads);
                    let tokens: Vec<usize> = TOKENS.into_iter().filter(|q| wanted(all_of(&TOKENS, 'q'), &format!("q{q}"))).collect();
                    for &cpu in &cpus {
                        report(cpu, &pool, &cache, (name, shape.1), &tokens);
                    }
                }
            }
        }
    }
}

/// One table: a head, cache type, depth, number of threads and instruction set.
fn report(cpu: Cpu, pool: &Pool, cache: &Cache, (name, group): (&str, usize), tokens: &[usize]) {
    let (layout, threads) = (cache.attention.layout, pool.threads());
    let go = AtomicBool::new(false);
    let flops = roofline::float(cpu, pool, TIME / 4, &go).best / 1e9;
    let plain = roofline::read(&cache.data, cpu, pool, TIME, &go);
    let (read, read_median) = (plain.best / 1e9, plain.median / 1e9);
    println!(
        "\n{name} {} d{} t{threads} {}: multiply-adds {flops:.0} GFLOP/s, plain read {read:.1} GB/s (median {read_median:.1})",
        layout.cache_type().name(),
        cache.depth,
        cpu.name()
    );
    for &tokens in tokens {
        let (best, median, keys) = measure(cpu, pool, cache, group, tokens);
        let rate = 2.0 * (layout.dim_k() + layout.dim_v()) as f64 / best;
        let bytes = keys * layout.bytes_per_position() as f64 / 1e9;
        println!(
            "  {tokens:3} tokens: {best:6.3} ns (median {median:6.3}), {rate:6.1} GFLOP/s {:4.0}%, {bytes:5.1} GB/s {:4.0}%",
            100.0 * rate / flops,
            100.0 * bytes / read
        );
    }
}
