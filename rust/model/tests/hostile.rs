//! Hostile files: whatever the bytes are, a typed error or a model that runs, within bounds of memory and time.
mod common;

use common::small_models::{self, Random, Shape};
use common::{TempFile, context, forward, options, rows};
use fastllm_gguf::{DType, OwnedValue, ValueType, Writer};
use fastllm_model::{LoadOptions, ModelError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that are allocated, and the most that were since the last case began.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grew(bytes: usize) {
    let now = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Large buffers are mapped: this definition comes before that of the C library, and counts them.
///
/// # Safety
/// As that of the C library.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(at: *mut libc::c_void, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut libc::c_void {
    grew(len);
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_mmap, at, len, prot, flags, fd, offset) as *mut libc::c_void }
}

/// The standard library's name for it.
///
/// # Safety
/// As that of the C library.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(at: *mut libc::c_void, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut libc::c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap(at, len, prot, flags, fd, offset) }
}

/// # Safety
/// As that of the C library.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(at: *mut libc::c_void, len: usize) -> i32 {
    LIVE.fetch_sub(len, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_munmap, at, len) as i32 }
}

/// One case at a time: memory and time are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Memory beside three times the file: what a pass of 20 tokens works in, tables, a block of the KV cache.
const CONSTANT: usize = 1 << 20;
const LONGEST: Duration = Duration::from_secs(1);

/// Loads a file and runs a prompt and two tokens; `false` for an error. A panic fails the test.
fn run(path: &Path, options: &LoadOptions) -> Result<(), ModelError> {
    let mut context = context(path, options)?;
    let vocab = context.model().config().vocab_size;
    let sequence = context.open();
    let mut position = 0;
    for tokens in [&[0u32; 20][..], &[vocab as u32 / 2], &[vocab as u32 - 1]] {
        let logits = forward(&mut context, &rows(sequence, position, tokens))?;
        assert_eq!(logits.len(), vocab);
        position += tokens.len();
    }
    Ok(())
}

/// What came out of many cases.
#[derive(Debug, Default)]
struct Tally {
    ran: usize,
    refused: usize,
    longest: Duration,
    /// Most memory, in bytes.
    most: usize,
}

impl Tally {
    fn case(&mut self, path: &Path, len: usize, options: &LoadOptions, what: impl Fn() -> String) {
        let (start, before) = (Instant::now(), LIVE.load(Ordering::Relaxed));
        PEAK.store(before, Ordering::Relaxed);
        match run(path, options) {
            Ok(()) => self.ran += 1,
            Err(e) => {
                self.refused += 1;
                let text = e.to_string();
                assert!(!text.is_empty() && text.len() < 4096, "{}: {text}", what());
            }
        }
        let (time, memory) = (start.elapsed(), PEAK.load(Ordering::Relaxed).saturating_sub(before));
        assert!(time < LONGEST, "{}: {time:?}", what());
        assert!(memory <= 3 * len + CONSTANT, "{}: {memory} bytes for a file of {len}", what());
        self.longest = self.longest.max(time);
        self.most = self.most.max(memory);
    }
}

fn models() -> [(&'static str, Writer); 3] {
    [("dense", small_models::dense()), ("experts", small_models::experts()), ("k-quants", small_models::k_quants())]
}

#[test]
fn the_models_themselves_run() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, writer) in models() {
        let bytes = small_models::bytes(&writer);
        let file = TempFile::new(&format!("itself-{name}"), &bytes);
        for threads in [1, 3] {
            run(&file.0, &options(threads)).unwrap();
        }
        println!("{name}: {} bytes", bytes.len());
    }
}

#[test]
fn truncations() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, writer) in models() {
        let bytes = small_models::bytes(&writer);
        let file = TempFile::new(&format!("truncated-{name}"), &bytes);
        let handle = OpenOptions::new().write(true).open(&file.0).unwrap();
        let mut tally = Tally::default();
        // Every length of the small files; of the larger one every length of the header and some beyond.
        let step = |len: usize| if bytes.len() < 64 << 10 || len <= 4096 { 1 } else { 97 };
        let mut len = bytes.len() - 1;
        loop {
            handle.set_len(len as u64).unwrap();
            tally.case(&file.0, len, &options(1), || format!("{name}, the first {len} bytes"));
            let Some(next) = len.checked_sub(step(len)) else { break };
            len = next;
        }
        println!("{name}: {tally:?}");
        // Nothing runs but a file that lacks its last padding.
        assert!(tally.ran < 32 && tally.refused > 1000);
    }
}

#[test]
fn ten_thousand_bit_flips() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random(20_240_607);
    for ((name, writer), cases) in models().into_iter().zip([4500, 4500, 1000]) {
        let bytes = small_models::bytes(&writer);
        let file = TempFile::new(&format!("flipped-{name}"), &bytes);
        let handle = OpenOptions::new().write(true).open(&file.0).unwrap();
        let header = fastllm_gguf::Header::parse(&bytes, bytes.len() as u64).unwrap().data_start as usize;
        let mut tally = Tally::default();
        for i in 0..cases {
            let flips: Vec<(usize, u8)> = (0..=random.below(3))
                .map(|_| (random.below(if i % 4 == 0 { bytes.len() } else { header }), 1 << random.below(8)))
                .collect();
            for &(at, bit) in &flips {
                handle.write_all_at(&[bytes[at] ^ bit], at as u64).unwrap();
            }
            tally.case(&file.0, bytes.len(), &options(1), || format!("{name}, bits {flips:?}"));
            for &(at, _) in &flips {
                handle.write_all_at(&bytes[at..=at], at as u64).unwrap();
            }
        }
        println!("{name}: {tally:?}");
        assert!(tally.ran > 0 && tally.refused > 0);
    }
}

/// Weights of any bits: NaN, infinities, scales of every size.
#[test]
fn weights_of_random_bits() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random(5);
    for (name, writer) in models().into_iter().chain(small_models::every_type()) {
        let mut bytes = small_models::bytes(&writer);
        let start = fastllm_gguf::Header::parse(&bytes, bytes.len() as u64).unwrap().data_start as usize;
        let file = TempFile::new(&format!("random-{name}"), &bytes);
        let mut tally = Tally::default();
        for case in 0..30 {
            for byte in &mut bytes[start..] {
                *byte = match case % 3 {
                    0 => random.next() as u8,
                    1 if random.below(64) == 0 => 0xff,
                    1 => *byte,
                    // Exponents of all ones.
                    _ => 0x7f | random.next() as u8,
                };
            }
            std::fs::write(&file.0, &bytes).unwrap();
            tally.case(&file.0, bytes.len(), &options(1), || format!("{name}, case {case}"));
        }
        println!("{name}: {tally:?}");
    }
}

/// Extreme values of every type.
fn extremes() -> Vec<OwnedValue> {
    let mut all: Vec<OwnedValue> = Vec::new();
    all.extend([0u8, 1, 255].map(OwnedValue::from));
    all.extend([i8::MIN, -1, 1].map(OwnedValue::from));
    all.extend([0u16, u16::MAX].map(OwnedValue::from));
    all.extend([i16::MIN, i16::MAX].map(OwnedValue::from));
    all.extend([0u32, 1, 2, 3, 16, 17, 64, 576, 577, 4096, 1 << 24, 1 << 30, 1 << 31, u32::MAX].map(OwnedValue::from));
    all.extend([i32::MIN, -1, 0, i32::MAX].map(OwnedValue::from));
    all.extend([0u64, 1 << 32, (1 << 32) + 32, 1 << 63, u64::MAX].map(OwnedValue::from));
    all.extend([i64::MIN, -1, i64::MAX].map(OwnedValue::from));
    all.extend([0f32, -0.0, -1.0, 1.0, 1e-45, 1e-38, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(OwnedValue::from));
    all.extend([0f64, 5e-324, 1e308, -1e308, f64::NAN, f64::INFINITY].map(OwnedValue::from));
    all.extend([false, true].map(OwnedValue::from));
    all.extend(["", "none", "linear", "yarn", "llama", "dynamic", "\u{0}"].map(OwnedValue::from));
    all.push(OwnedValue::String(vec![b'a'; 1 << 16]));
    all.push(OwnedValue::String(vec![0xff, 0xc0]));
    all.extend([&[][..], &[0], &[1, 2, u32::MAX]].map(OwnedValue::from));
    all.push(OwnedValue::Array(ValueType::Array, vec![[1u32].as_slice().into()]));
    all
}

const KEYS: &[&str] = &[
    "general.architecture",
    "general.alignment",
    "llama.embedding_length",
    "llama.block_count",
    "llama.feed_forward_length",
    "llama.context_length",
    "llama.vocab_size",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.sliding_window",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scale_linear",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scaling.original_context_length",
    "llama.rope.scaling.attn_factor",
    "split.count",
    "split.no",
    "split.tensors.count",
];

#[test]
fn every_key_with_extreme_values_of_every_type() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (extremes, mut random) = (extremes(), Random(11));
    let mut tally = Tally::default();
    let mut try_with = |model: &Writer, changes: &[(&str, &OwnedValue)]| {
        let mut writer = model.clone();
        for (key, value) in changes {
            writer.set(*key, (*value).clone());
        }
        let mut bytes = Vec::new();
        // What the writer itself refuses (an alignment that is none) others test.
        if writer.write(&mut bytes).is_err() {
            return;
        }
        let file = TempFile::new("extreme", &bytes);
        tally.case(&file.0, bytes.len(), &options(1), || format!("{changes:?}"));
    };
    let models = [small_models::dense(), small_models::experts()];
    for model in &models {
        for key in KEYS {
            for value in &extremes {
                try_with(model, &[(key, value)]);
            }
        }
    }
    for i in 0..6000 {
        let mut change = || (KEYS[random.below(KEYS.len())], &extremes[random.below(extremes.len())]);
        let changes = [change(), change(), change()];
        try_with(&models[i % 2], &changes[..2 + i % 2]);
    }
    println!("{tally:?}");
    assert!(tally.ran > 100 && tally.refused > 5000);
}

/// Shapes that agree with the metadata, and are extreme themselves.
#[test]
fn extreme_shapes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = Shape { hidden: 4, vocab: 1, heads: 1, kv_heads: 1, dim: 2, width: 1, ..Shape::default() };
    let mut tally = Tally::default();
    for shape in [
        base,
        Shape { hidden: 1, ..base },
        Shape { hidden: 17, vocab: 3, width: 33, ..base },
        Shape { heads: 64, ..base },
        Shape { heads: 64, kv_heads: 64, ..base },
        Shape { heads: 6, kv_heads: 4, ..base },
        Shape { dim: 576, ..base },
        Shape { dim: 578, ..base },
        Shape { dim: 1, ..base },
        Shape { layers: 50, ..base },
        Shape { vocab: 4097, ..base },
        Shape { width: 2000, ..base },
        Shape { hidden: 16, width: 16, experts: 2, ..base },
        Shape { hidden: 16, width: 16, experts: 300, ..base },
        Shape { hidden: 16, width: 15, experts: 4, ..base },
        Shape { experts: 1, ..base },
    ] {
        let bytes = small_models::bytes(&small_models::model(shape, &[DType::F32], false));
        let file = TempFile::new("shape", &bytes);
        tally.case(&file.0, bytes.len(), &options(2), || format!("{shape:?}"));
    }
    println!("{tally:?}");
    assert!(tally.ran >= 8 && tally.refused >= 5);
}

/// Rows come in panels of 16: a file of single long rows would need 16 times its size.
#[test]
fn a_file_that_would_grow_in_memory_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = Shape { hidden: 1 << 20, vocab: 1, heads: 1, kv_heads: 1, dim: 2, width: 1, ..Shape::default() };
    let bytes = small_models::bytes(&small_models::model(shape, &[DType::BF16], false));
    let file = TempFile::new("single-rows", &bytes);
    let mut tally = Tally::default();
    tally.case(&file.0, bytes.len(), &options(2), || "single rows".to_owned());
    let error = run(&file.0, &options(2)).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported(_)), "{error}");
    println!("{error}; {tally:?}");
}

#[test]
fn more_threads_than_any_machine_has() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = TempFile::new("threads", &small_models::bytes(&small_models::dense()));
    run(&file.0, &LoadOptions { prefill_threads: Some(900), ..options(1000) }).unwrap();
    for threads in [0, 1025, usize::MAX] {
        assert!(matches!(run(&file.0, &options(threads)), Err(ModelError::Option(_))));
    }
}
