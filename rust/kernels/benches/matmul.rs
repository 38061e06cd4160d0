//! Matrix products on one thread, in GOP/s (a multiply-add counts two), for every weight type, instruction set and number of tokens,
//! beside the roof of the instruction set: its dot products, or fused multiply-adds, with everything in registers and the first cache.
//!
//! `cargo bench -p fastllm-kernels --bench matmul -- q4 avx512` keeps the rows whose `type/isa` contains one of the words of each kind:
//! words that name a type select types, the others instruction sets.
use fastllm_kernels::activation::Activations;
use fastllm_kernels::buffer::Columns;
use fastllm_kernels::linear::{Linear, Product, Scratch, WeightType, multiply};
use fastllm_kernels::pool::Pool;
use fastllm_kernels::roofline;
use fastllm_simd::{Cpu, ROWS};
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// 256 rows of 1024 columns: weights and activations stay in the second cache, and a call lasts microseconds.
const SHAPE: (usize, usize) = (256, 1024);
const TOKENS: [usize; 7] = [1, 2, 4, 8, 16, 32, 512];
/// Least time of a measurement, and of the windows that it is made of.
const TIME: Duration = Duration::from_millis(60);
const WINDOW: Duration = Duration::from_micros(200);

/// The greatest rate of windows of some calls of `f`, each of `ops` operations, in GOP/s. Other work can only make a window slower.
fn best_rate(ops: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    let calls = (WINDOW.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9)).ceil().clamp(1.0, 1e6) as usize;
    let mut best = 0f64;
    loop {
        let window = Instant::now();
        for _ in 0..calls {
            f();
        }
        best = best.max((calls * ops) as f64 / window.elapsed().as_secs_f64() / 1e9);
        if start.elapsed() >= TIME {
            return best;
        }
    }
}

/// The roofs of one thread, in GOP/s.
fn integer_roof(cpu: Cpu, pool: &Pool) -> f64 {
    roofline::integer(cpu, pool, TIME, &AtomicBool::new(false)).best / 1e9
}

fn float_roof(cpu: Cpu, pool: &Pool) -> f64 {
    roofline::float(cpu, pool, TIME, &AtomicBool::new(false)).best / 1e9
}

/// Weights whose bytes lie in 0x40..0x60: as scales of any type that is neither tiny nor infinite.
fn weights(kind: WeightType, pool: &Pool) -> Linear {
    let mut state = 42u32;
    let mut file = vec![0; SHAPE.0 * kind.file_row_bytes(SHAPE.1).expect("1024 columns are whole blocks of every type")];
    for byte in &mut file {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = 0x40 | (state >> 27) as u8;
    }
    let row_bytes = file.len() / SHAPE.0;
    let read = |row: usize, out: &mut [u8]| {
        out.copy_from_slice(&file[row * row_bytes..][..out.len()]);
        Ok::<(), Infallible>(())
    };
    Linear::pack(kind, SHAPE, 1, pool, read).expect("memory for a small matrix")
}

fn product_rate(cpu: Cpu, pool: &Pool, weights: &Linear, tokens: usize) -> f64 {
    let x: Vec<f32> = (0..weights.cols()).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut activations = Activations::default();
    activations.fill(cpu, pool, &[tokens], weights.cols(), weights.kind().form(), |_| &x).expect("memory for the activations");
    let stride = weights.padded_rows();
    let mut y = vec![0.0; tokens * stride];
    let (scratch, cancel) = (Scratch::new(pool), AtomicBool::new(false));
    best_rate(2 * weights.rows() * weights.cols() * tokens, || {
        let products = [Product { weights, matrix: 0, x: activations.all(), y: Columns::new(&mut y, stride) }];
        multiply(cpu, pool, &scratch, black_box(&products), &cancel);
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let (types, isas): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| WeightType::all().any(|t| t.name().contains(*word)));
    let wanted = |words: &[&String], name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    let pool = Pool::new(1);
    println!("one thread, {} rows x {} columns, GOP/s by number of tokens (share of the roof for the best)", SHAPE.0, SHAPE.1);
    assert!(SHAPE.0.is_multiple_of(ROWS));
    for cpu in Cpu::available().into_iter().filter(|cpu| wanted(&isas, cpu.name())) {
        let roofs = [integer_roof(cpu, &pool), float_roof(cpu, &pool)];
        println!("\n{}: roof {:.0} for integers, {:.0} for floats", cpu.name(), roofs[0], roofs[1]);
        print!("{:8}", "");
        for tokens in TOKENS {
            print!("{tokens:>8}");
        }
        println!("{:>10}", "best");
        for kind in WeightType::all().filter(|kind| wanted(&types, kind.name())) {
            let weights = weights(kind, &pool);
            print!("{:8}", kind.name());
            let mut best = 0f64;
            for tokens in TOKENS {
                let rate = product_rate(cpu, &pool, &weights, tokens);
                best = best.max(rate);
                print!("{rate:8.1}");
            }
            // The neighbours' load changes within minutes: the roof of the same moment counts.
            let roof = if kind.form().dense { float_roof(cpu, &pool) } else { integer_roof(cpu, &pool) };
            println!("{:9.0}%", 100.0 * best / roof);
        }
    }
}
