//! One thread, head 64, group 4, 8 KV heads at depth 4096, cold: `cargo test --release -p fastllm-kernels speed -- --ignored --nocapture`.
//!
//! `FASTLLM_ISA` chooses the instruction set.
use super::*;
use std::time::{Duration, Instant};

const HEADS: usize = 8;
const LAYERS: usize = 16;
const DEPTH: usize = 4096;
const GROUP: usize = 4;
const DIM: usize = 64;

#[test]
#[ignore = "a measurement"]
fn speed() {
    let cpu = Cpu::by_name("auto").unwrap();
    for cache_type in CacheType::ALL {
        let case = Case::new((DIM, DIM), GROUP, DEPTH, 1);
        let attention = case.attention(cache_type);
        let per_head = DEPTH / PAGE;
        let mut pages = Pages::new(attention.layout, per_head * HEADS * LAYERS, false);
        let data = Data::new(&case);
        let start = Instant::now();
        for head in 0..HEADS * LAYERS {
            for page in 0..per_head {
                let (k, v) = (
                    Strided { data: &data.keys[page * PAGE * DIM..], stride: DIM },
                    Strided { data: &data.values[page * PAGE * DIM..], stride: DIM },
                );
                attention.layout.write(cpu, pages.page_mut(head * per_head + page), 0, PAGE, k, v);
            }
        }
        let writing = start.elapsed().as_secs_f64() * 1e9 / (HEADS * LAYERS * DEPTH) as f64;
        println!("{} {}: writing {writing:.1} ns a position and head", cpu.name(), cache_type.name());
        for tokens in [1, 4, 16] {
            measure(cpu, &attention, &pages, tokens);
        }
    }
}

fn measure(cpu: Cpu, attention: &Attention, pages: &Pages, tokens: usize) {
    let case = Case::new((DIM, DIM), GROUP, DEPTH, tokens);
    let (data, all, rows, per_head) = (Data::new(&case), pages.all(), tokens * GROUP, DEPTH / PAGE);
    let mut queries = Queries::default();
    for (row, q) in data.q.chunks_exact(DIM).enumerate() {
        queries.push(cpu, attention, q, case.position(row));
    }
    let (mut state, mut work, mut times, start) = (State::default(), Workspace::default(), Vec::new(), Instant::now());
    while start.elapsed() < Duration::from_millis(1500) {
        for layer in 0..LAYERS {
            let start = Instant::now();
            for head in layer * HEADS..(layer + 1) * HEADS {
                let after = (head + 1) % (LAYERS * HEADS) * per_head;
                let (after, own) = (&all[after..after + CHUNK / PAGE], &all[head * per_head..(head + 1) * per_head]);
                state.reset(attention, rows);
                attend(
                    cpu,
                    Attend {
                        attention,
                        pages: own,
                        first_page: 0,
                        after,
                        queries: &queries,
                        rows: 0..rows,
                        chunks: 0..DEPTH / CHUNK,
                        state: &mut state,
                        work: &mut work,
                    },
                );
            }
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let keys = (HEADS * DEPTH) as f64;
    let ns = |t: f64| t * 1e9 / (keys * rows as f64);
    let (best, median) = (times[0], times[times.len() / 2]);
    let bandwidth = keys * attention.layout.bytes_per_position() as f64 / best / 1e9;
    println!("  {tokens:2} tokens: best {:.2}, median {:.2} ns/(row x key); best {bandwidth:.1} GB/s", ns(best), ns(median));
}
