//! Prompt and generation throughput of a file: `throughput FILE [isa] [threads] [prompt] [generated] [depth]`.
use fastllm_gguf::GgufFile;
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, MAX_ROWS, Model};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: usize| args.get(i).map_or(default, |a| a.parse().expect("a number"));
    let isa = args.get(2).cloned().unwrap_or("auto".into());
    let (threads, prompt, generated, depth) = (number(3, 2), number(4, 512), number(5, 32), number(6, 0));
    let start = Instant::now();
    let file = GgufFile::open(&args[1]).unwrap();
    let options = LoadOptions { isa, threads: Some(threads), ..LoadOptions::default() };
    let model = Arc::new(Model::load(&file, &options, &mut |_, _| true).unwrap());
    println!("{} loaded in {:.2} s, {:.0} MB", model.cpu().name(), start.elapsed().as_secs_f64(), model.weight_bytes() as f64 / 1e6);
    let mut context = Context::new(model).unwrap();
    let cancel = AtomicBool::new(false);
    for _ in 0..3 {
        let sequence = context.open();
        let mut position = 0;
        let mut run = |context: &mut Context, count: usize| {
            let rows: Vec<Row> = (0..count)
                .map(|i| Row { sequence, position: (position + i) as u32, token: 100 + i as u32, logits: i + 1 == count })
                .collect();
            for rows in rows.chunks(MAX_ROWS) {
                context.forward(rows, &cancel).unwrap();
            }
            position += count;
        };
        if depth > 0 {
            run(&mut context, depth);
        }
        let start = Instant::now();
        run(&mut context, prompt);
        let pp = prompt as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..generated {
            run(&mut context, 1);
        }
        let seconds = start.elapsed().as_secs_f64() / generated as f64;
        let read = context.model().bytes_read(1) as f64;
        println!("pp{prompt} {pp:.1} t/s   tg{generated} {:.2} t/s ({:.1} GB/s)", 1.0 / seconds, read / seconds / 1e9);
        context.close(sequence);
    }
}
