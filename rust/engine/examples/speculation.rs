//! What guessing gains: decoding with and without it, on scripted texts.
//!
//! Random weights write no summary. Here every pass is computed in full, then the logits are replaced by those of a script: a summary that
//! quotes the document of its prompt, and a text without repetitions. Runs alternate; the last column is the ratio of the medians.
//!
//! ```text
//! cargo run --release -p fastllm-engine --example speculation -- MODEL.gguf [ROUNDS]
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastllm_engine::sampling::SamplingParams;
use fastllm_engine::{DecodeError, Decoder, Engine, EngineOptions, Event, Logits, ModelDecoder, Next, Pieces, Request};
use fastllm_gguf::GgufFile;
use fastllm_model::batch::{Row, SequenceId};
use fastllm_model::{LoadOptions, Model};

const DOCUMENT: &str = include_str!("document.txt");
const SUMMARY: &str = "The report says that the harvest of the valley was the largest in nine years . The farmers' cooperative sold most \
    of it to mills in the neighbouring districts , and kept a third as seed . The dam at Karnal held back the floods of August , so \
    that the lower fields stayed dry . Two of the five pumping stations were repaired , and the cooperative expects to repair the \
    others before the next sowing . Prices fell by a tenth , but because the yield per acre rose , the income of an average household \
    grew by six percent . The report recommends that the storage houses along the canal be enlarged , and that the road to the \
    market town be opened to lorries in all seasons .";

/// A decoder whose texts follow a script.
struct Scripted {
    decoder: ModelDecoder,
    /// Prompt and continuation.
    script: Arc<Mutex<Vec<u32>>>,
    logits: Vec<f32>,
}

impl Decoder for Scripted {
    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }
    fn context_length(&self) -> usize {
        self.decoder.context_length()
    }
    fn max_rows(&self) -> usize {
        self.decoder.max_rows()
    }
    fn open(&mut self) -> Result<SequenceId, DecodeError> {
        self.decoder.open()
    }
    fn close(&mut self, sequence: SequenceId) {
        self.decoder.close(sequence);
    }
    fn keeps_all(&self) -> bool {
        self.decoder.keeps_all()
    }
    fn forkable(&self, sequence: SequenceId, most: usize) -> usize {
        self.decoder.forkable(sequence, most)
    }
    fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<SequenceId, DecodeError> {
        self.decoder.fork(sequence, len)
    }
    fn spare(&self) -> usize {
        self.decoder.spare()
    }
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<(), DecodeError> {
        self.decoder.truncate(sequence, len)
    }
    fn piece(&self, sequence: SequenceId, index: usize) -> Option<Cow<'_, [u8]>> {
        self.decoder.piece(sequence, index)
    }
    fn restore(&mut self, sequence: SequenceId, index: usize, piece: &[u8]) -> Result<bool, DecodeError> {
        self.decoder.restore(sequence, index, piece)
    }
    fn cache_bytes(&self) -> usize {
        self.decoder.cache_bytes()
    }
    fn growth(&self, rows: &[Row]) -> usize {
        self.decoder.growth(rows)
    }
    fn shrink(&mut self, bytes: usize) {
        self.decoder.shrink(bytes);
    }
    fn forward(&mut self, rows: &[Row], cancel: &AtomicBool) -> Result<Logits<'_>, DecodeError> {
        let vocab = self.vocab_size();
        self.logits.clear();
        self.logits.extend(self.decoder.forward(rows, cancel)?.rows().flatten());
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, logits) in rows.iter().filter(|row| row.logits).zip(self.logits.chunks_exact_mut(vocab)) {
            logits[script.get(row.position as usize + 1).map_or(0, |&id| id as usize)] = 1e6;
        }
        Ok(Logits::new(&self.logits, vocab))
    }
    fn bytes_read(&self, rows: &[Row]) -> u64 {
        self.decoder.bytes_read(rows)
    }
}

struct NoText;

impl Pieces for NoText {
    fn push(&mut self, _: u32, _: &mut String) {}
    fn finish(&mut self, _: &mut String) {}
}

/// A token for every word.
fn tokens(text: &str, vocab: usize) -> Vec<u32> {
    let id = |word: &str| {
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        (hasher.finish() % vocab as u64) as u32
    };
    text.split_whitespace().map(id).collect()
}

/// Seconds to decode the script after its first `prompt` tokens.
fn decode(engine: &Engine, script: &[u32], prompt: usize) -> f64 {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let made = (script.len() - prompt) as u32;
    let request = Request { sampling, max_tokens: Some(made), ..Request::new(script[..prompt].to_vec(), Box::new(NoText)) };
    let handle = engine.submit(request).expect("the request is valid");
    let (mut start, mut ids) = (Instant::now(), Vec::new());
    loop {
        match handle.next(Duration::from_secs(60)) {
            Next::Event(Event::Token(token)) => {
                if ids.is_empty() {
                    start = Instant::now();
                }
                ids.push(token.id);
            }
            Next::Event(Event::Finished(_)) => break,
            Next::Event(Event::Prefill { .. } | Event::PromptLogprobs(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids, script[prompt..], "the text is the script");
    start.elapsed().as_secs_f64()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a model");
    let rounds = arguments.next().map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let file = GgufFile::open(&path).expect("a GGUF file");
    let options = LoadOptions { context_length: Some(4096), ..LoadOptions::default() };
    let model = Arc::new(Model::load(&file, &options, &mut |_, _| true).expect("a model that runs"));
    let vocab = model.config().vocab_size;
    let script = Arc::new(Mutex::new(Vec::new()));
    let engine = |speculate| {
        let decoder = ModelDecoder::new(Arc::clone(&model)).expect("a decoder");
        let decoder = Scripted { decoder, script: Arc::clone(&script), logits: Vec::new() };
        Engine::start(decoder, EngineOptions { speculate, ..EngineOptions::default() }).expect("an engine")
    };
    let (plain, guessing) = (engine(false), engine(true));
    let document = tokens(DOCUMENT, vocab);
    let summary = [&document[..], &tokens(SUMMARY, vocab)].concat();
    let random = (0..400_u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32 % vocab as u32).collect::<Vec<u32>>();
    println!("{:<12} {:>8} {:>10} {:>10} {:>7}", "text", "tokens", "plain t/s", "guess t/s", "ratio");
    for (name, text, prompt) in [("summary", &summary, document.len()), ("random", &random, 200)] {
        text.clone_into(&mut script.lock().unwrap_or_else(PoisonError::into_inner));
        let mut times: HashMap<bool, Vec<f64>> = HashMap::new();
        for _ in 0..rounds {
            for (speculate, engine) in [(false, &plain), (true, &guessing)] {
                times.entry(speculate).or_default().push(decode(engine, text, prompt));
            }
        }
        let made = (text.len() - prompt) as f64;
        let [without, with] = [false, true].map(|speculate| made / median(times.get_mut(&speculate).expect("times")));
        println!("{name:<12} {made:>8} {without:>10.1} {with:>10.1} {:>7.2}", with / without);
    }
    println!("{:?}", guessing.stats());
}
