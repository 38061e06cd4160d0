//! Laws of the matrix kernels, for every weight type and every instruction set of this CPU.
use fastllm_kernels::activation::Activations;
use fastllm_kernels::buffer::Columns;
use fastllm_kernels::linear::{Linear, Product, Scratch, WeightType, multiply};
use fastllm_kernels::pool::Pool;
use fastllm_simd::Cpu;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A small positive half-precision number.
fn half(r: &mut Random) -> [u8; 2] {
    (0x2000 | (r.bits() as u16 & 0x3ff)).to_le_bytes()
}

/// A row of a file: bytes from `fill`, with sane float scales at the places where the specification has them.
fn row(kind: WeightType, cols: usize, r: &mut Random, fill: fn(&mut Random) -> u8) -> Vec<u8> {
    let bytes = kind.file_row_bytes(cols).unwrap();
    let mut row: Vec<u8> = (0..bytes).map(|_| fill(r)).collect();
    let halves: &[usize] = match kind.name() {
        "q2_k" => &[80, 82],
        "q3_k" => &[108],
        "tq1_0" => &[52],
        "tq2_0" => &[64],
        "q6_k" => &[208],
        "q4_1" | "q5_1" | "q4_k" | "q5_k" => &[0, 2],
        _ => &[0],
    };
    for block in row.chunks_mut(bytes / (cols / kind.block_cols())) {
        match kind.name() {
            "f32" => block.copy_from_slice(&r.uniform().to_le_bytes()),
            "f16" => block.copy_from_slice(&half(r)),
            "bf16" => block.copy_from_slice(&r.uniform().to_le_bytes()[2..]),
            // A half in the high four bits of four words.
            "iq1_m" => half(r).iter().enumerate().for_each(|(i, byte)| {
                block[49 + 4 * i] = block[49 + 4 * i] & 15 | byte << 4;
                block[51 + 4 * i] = block[51 + 4 * i] & 15 | byte & 0xf0;
            }),
            "nvfp4" => {}
            "mxfp4" => block[0] = 118 + (r.bits() % 4) as u8,
            _ => halves.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&half(r))),
        }
    }
    row
}

fn pack(kind: WeightType, rows: usize, cols: usize, pool: &Pool) -> Linear {
    pack_of(kind, (rows, cols), pool, |r| r.bits() as u8)
}

fn pack_of(kind: WeightType, (rows, cols): (usize, usize), pool: &Pool, fill: fn(&mut Random) -> u8) -> Linear {
    let r = &mut Random(42);
    let file: Vec<Vec<u8>> = (0..rows).map(|_| row(kind, cols, r, fill)).collect();
    let read = |row: usize, out: &mut [u8]| {
        for (i, out) in out.chunks_mut(file[0].len()).enumerate() {
            out.copy_from_slice(&file[row + i]);
        }
        Ok::<(), Infallible>(())
    };
    Linear::pack(kind, (rows, cols), 1, pool, read).unwrap_or_else(|_| panic!("packing cannot fail"))
}

fn product(cpu: Cpu, pool: &Pool, weights: &Linear, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut a = Activations::default();
    a.fill(cpu, pool, &[x.len()], weights.cols(), weights.kind().form(), |t| &x[t]).unwrap();
    let stride = weights.padded_rows();
    let mut y = vec![0.0; x.len() * stride];
    let products = [Product { weights, matrix: 0, x: a.all(), y: Columns::new(&mut y, stride) }];
    multiply(cpu, pool, &Scratch::new(pool), &products, &AtomicBool::new(false));
    y.chunks(stride).map(|y| y[..weights.rows()].to_vec()).collect()
}

fn tokens(n: usize, cols: usize) -> Vec<Vec<f32>> {
    let r = &mut Random(7);
    (0..n).map(|_| (0..cols).map(|i| r.uniform() * if i % 97 == 0 { 20.0 } else { 1.0 }).collect()).collect()
}

/// 512 columns; 288 or 320 where blocks of 32 or 64 allow a last block of 256 that is not full.
fn shapes(kind: WeightType) -> Vec<(usize, usize)> {
    match kind.block_cols() {
        1 => vec![(40, 172), (7, 31)],
        32 => vec![(40, 288), (16, 512)],
        64 => vec![(40, 320), (16, 512)],
        _ => vec![(40, 512)],
    }
}

#[test]
fn products_are_those_of_the_decoded_weights() {
    let pool = Pool::new(1);
    for kind in WeightType::all() {
        for (rows, cols) in shapes(kind) {
            let (w, x) = (pack(kind, rows, cols, &pool), tokens(3, cols));
            let y = product(Cpu::best(), &pool, &w, &x);
            let (mut noise, mut power) = (0.0, 0.0);
            let mut row = vec![0.0; cols];
            for i in 0..rows {
                w.row(i, &mut row);
                for t in 0..x.len() {
                    let exact: f64 = row.iter().zip(&x[t]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    noise += (f64::from(y[t][i]) - exact).powi(2);
                    power += exact.powi(2);
                }
            }
            // 8-bit activations have an error of about 1 %; floats only that of the summation.
            let bound = if kind.form().dense { 1e-6 } else { 0.02 };
            let error = (noise / power).sqrt();
            assert!(error < bound, "{} {rows}x{cols}: relative error {error}", kind.name());
        }
    }
}

#[test]
fn results_do_not_depend_on_isa_batch_or_threads() {
    let (one, two) = (Pool::new(1), Pool::new(2));
    for kind in WeightType::all() {
        for (rows, cols) in shapes(kind) {
            let (w, x) = (pack(kind, rows, cols, &two), tokens(37, cols));
            let reference = product(Cpu::scalar(), &one, &w, &x);
            for cpu in Cpu::available() {
                for (pool, batch) in [(&one, 37), (&two, 37), (&two, 16), (&one, 5), (&two, 2), (&one, 1)] {
                    let y: Vec<_> = x.chunks(batch).flat_map(|x| product(cpu, pool, &w, x)).collect();
                    let same = y.iter().flatten().zip(reference.iter().flatten()).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{} {rows}x{cols} on {} in batches of {batch}", kind.name(), cpu.name());
                }
            }
        }
    }
}

/// All activations at an end of their range, all weights of one kind of bits: sums of 16 and 24 bits are as large as they get.
#[test]
fn the_largest_sums_do_not_depend_on_isa() {
    let pool = Pool::new(1);
    let fills: [fn(&mut Random) -> u8; 4] = [|_| 0, |_| 0xff, |_| 0xf0, |r| if r.bits() & 1 == 0 { 0 } else { 0xff }];
    for kind in WeightType::all() {
        let (rows, cols) = shapes(kind)[0];
        for fill in fills {
            let w = pack_of(kind, (rows, cols), &pool, fill);
            for x in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]] {
                let x: Vec<Vec<f32>> = vec![(0..cols).map(|i| x[i % 2]).collect(); 17];
                let reference = product(Cpu::scalar(), &pool, &w, &x);
                for cpu in Cpu::available() {
                    let y = product(cpu, &pool, &w, &x);
                    let same = y.iter().flatten().zip(reference.iter().flatten()).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{} on {}", kind.name(), cpu.name());
                }
            }
        }
    }
}

#[test]
fn factors_multiply_rows_and_products() {
    let pool = Pool::new(1);
    for kind in WeightType::all() {
        let (rows, cols) = shapes(kind)[0];
        for n in [1, 5, 17] {
            let x = tokens(n, cols);
            let plain = pack(kind, rows, cols, &pool);
            let y = product(Cpu::best(), &pool, &plain, &x);
            let mut row = vec![0.0; cols];
            plain.row(3, &mut row);
            let scaled = plain.scaled(vec![-0.3]);
            let scaled_y = product(Cpu::best(), &pool, &scaled, &x);
            assert!(y.iter().flatten().zip(scaled_y.iter().flatten()).all(|(a, b)| a * -0.3 == *b), "{}", kind.name());
            let mut scaled_row = vec![0.0; cols];
            scaled.row(3, &mut scaled_row);
            assert!(row.iter().zip(&scaled_row).all(|(a, b)| a * -0.3 == *b), "{}", kind.name());
        }
    }
}

#[test]
fn an_input_that_is_not_finite_shows_in_the_output() {
    let pool = Pool::new(1);
    for kind in WeightType::all() {
        let (rows, cols) = shapes(kind)[0];
        let w = pack(kind, rows, cols, &pool);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = tokens(1, cols);
            x[0][5] = bad;
            for cpu in Cpu::available() {
                assert!(product(cpu, &pool, &w, &x)[0].iter().all(|y| !y.is_finite()), "{} on {}", kind.name(), cpu.name());
            }
        }
    }
}
