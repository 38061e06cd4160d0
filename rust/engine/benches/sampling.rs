//! Microseconds to choose one token, by vocabulary and options: median of 200. `cargo bench -p fastllm-engine`

use std::hint::black_box;
use std::time::Instant;

use fastllm_engine::sampling::{Sampler, SamplingParams, Scratch, uniform};

fn main() {
    let base = || SamplingParams { seed: Some(1), ..SamplingParams::default() };
    let cases: [(&str, SamplingParams); 10] = [
        ("greedy", SamplingParams::greedy()),
        ("temperature only", base()),
        ("top_k=40", SamplingParams { top_k: 40, ..base() }),
        ("top_k=40 top_p=0.95", SamplingParams { top_k: 40, top_p: 0.95, ..base() }),
        ("top_p=0.95", SamplingParams { top_p: 0.95, ..base() }),
        ("min_p=0.05", SamplingParams { min_p: 0.05, ..base() }),
        ("typical_p=0.95", SamplingParams { typical_p: 0.95, ..base() }),
        ("mirostat=2", SamplingParams { mirostat: 2, ..base() }),
        ("top_k=10000", SamplingParams { top_k: 10_000, ..base() }),
        ("top_k=40 top_p=0.95 logprobs=5", SamplingParams { top_k: 40, top_p: 0.95, logprobs: Some(5), ..base() }),
    ];
    for vocab in [32_000, 131_072, 262_144] {
        // Sums of uniform numbers: nearly normal with standard deviation 2, and a few likely tokens.
        let normal = |id: u64| (0..12).map(|n| uniform(n, id)[0]).sum::<f64>() as f32 * 2.0 - 12.0;
        let logits: Vec<f32> = (0..vocab).map(|id| if id % 4001 == 7 { 14.0 } else { 0.0 } + normal(id)).collect();
        for (name, params) in &cases {
            let (mut sampler, mut scratch) = (Sampler::new(params.clone(), &[1, 2, 3]).expect("valid options"), Scratch::default());
            let mut times: Vec<f64> = (0..200)
                .map(|_| {
                    let started = Instant::now();
                    black_box(sampler.sample(black_box(&logits), &mut scratch)).expect("finite logits");
                    started.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!("vocabulary {vocab:6}  {name:32} {:8.1} us", times[100]);
        }
    }
}
