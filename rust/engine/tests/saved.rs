//! States in files: what comes back, and what is refused.

mod common;

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use common::*;
use fastllm_engine::{Engine, Failure, Request, StateError, StateReader, StateWriter, SubmitError};

const IDENTITY: [u8; 32] = [7; 32];

#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn save(engine: &Engine, ids: &[u32]) -> Vec<u8> {
    let file = File::default();
    let writer = StateWriter::new(file.clone(), &IDENTITY, ids).unwrap();
    let outcome = collect(&engine.submit_state(ids.to_vec(), Some(writer), &no_salt(), None).unwrap());
    assert_eq!(outcome.finished().usage.prompt_tokens, ids.len());
    file.0.lock().unwrap().clone()
}

fn open(bytes: &[u8]) -> Result<StateReader, StateError> {
    StateReader::new(Cursor::new(bytes.to_vec()), bytes.len() as u64, &IDENTITY)
}

fn no_salt() -> Arc<str> {
    Arc::from("")
}

fn ids() -> Vec<u32> {
    (0..123).map(|i| i * 7 % VOCAB as u32).collect()
}

#[test]
fn a_restored_state_is_not_computed_again() {
    let bytes = save(&start(Mock::default()), &ids());
    let engine = start(Mock::default());
    let reader = open(&bytes).unwrap();
    assert_eq!(reader.tokens(), ids());
    collect(&engine.submit_saved(reader, &no_salt(), None).unwrap()).finished();
    assert_eq!(engine.stats().computed_tokens, 0);
    let prompt = [ids(), vec![1, 2, 3]].concat();
    let outcome = collect(&engine.submit(Request { max_tokens: Some(5), ..request(&prompt) }).unwrap());
    assert_eq!(outcome.finished().usage.cached_tokens, 123);
    let alone = start(Mock::default());
    let sampling = fastllm_engine::sampling::SamplingParams { seed: Some(1), ..Default::default() };
    let again = |engine: &Engine| {
        collect(&engine.submit(Request { max_tokens: Some(9), sampling: sampling.clone(), ..request(&prompt) }).unwrap()).ids()
    };
    assert_eq!(again(&engine), again(&alone));
}

#[test]
fn a_state_is_computed_once_for_those_that_follow() {
    let engine = start(Mock::default());
    collect(&engine.submit_state(ids(), None, &no_salt(), None).unwrap()).finished();
    assert_eq!(engine.stats().computed_tokens, 123);
    let prompt = [ids(), vec![4]].concat();
    let outcome = collect(&engine.submit(Request { max_tokens: Some(1), ..request(&prompt) }).unwrap());
    assert_eq!((outcome.finished().usage.cached_tokens, engine.stats().computed_tokens), (123, 124));
}

/// What becomes of a file: an error when it is opened, or when it is read.
fn refusal(bytes: &[u8]) -> String {
    let engine = start(Mock::default());
    match open(bytes) {
        Err(error) => error.to_string(),
        Ok(reader) => match engine.submit_saved(reader, &no_salt(), None) {
            Err(error) => error.to_string(),
            Ok(handle) => {
                let outcome = collect(&handle);
                eventually("the place is free", || engine.stats().running == 0);
                assert_eq!(collect(&engine.submit(Request { max_tokens: Some(2), ..request(&[1]) }).unwrap()).ids().len(), 2);
                outcome.failure.unwrap_or_else(|| panic!("{} bytes were accepted", bytes.len())).to_string()
            }
        },
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed() {
    let bytes = save(&start(Mock::default()), &ids());
    for len in (0..bytes.len()).step_by(3) {
        refusal(&bytes[..len]);
    }
    for at in (0..bytes.len()).step_by(5) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        refusal(&damaged);
    }
    refusal(&[&bytes[..], &[0]].concat());
}

#[test]
fn other_models_and_versions_are_told_apart() {
    let mut bytes = save(&start(Mock::default()), &ids());
    let other = StateReader::new(Cursor::new(bytes.clone()), bytes.len() as u64, &[8; 32]).err().unwrap();
    assert!(matches!(other, StateError::Other(what) if what.contains("another model")));
    bytes[16] += 1;
    assert!(refusal(&bytes).contains("another version"));
    // Lengths that no file has.
    bytes[16] -= 1;
    bytes[52..60].fill(0xff);
    assert!(refusal(&bytes).contains("cut off"));
}

#[test]
fn a_full_disk_ends_the_request_alone() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| std::io::Error::other("no space left"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let engine = start(Mock::default());
    let running = engine.submit(Request { max_tokens: Some(300), ..request(&[1]) }).unwrap();
    let writer = StateWriter::new(Full(700), &IDENTITY, &ids()).unwrap();
    let outcome = collect(&engine.submit_state(ids(), Some(writer), &no_salt(), None).unwrap());
    assert!(matches!(outcome.failure, Some(Failure::State(StateError::Io(_)))));
    assert_eq!(collect(&running).ids().len(), 300);
    assert_eq!(engine.submit_state(vec![], None, &no_salt(), None).unwrap_err(), SubmitError::EmptyPrompt);
}
