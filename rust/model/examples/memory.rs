//! Peak memory of a process that loads a file and fills a context, against the plan:
//! `memory FILE [positions] [f32|f16|q8_0] [generated] [threads]`.
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, MAX_ROWS, MemoryPlan, Model};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).expect("the field");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: usize| args.get(i).map_or(default, |a| a.parse().expect("a number"));
    let (positions, generated, threads) = (number(2, 4096), number(4, 4), number(5, 2));
    let cache_type = args.get(3).map_or(CacheType::F16, |name| CacheType::from_name(name).expect("a cache type"));
    let mb = |bytes: usize| bytes as f64 / 1e6;
    let before = status("VmHWM");
    let file = GgufFile::open(&args[1]).unwrap();
    let plan = MemoryPlan::new(&file, Some(positions), cache_type, 1).unwrap();
    println!("start {:.1} MB, file open {:.1} MB", mb(before), mb(status("VmHWM")));
    let options = LoadOptions { threads: Some(threads), cache_type, context_length: Some(positions), ..LoadOptions::default() };
    let model = Arc::new(Model::load(&file, &options, &mut |_, _| true).unwrap());
    println!("loaded {:.1} MB, now {:.1} MB", mb(status("VmHWM")), mb(status("VmRSS")));
    drop(file);
    let mut context = Context::new(model).unwrap();
    let sequence = context.open();
    let cancel = AtomicBool::new(false);
    let rows: Vec<Row> =
        (0..positions).map(|i| Row { sequence, position: i as u32, token: (i % 97) as u32, logits: i + generated >= positions }).collect();
    let (prompt, rest) = rows.split_at(positions.saturating_sub(generated));
    for rows in prompt.chunks(MAX_ROWS).chain(rest.chunks(1)) {
        context.forward(rows, &cancel).unwrap();
    }
    let peak = status("VmHWM");
    let MemoryPlan { weights, kv_cache, scratch, other, .. } = plan;
    println!("plan: weights {:.1} MB, KV {:.1} MB, scratch {:.1} MB, other {:.1} MB", mb(weights), mb(kv_cache), mb(scratch), mb(other));
    let bound = (weights + kv_cache) as f64 * 1.05 + 64e6;
    println!(
        "{} positions, {}: peak {:.1} MB, plan {:.1} MB ({:+.1} %), bound {:.1} MB",
        positions,
        cache_type.name(),
        mb(peak),
        mb(plan.total()),
        100.0 * (plan.total() as f64 / peak as f64 - 1.0),
        bound / 1e6
    );
    assert!((peak as f64) <= bound, "the peak is above the bound");
}
