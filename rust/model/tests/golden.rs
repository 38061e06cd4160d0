//! Small models against the logits of a reference implementation (f32 arithmetic), on every instruction set of this CPU, with any
//! chunking of the prompt and any number of threads: identical bits.
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_model::batch::Row;
use fastllm_model::{Context, LoadOptions, Model};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

struct Golden {
    prompt: Vec<i32>,
    prompt_logits: Vec<f32>,
    generated: Vec<i32>,
    generated_logits: Vec<f32>,
}

/// The data of an array in an `.npz` file, whose elements take four bytes each.
fn array<T>(z: &mut zip::ZipArchive<std::fs::File>, name: &str, element: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let mut bytes = Vec::new();
    z.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    // Magic, version, and the length of a header of text.
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].as_chunks::<4>().0.iter().map(|b| element(*b)).collect()
}

fn golden(folder: &Path) -> Golden {
    let z = &mut zip::ZipArchive::new(std::fs::File::open(folder.join("golden.npz")).expect("golden.npz")).unwrap();
    Golden {
        prompt: array(z, "prompt_ids", i32::from_le_bytes),
        generated: array(z, "gen_ids", i32::from_le_bytes),
        prompt_logits: array(z, "prompt_logits", f32::from_le_bytes),
        generated_logits: array(z, "gen_logits", f32::from_le_bytes),
    }
}

/// The models that ship with the project.
fn folders() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden");
    let mut all: Vec<PathBuf> = std::fs::read_dir(data).expect("tests/data/golden").map(|e| e.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

fn load(folder: &Path, isa: &str, threads: usize) -> Context {
    let file = GgufFile::open(folder.join("model-f16.gguf")).unwrap();
    let options = LoadOptions { isa: isa.to_owned(), threads: Some(threads), cache_type: CacheType::F32, ..LoadOptions::default() };
    Context::new(Arc::new(Model::load(&file, &options, &mut |_, _| true).unwrap())).unwrap()
}

/// Logits after every one of `ids`, computed `chunk` tokens at a time.
fn logits(context: &mut Context, ids: &[i32], chunk: usize) -> Vec<f32> {
    let sequence = context.open();
    let mut out = Vec::new();
    for (i, part) in ids.chunks(chunk).enumerate() {
        let row = |(j, &id): (usize, &i32)| Row { sequence, position: (i * chunk + j) as u32, token: id as u32, logits: true };
        let rows: Vec<Row> = part.iter().enumerate().map(row).collect();
        out.extend_from_slice(context.forward(&rows, &AtomicBool::new(false)).unwrap());
    }
    context.close(sequence);
    out
}

fn argmax(x: &[f32]) -> i32 {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best }) as i32
}

#[test]
fn logits_and_greedy_ids_are_those_of_the_reference() {
    for folder in folders() {
        let golden = golden(&folder);
        let all: Vec<i32> = golden.prompt.iter().chain(&golden.generated[..golden.generated.len() - 1]).copied().collect();
        let vocab = golden.prompt_logits.len() / golden.prompt.len();
        let reference: Vec<f32> = golden.prompt_logits.iter().chain(&golden.generated_logits[vocab..]).copied().collect();
        let out = logits(&mut load(&folder, "auto", 2), &all, all.len());
        let largest = reference.iter().fold(0f32, |m, x| m.max(x.abs()));
        let error = out.iter().zip(&reference).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{}: largest difference {error:.1e} of {largest:.1}", folder.file_name().unwrap().display());
        assert!(error <= 1e-3 * largest, "{folder:?}: {error}");
        let ids: Vec<i32> = out[(golden.prompt.len() - 1) * vocab..].chunks(vocab).map(argmax).collect();
        assert_eq!(ids, golden.generated, "{folder:?}");
    }
}

#[test]
fn bits_do_not_depend_on_isa_chunks_or_threads() {
    for folder in folders() {
        let golden = golden(&folder);
        let reference = logits(&mut load(&folder, "scalar", 1), &golden.prompt, golden.prompt.len());
        for cpu in fastllm_simd::Cpu::available() {
            for threads in [1, 2] {
                let mut context = load(&folder, cpu.name(), threads);
                for chunk in [1, 7, golden.prompt.len()] {
                    let out = logits(&mut context, &golden.prompt, chunk);
                    let same = out.iter().zip(&reference).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same && out.len() == reference.len(), "{folder:?} on {} with {threads} threads, chunks of {chunk}", cpu.name());
                }
            }
        }
    }
}
