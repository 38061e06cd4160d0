//! Sequences against fresh contexts: whatever else happens in a cache, the logits of a sequence are those of its tokens alone.
mod common;

use common::small_models::{self, Random};
use common::{TempFile, context, forward, in_child, options, rows};
use fastllm_gguf::DType;
use fastllm_kernels::attention::CacheType;
use fastllm_model::batch::{Row, SequenceId};
use fastllm_model::kv_cache::SPARE;
use fastllm_model::{Context, LoadOptions, ModelError};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CONTEXT: usize = 256;
const VOCAB: usize = 40;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The logits after `tokens`, by a context of its own in one pass.
fn fresh(path: &Path, options: &LoadOptions, tokens: &[u32]) -> Vec<u32> {
    let mut context = context(path, options).unwrap();
    let sequence = context.open();
    bits(&forward(&mut context, &rows(sequence, 0, tokens)).unwrap())
}

/// Sequences with the tokens that they hold: what a cache must agree with.
struct Checked<'a> {
    path: &'a Path,
    options: LoadOptions,
    context: Context,
    open: Vec<(SequenceId, Vec<u32>)>,
    /// The most positions that a sequence, or what it was forked from, had: windows have forgotten what lies far below.
    longest: HashMap<SequenceId, usize>,
    random: Random,
    /// Forward passes compared.
    compared: usize,
}

impl Checked<'_> {
    /// Some more tokens for some of the sequences, in one batch.
    fn batch(&mut self) -> Vec<(usize, Vec<u32>)> {
        let mut parts = Vec::new();
        for i in 0..self.open.len() {
            let most = if self.random.below(3) == 0 { 120 } else { 4 };
            let count = self.random.below(most).min(CONTEXT - self.open[i].1.len());
            if count > 0 && self.random.below(2) == 0 {
                parts.push((i, (0..count).map(|_| self.random.below(VOCAB) as u32).collect()));
            }
        }
        parts
    }

    fn rows(&self, parts: &[(usize, Vec<u32>)]) -> Vec<Row> {
        parts.iter().flat_map(|(i, tokens)| rows(self.open[*i].0, self.open[*i].1.len(), tokens)).collect()
    }

    fn forward(&mut self) {
        let parts = self.batch();
        let batch = self.rows(&parts);
        if batch.is_empty() || batch.len() > 512 {
            return;
        }
        let (before, growth) = (self.context.kv().bytes(), self.context.growth(&batch));
        let logits = forward(&mut self.context, &batch).unwrap();
        // Less where two of them share a block that both write: the last one keeps it.
        assert!(self.context.kv().bytes() <= before + growth, "a pass takes the memory that was foretold");
        assert_eq!(logits.len(), parts.len() * VOCAB);
        for ((i, tokens), logits) in parts.iter().zip(logits.chunks(VOCAB)) {
            self.open[*i].1.extend(tokens);
            self.grown(*i);
            if self.random.below(3) == 0 {
                let all = &self.open[*i].1;
                assert_eq!(bits(logits), fresh(self.path, &self.options, all), "after {} tokens", all.len());
                self.compared += 1;
            }
        }
    }

    /// Passes that end with an error: cancelled before or in their midst, or wrong.
    fn fail(&mut self) {
        let parts = self.batch();
        let mut batch = self.rows(&parts);
        if batch.is_empty() || batch.len() > 512 {
            return;
        }
        let cancel = AtomicBool::new(true);
        match self.random.below(3) {
            0 => assert!(matches!(self.context.forward(&batch, &cancel), Err(ModelError::Cancelled))),
            1 => {
                let delay = Duration::from_micros(self.random.below(400) as u64);
                cancel.store(false, Ordering::Relaxed);
                let context = &mut self.context;
                let done = std::thread::scope(|s| {
                    s.spawn(|| {
                        std::thread::sleep(delay);
                        cancel.store(true, Ordering::Relaxed);
                    });
                    context.forward(&batch, &cancel).is_ok()
                });
                if done {
                    for (i, tokens) in &parts {
                        self.open[*i].1.extend(tokens);
                        self.grown(*i);
                    }
                }
            }
            _ => {
                let row = self.random.below(batch.len());
                match self.random.below(3) {
                    0 => batch[row].token = VOCAB as u32 + self.random.below(3) as u32,
                    1 => batch[row].position += 1,
                    _ => batch[row].sequence = SequenceId(1000),
                }
                assert!(matches!(self.context.forward(&batch, &cancel), Err(ModelError::Batch(_))));
            }
        }
    }

    fn grown(&mut self, i: usize) {
        let (id, tokens) = &self.open[i];
        let longest = self.longest.entry(*id).or_default();
        *longest = tokens.len().max(*longest);
    }

    /// A sequence that begins as another: wherever no window has been left behind, and always near its end.
    fn fork(&mut self) {
        let (id, tokens) = self.open[self.random.below(self.open.len())].clone();
        let len = self.random.below(tokens.len() + 1);
        let forkable = self.context.kv().forkable(id, len);
        assert!(forkable == len || (forkable == 0 && self.longest[&id] - len > SPARE));
        match self.context.fork(id, len) {
            Ok(fork) => {
                assert_eq!(forkable, len);
                self.open.push((fork, tokens[..len].to_vec()));
                self.longest.insert(fork, self.longest[&id]);
            }
            Err(error) => assert!(forkable != len && matches!(error, ModelError::Batch(_)), "{error}"),
        }
    }

    /// A sequence with the saved state of another.
    fn copy(&mut self) {
        let (id, tokens) = self.open[self.random.below(self.open.len())].clone();
        let copy = self.context.open();
        let mut index = 0;
        while let Some(piece) = self.context.kv().piece(id, index).map(std::borrow::Cow::into_owned) {
            let complete = self.context.restore(copy, index, &piece).unwrap();
            index += 1;
            assert_eq!(complete, self.context.kv().piece(id, index).is_none());
        }
        self.open.push((copy, tokens));
        self.longest.insert(copy, self.longest[&id]);
    }

    fn truncate(&mut self) {
        let i = self.random.below(self.open.len());
        let spare = SPARE - (self.longest[&self.open[i].0] - self.open[i].1.len()).min(SPARE);
        let dropped = self.random.below(spare + 1).min(self.open[i].1.len());
        let (id, tokens) = &mut self.open[i];
        tokens.truncate(tokens.len() - dropped);
        self.context.truncate(*id, tokens.len()).unwrap();
    }

    fn step(&mut self) {
        match self.random.below(16) {
            15 if !self.open.is_empty() && self.open.len() < 6 => self.copy(),
            12 | 13 if !self.open.is_empty() && self.open.len() < 6 => self.fork(),
            14 if !self.open.is_empty() => self.truncate(),
            0 | 1 if self.open.len() < 6 => {
                let id = self.context.open();
                assert!(self.open.iter().all(|(other, _)| *other != id));
                self.open.push((id, Vec::new()));
                self.longest.insert(id, 0);
            }
            2 if !self.open.is_empty() => {
                let i = self.random.below(self.open.len());
                self.context.close(self.open.swap_remove(i).0);
            }
            3 | 4 => self.fail(),
            _ => self.forward(),
        }
        for (id, tokens) in &self.open {
            assert_eq!(self.context.kv().len(*id), Some(tokens.len()));
        }
    }
}

#[test]
fn any_order_of_operations_gives_the_logits_of_a_fresh_context() {
    for (seed, window) in [(1, None), (2, Some(1)), (3, Some(20)), (4, Some(64)), (5, Some(100))] {
        let mut writer = small_models::model(small_models::Shape { layers: 2, ..Default::default() }, &[DType::F32, DType::Q8_0], true);
        if let Some(window) = window {
            writer.set("llama.attention.sliding_window", window as u32);
        }
        let file = TempFile::new(&format!("sequences-{seed}"), &small_models::bytes(&writer));
        let cache_type = CacheType::ALL[seed as usize % 3];
        let options = LoadOptions { cache_type, ..options(2) };
        let context = context(&file.0, &options).unwrap();
        let mut checked =
            Checked { path: &file.0, options, context, open: Vec::new(), longest: HashMap::new(), random: Random(seed * 77), compared: 0 };
        // When a pass is cancelled in its midst, time decides what follows: go on until enough was compared.
        let mut steps = 0;
        while steps < 150 || (checked.compared <= 20 && steps < 1000) {
            checked.step();
            steps += 1;
        }
        println!(
            "window {window:?}, {}: {} compared, {} bytes of cache",
            cache_type.name(),
            checked.compared,
            checked.context.kv().bytes()
        );
        assert!(checked.compared > 20);
        for (id, _) in std::mem::take(&mut checked.open) {
            checked.context.close(id);
        }
        assert_eq!(checked.context.kv().bytes(), 0);
    }
}

/// Forks share their memory until they write, and then copy one block.
#[test]
fn forks_share_blocks() {
    let file = TempFile::new("forks", &small_models::bytes(&small_models::model(small_models::Shape::default(), &[DType::F32], false)));
    let mut context = context(&file.0, &options(1)).unwrap();
    let first = context.open();
    let tokens: Vec<u32> = (0..200).map(|i| i % VOCAB as u32).collect();
    forward(&mut context, &rows(first, 0, &tokens)).unwrap();
    let block = context.kv().bytes() / 4;
    let forks = [128, 150, 200].map(|len| (context.fork(first, len).unwrap(), len));
    assert_eq!(context.kv().bytes(), 4 * block);
    for (i, (fork, len)) in forks.into_iter().enumerate() {
        assert_eq!(context.growth(&rows(fork, len, &[1])), block);
        forward(&mut context, &rows(fork, len, &[1])).unwrap();
        assert_eq!(context.kv().bytes(), (5 + i) * block);
    }
    // What nobody uses any more is used again, and given back when asked for.
    context.close(forks[2].0);
    assert_eq!(context.kv().bytes(), 7 * block);
    context.shrink(0);
    assert_eq!(context.kv().bytes(), 6 * block);
    context.close(first);
    context.shrink(0);
    assert_eq!(context.kv().bytes(), 4 * block, "two blocks are shared by both forks, each has one of its own");
    let error = context.truncate(forks[0].0, 130).unwrap_err();
    assert!(matches!(error, ModelError::Batch(_)), "{error}");
}

/// Pieces of a state that do not fit are refused, whatever they say.
#[test]
fn wrong_pieces_are_refused() {
    let file = TempFile::new("pieces", &small_models::bytes(&small_models::model(small_models::Shape::default(), &[DType::F32], false)));
    let mut context = context(&file.0, &options(1)).unwrap();
    let first = context.open();
    forward(&mut context, &rows(first, 0, &[1; 100])).unwrap();
    let description = context.kv().piece(first, 0).unwrap().into_owned();
    let block = context.kv().piece(first, 1).unwrap().into_owned();
    let mut restore = |pieces: &[&[u8]]| {
        let sequence = context.open();
        let result = pieces.iter().enumerate().try_fold(false, |_, (index, piece)| context.restore(sequence, index, piece));
        context.close(sequence);
        result
    };
    assert!(restore(&[&description, &block, &block]).unwrap());
    assert!(!restore(&[&description, &block]).unwrap());
    assert!(restore(&[&description, &block[1..]]).is_err());
    assert!(restore(&[&description, &block, &block, &block]).is_err());
    for at in 0..description.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut wrong = description.clone();
            wrong[at] = value;
            if wrong != description {
                // Some lengths are possible: those of fewer or more positions in as many blocks.
                let result = restore(&[&wrong, &block, &block]);
                assert!(result.is_err() || at == 32, "byte {at} = {value}: {result:?}");
            }
        }
    }
    for len in 0..description.len() {
        assert!(restore(&[&description[..len]]).is_err());
    }
}

/// What a cancelled pass wrote behind the end of a sequence is not seen, even if it is not a number: the cache keeps such numbers among
/// the keys, whose scores are masked.
#[test]
fn a_cancelled_pass_leaves_nothing_behind() {
    let mut bytes =
        small_models::bytes(&small_models::model(small_models::Shape { layers: 12, ..Default::default() }, &[DType::F32], false));
    // The embedding of the last token becomes NaN.
    let header = fastllm_gguf::Header::parse(&bytes, bytes.len() as u64).unwrap();
    let embedding = header.tensors.iter().find(|t| t.name == "token_embd.weight").unwrap();
    let end = (embedding.offset + embedding.bytes) as usize;
    bytes[end - 32 * 4..end].copy_from_slice(&f32::NAN.to_le_bytes().repeat(32));
    let file = TempFile::new("poison", &bytes);
    let poison = VOCAB as u32 - 1;
    for cache_type in CacheType::ALL {
        let options = LoadOptions { cache_type, ..options(1) };
        // All moments of a pass, some of them so late that it ends first.
        let mut cancelled = 0;
        for micros in (0..40).map(|i| i * 100) {
            let cancel = AtomicBool::new(false);
            let mut other = context(&file.0, &options).unwrap();
            let sequence = other.open();
            forward(&mut other, &rows(sequence, 0, &[1, 2, 3])).unwrap();
            let done = std::thread::scope(|s| {
                s.spawn(|| {
                    std::thread::sleep(Duration::from_micros(micros));
                    cancel.store(true, Ordering::Relaxed);
                });
                other.forward(&rows(sequence, 3, &[poison; 200]), &cancel).is_ok()
            });
            if done {
                continue;
            }
            cancelled += 1;
            assert_eq!(other.kv().len(sequence), Some(3));
            let logits = forward(&mut other, &rows(sequence, 3, &[4])).unwrap();
            assert_eq!(bits(&logits), fresh(&file.0, &options, &[1, 2, 3, 4]), "{} after {micros} µs", cache_type.name());
        }
        assert!(cancelled > 3);
        println!("{}: {cancelled} of 40 passes cancelled", cache_type.name());
    }
}

/// Under a limit of address space a batch that does not fit is an error, and a smaller one runs as before.
#[test]
#[cfg(target_os = "linux")]
fn no_memory_is_an_error_and_changes_nothing() {
    const CHILD: &str = "FASTLLM_TEST_MEMORY_CHILD";
    if std::env::var_os(CHILD).is_none() {
        return in_child("no_memory_is_an_error_and_changes_nothing", CHILD);
    }
    // Wide between the matrices: a batch of 512 needs gigabytes.
    let shape = small_models::Shape { hidden: 16, width: 1 << 19, ..Default::default() };
    let mut writer = small_models::model(shape, &[DType::F16], false);
    writer.set("llama.context_length", 1u32 << 20);
    let file = TempFile::new("wide", &small_models::bytes(&writer));
    drop(writer);
    let mut wide = context(&file.0, &options(1)).unwrap();
    let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
    // SAFETY: a valid limit for this process alone.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let sequence = wide.open();
    let first = forward(&mut wide, &rows(sequence, 0, &[7])).unwrap();
    for _ in 0..3 {
        let error = forward(&mut wide, &rows(sequence, 1, &[1; 512])).unwrap_err();
        assert!(matches!(error, ModelError::OutOfMemory(_)), "{error}");
        assert_eq!(wide.kv().len(sequence), Some(1));
    }
    let other = wide.open();
    assert_eq!(bits(&forward(&mut wide, &rows(other, 0, &[7])).unwrap()), bits(&first));
    // A model that does not fit is an error too.
    let mut kept = Vec::new();
    while let Ok(v) = fastllm_kernels::buffer::AlignedVec::<u8>::try_zeroed(8 << 20) {
        kept.push(v);
    }
    let error = context(&file.0, &options(1)).unwrap_err();
    assert!(matches!(error, ModelError::OutOfMemory(_)), "{error}");
}
