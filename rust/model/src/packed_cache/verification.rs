//! Compares all of a cached file with its checksums in the first seconds after a model was loaded from it.
//!
//! A load looks at a few chunks only, so that it is instant. The rest is read in the background, from the page cache, where the load has
//! just put it: a thread that works half of the time compares about 2 GB a second. If a chunk is not as it was written, the file is
//! deleted and the model refuses to run on: what it has computed so far may be wrong, what it would compute next is not.
use super::format::Header;
use super::store::chunk_is_sound;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// A file whose chunks are to be compared.
#[derive(Debug)]
pub(super) struct Chunks {
    pub file: File,
    pub header: Header,
    /// The real name.
    pub path: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    damaged: AtomicBool,
    done: AtomicBool,
}

/// The comparison of a file, which ends with this value.
#[derive(Debug)]
pub(crate) struct Verification {
    state: Arc<State>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Verification {
    /// Starts a thread; without one, the caller waits for the comparison.
    pub(super) fn start(chunks: Chunks) -> Verification {
        let (state, path, chunks) = (Arc::new(State::default()), chunks.path.clone(), Arc::new(chunks));
        let (of_thread, its_chunks) = (Arc::clone(&state), Arc::clone(&chunks));
        let thread = std::thread::Builder::new().name("fastllm-verify".to_owned()).spawn(move || its_chunks.compare(&of_thread)).ok();
        if thread.is_none() {
            chunks.compare(&state);
        }
        Verification { state, path, thread }
    }

    /// The file, if it is known to be damaged.
    pub fn damaged(&self) -> Option<&PathBuf> {
        self.state.damaged.load(Ordering::Relaxed).then_some(&self.path)
    }

    /// Whether all of the file was compared.
    pub fn is_done(&self) -> bool {
        self.state.done.load(Ordering::Acquire)
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends after the chunk that it is at; there is nothing to do about a panic here.
            let _ = thread.join();
        }
    }
}

impl Chunks {
    fn compare(&self, state: &State) {
        for index in 0..self.header.chunks.len() {
            let start = Instant::now();
            if state.stop.load(Ordering::Relaxed) {
                return;
            }
            if !chunk_is_sound(&self.file, &self.header, index) {
                state.damaged.store(true, Ordering::Relaxed);
                let _ = fs::remove_file(&self.path);
                break;
            }
            // Half of the time is for the model.
            std::thread::sleep(start.elapsed());
        }
        state.done.store(true, Ordering::Release);
    }
}
