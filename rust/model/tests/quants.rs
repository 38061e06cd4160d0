//! Quantized models against exact logits: weights decoded by another program, arithmetic in f32.
//!
//! What is measured is the error of rounding activations and the KV cache, as KL(exact || ours) of the distribution of the next token, in
//! nats. It may not exceed llama.cpp's with its default settings, which `index.json` has. llama.cpp gives blocks of 256 weights one scale
//! of the activations in 256 columns; ours are per 32 columns, and the error is half of llama.cpp's. For smaller blocks both round alike,
//! and chance decides: means over the 32 positions here and llama.cpp's 79 differ by a tenth (one standard deviation) if they are equally
//! hard, and here they are harder (on the last 8, for which llama.cpp's logits are known, its mean is a quarter higher). Files lie in `tests/data/quants` and, all types,
//! in `../shared/golden/quants` beside the repository or in `$FASTLLM_SHARED/golden/quants`.
use fastllm_gguf::{DType, GgufFile};
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model, ModelError};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The data of an array in an `.npz` file, whose elements take four bytes each.
fn array<T>(z: &mut zip::ZipArchive<std::fs::File>, name: &str, element: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let mut bytes = Vec::new();
    z.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    // Magic, version, and the length of a header of text.
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].as_chunks::<4>().0.iter().map(|b| element(*b)).collect()
}

/// The logarithms of the probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - most - sum.ln()).collect()
}

/// KL(exact || ours).
fn kl(exact: &[f32], ours: &[f32]) -> f64 {
    log_softmax(exact).iter().zip(&log_softmax(ours)).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Mean and median.
fn statistics(mut x: Vec<f64>) -> (f64, f64) {
    x.sort_by(f64::total_cmp);
    let (n, middle) = (x.len(), x.len() / 2);
    (x.iter().sum::<f64>() / n as f64, if n.is_multiple_of(2) { x[middle - 1].midpoint(x[middle]) } else { x[middle] })
}

/// Mean and median KL over the positions that the reference has, with default options.
fn measure(path: &Path) -> Result<(f64, f64), ModelError> {
    let file = GgufFile::open(path)?;
    let model = Model::load(&file, &LoadOptions::default(), &mut |_, _| true)?;
    let z = &mut zip::ZipArchive::new(std::fs::File::open(path.with_extension("npz")).expect("logits")).unwrap();
    let (prompt, exact) = (array(z, "prompt_ids", i32::from_le_bytes), array(z, "prompt_logits_last32", f32::from_le_bytes));
    let (first, vocab) = (prompt.len() - 32, exact.len() / 32);
    let mut context = Context::new(Arc::new(model))?;
    let sequence = context.open();
    let row = |(i, &id): (usize, &i32)| Row { sequence, position: i as u32, token: id as u32, logits: i >= first };
    let rows: Vec<Row> = prompt.iter().enumerate().map(row).collect();
    let ours = context.forward(&rows, &AtomicBool::new(false))?;
    assert!(ours.len() == exact.len() && ours.iter().all(|x| x.is_finite()));
    Ok(statistics(exact.chunks(vocab).zip(ours.chunks(vocab)).map(|(p, q)| kl(p, q)).collect()))
}

/// How many times llama.cpp's error is allowed: more than 1 where most tensors have small blocks.
fn factor(entry: &Value) -> f64 {
    let types = entry["tensor_types"].as_object().expect("types").iter().filter(|(name, _)| *name != "F32");
    let (most, _) = types.max_by_key(|(_, count)| count.as_u64()).expect("a type");
    if DType::from_name(&most.to_lowercase()).expect("a type").block_size() < 256 { 1.3 } else { 1.0 }
}

/// Checks all models of a folder.
fn check(folder: &Path) {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).expect("index.json")).unwrap();
    let files = index["files"].as_object().expect("files");
    let (mut measured, mut failures) = (0, Vec::new());
    println!("| file | mean KL | llama.cpp | median KL | llama.cpp |\n|---|---|---|---|---|");
    for (name, entry) in files {
        let (mean, median) = match measure(&folder.join(name)) {
            Ok(found) => found,
            Err(ModelError::Unsupported(reason)) if reason.starts_with("architecture") => {
                println!("| {name} | skipped: {reason} |");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let bound = |what: &str| entry["llama_cpp"]["default"][what].as_f64().expect("a number");
        let (most_mean, most_median) = (bound("kl_mean"), bound("kl_median"));
        println!("| {name} | {mean:.2e} | {most_mean:.2e} | {median:.2e} | {most_median:.2e} |");
        measured += 1;
        // Where rounding makes a token choose another expert, its KL is large: one of those decides the mean.
        let experts = entry["base"] == "moe-256" || entry["base"] == "gpt-oss";
        let factor = factor(entry);
        if median > factor * most_median || !experts && mean > factor * most_mean {
            failures.push(name);
        }
    }
    assert!(measured > 0 && failures.is_empty(), "worse than llama.cpp: {failures:?} of {measured} files");
}

#[test]
fn shipped_models_are_no_worse_than_llama_cpp() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/quants"));
}

#[test]
fn all_types_are_no_worse_than_llama_cpp() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("FASTLLM_SHARED").map_or_else(beside, PathBuf::from).join("golden/quants");
    if folder.is_dir() {
        check(&folder);
    } else {
        println!("skipped: {} is missing (set FASTLLM_SHARED)", folder.display());
    }
}
