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

/// A model to test.
struct Case {
    name: String,
    folder: PathBuf,
    /// Where the reference is: models that are the same in another layout share one.
    reference: PathBuf,
}

/// Models whose logits are those of another one.
const SAME: &[(&str, &str)] =
    &[("deepseek-v3-legacy", "deepseek-v3"), ("glm4moe-mtp", "glm4moe"), ("qwen35-mtp", "qwen35"), ("qwen35moe-mtp", "qwen35moe")];

/// The context length to ask for, where it matters: Phi-3 rotates differently beyond its original context.
const CONTEXT: &[(&str, usize)] = &[("phi3-longrope-short", 256)];

/// Models that do not ship, to keep the repository small.
const SHARED: &[&str] = &[
    "cohere2",
    "deepseek-moe",
    "deepseek-v2",
    "deepseek-v2-lite",
    "deepseek-v3-legacy",
    "ernie4_5",
    "exaone4",
    "exaone4-swa",
    "falcon-40b",
    "gemma",
    "glm4",
    "glm4moe",
    "glm4moe-mtp",
    "granitemoe",
    "granitemoe-shared",
    "hunyuan-dense",
    "mistral3",
    "phi3",
    "phi3-longrope-short",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen35",
    "qwen35-mtp",
    "qwen35moe",
    "qwen35moe-mtp",
    "qwen3moe",
    "qwen3vl",
    "seed_oss",
    "smollm3",
];

impl Case {
    fn new(folder: PathBuf) -> Case {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let same = SAME.iter().find(|(a, _)| *a == name).map(|(_, b)| folder.with_file_name(b));
        Case { reference: same.unwrap_or_else(|| folder.clone()), name, folder }
    }

    fn golden(&self) -> Golden {
        let z = &mut zip::ZipArchive::new(std::fs::File::open(self.reference.join("golden.npz")).expect("golden.npz")).unwrap();
        Golden {
            prompt: array(z, "prompt_ids", i32::from_le_bytes),
            generated: array(z, "gen_ids", i32::from_le_bytes),
            prompt_logits: array(z, "prompt_logits", f32::from_le_bytes),
            generated_logits: array(z, "gen_logits", f32::from_le_bytes),
        }
    }

    fn load(&self, isa: &str, threads: usize) -> Context {
        let file = GgufFile::open(self.folder.join("model-f16.gguf")).unwrap();
        let context_length = CONTEXT.iter().find(|(a, _)| *a == self.name).map(|&(_, n)| n);
        let options = LoadOptions {
            isa: isa.to_owned(),
            threads: Some(threads),
            cache_type: CacheType::F32,
            context_length,
            ..LoadOptions::default()
        };
        Context::new(Arc::new(Model::load(&file, &options, &mut |_, _| true).unwrap())).unwrap()
    }
}

/// The models that ship with the project, and those of the folder `golden` of the shared data where that is present.
fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = root.join("tests/data/golden");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(data).expect("tests/data/golden").map(|e| e.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let shared = std::env::var_os("FASTLLM_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from).join("golden");
    if shared.is_dir() {
        folders.extend(SHARED.iter().map(|name| shared.join(name)));
    } else {
        println!("skipped, as there is no folder {}: {}", shared.display(), SHARED.join(", "));
    }
    folders.into_iter().map(Case::new).collect()
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
    for case in cases() {
        let golden = case.golden();
        let all: Vec<i32> = golden.prompt.iter().chain(&golden.generated[..golden.generated.len() - 1]).copied().collect();
        let vocab = golden.prompt_logits.len() / golden.prompt.len();
        let reference: Vec<f32> = golden.prompt_logits.iter().chain(&golden.generated_logits[vocab..]).copied().collect();
        let out = logits(&mut case.load("auto", 2), &all, all.len());
        let largest = reference.iter().fold(0f32, |m, x| m.max(x.abs()));
        let error = out.iter().zip(&reference).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{}: largest difference {error:.1e} of {largest:.1}", case.name);
        assert!(error <= 1e-3 * largest, "{}: {error}", case.name);
        let ids: Vec<i32> = out[(golden.prompt.len() - 1) * vocab..].chunks(vocab).map(argmax).collect();
        assert_eq!(ids, golden.generated, "{}", case.name);
    }
}

#[test]
fn bits_do_not_depend_on_isa_chunks_or_threads() {
    for case in cases() {
        let golden = case.golden();
        let reference = logits(&mut case.load("scalar", 1), &golden.prompt, golden.prompt.len());
        for cpu in fastllm_simd::Cpu::available() {
            for threads in [1, 2] {
                let mut context = case.load(cpu.name(), threads);
                for chunk in [1, 7, golden.prompt.len()] {
                    let out = logits(&mut context, &golden.prompt, chunk);
                    let same = out.iter().zip(&reference).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same && out.len() == reference.len(),
                        "{} on {} with {threads} threads, chunks of {chunk}",
                        case.name,
                        cpu.name()
                    );
                }
            }
        }
    }
}

/// A sequence beside another one, and beside a fork of its own beginning.
#[test]
fn bits_do_not_depend_on_the_batch() {
    for case in cases() {
        let prompt = case.golden().prompt;
        let context = &mut case.load("auto", 2);
        let alone = logits(context, &prompt, prompt.len());
        let vocab = alone.len() / prompt.len();
        let (first, other) = (context.open(), context.open());
        let ids: Vec<u32> = prompt.iter().map(|&id| id as u32).collect();
        let backwards: Vec<u32> = ids.iter().rev().copied().collect();
        let rows = |sequence, ids: &[u32], from: usize| {
            let row = |(i, &token): (usize, &u32)| Row { sequence, position: (from + i) as u32, token, logits: true };
            ids.iter().enumerate().map(row).collect::<Vec<Row>>()
        };
        let half = prompt.len() / 2;
        let both = [rows(other, &backwards, 0), rows(first, &ids[..half], 0)].concat();
        let out = context.forward(&both, &AtomicBool::new(false)).unwrap()[prompt.len() * vocab..].to_vec();
        let fork = context.fork(first, half).unwrap();
        let both = [rows(fork, &ids[half..], half), rows(first, &ids[half..], half)].concat();
        let rest = context.forward(&both, &AtomicBool::new(false)).unwrap();
        let same = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let (a, b) = rest.split_at(rest.len() / 2);
        let (begin, end) = alone.split_at(half * vocab);
        assert!(same(&out, begin) && same(a, end) && same(b, end), "{}", case.name);
    }
}
