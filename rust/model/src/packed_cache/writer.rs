//! A new file: written under a name of its own, given its real one when all of it is on the disk.
use super::format::{CHUNK, Header, chunk_sum};
use super::os;
use super::store::Store;
use fastllm_kernels::pool::Pool;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A name that is deleted unless the file gets its real one.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that is being written. Its lock tells others that somebody does.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    header: Header,
    file: File,
    name: Unfinished,
    /// Whole chunks that were written.
    written: usize,
    /// What follows them: less than a chunk.
    pending: Vec<u8>,
}

impl Writer {
    /// Begins a file. `None` if there is no room, or somebody else is writing the same.
    pub fn new(store: &Store, header: Header) -> io::Result<Option<Writer>> {
        if store.clean_up(Some(&header.key))? || !store.make_room(header.len)? {
            return Ok(None);
        }
        let path = store.unfinished_path(&header.key);
        let file = os::create(&path)?;
        let name = Unfinished { path, renamed: false };
        file.try_lock()?;
        os::reserve(&file, header.len)?;
        Ok(Some(Writer { store: store.clone(), header, file, name, written: 0, pending: Vec::with_capacity(CHUNK) }))
    }

    /// Appends the next matrix that the header lists.
    pub fn append(&mut self, mut bytes: &[u8], pool: &Pool) -> io::Result<()> {
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(CHUNK - self.pending.len()));
            self.pending.extend(head);
            bytes = rest;
            self.flush_pending(CHUNK)?;
        }
        let (whole, rest) = bytes.as_chunks::<CHUNK>();
        let mut results: Vec<io::Result<()>> = Vec::new();
        results.resize_with(whole.len(), || Ok(()));
        let (first, sums) = (self.written, self.header.chunks.get_mut(self.written..).unwrap_or_default());
        let (file, data) = (&self.file, self.header.data);
        let mut tasks: Vec<_> = whole.iter().zip(sums).zip(&mut results).collect();
        pool.for_each_mut(&mut tasks, |i, ((chunk, sum), result)| {
            **sum = chunk_sum(*chunk);
            **result = os::write_all_at(file, *chunk, data + ((first + i) * CHUNK) as u64);
        });
        results.into_iter().collect::<io::Result<()>>()?;
        self.written += whole.len();
        self.pending.extend(rest);
        // The next matrix begins on a page.
        self.pending.resize(self.pending.len().next_multiple_of(4096), 0);
        self.flush_pending(CHUNK)
    }

    /// Writes what is pending if it is at least so much.
    fn flush_pending(&mut self, least: usize) -> io::Result<()> {
        if self.pending.len() < least {
            return Ok(());
        }
        if let Some(sum) = self.header.chunks.get_mut(self.written) {
            *sum = chunk_sum(&self.pending);
        }
        os::write_all_at(&self.file, &self.pending, self.header.data + (self.written * CHUNK) as u64)?;
        self.written += 1;
        self.pending.clear();
        Ok(())
    }

    /// Writes the rest, and the header.
    pub fn finish(mut self) -> io::Result<Written> {
        self.flush_pending(1)?;
        debug_assert_eq!(self.written, self.header.chunks.len());
        os::write_all_at(&self.file, &self.header.encode(), 0)?;
        Ok(Written { store: self.store, header: self.header, file: self.file, name: self.name })
    }
}

/// A complete file without its real name.
#[derive(Debug)]
pub(super) struct Written {
    store: Store,
    pub header: Header,
    pub file: File,
    name: Unfinished,
}

impl Written {
    /// Waits for the disk, then gives the file its real name: one that a crash has cut short never has it.
    fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        os::protect(&self.file)?;
        let path = self.store.packed_path(&self.header.key);
        fs::rename(&self.name.path, &path)?;
        self.name.renamed = true;
        os::sync_folder(&self.store.folder)?;
        self.store.remove_superseded(&self.header, &path)
    }

    /// Publishes in a thread of its own; [`finish`] waits for it. What fails leaves no file.
    pub fn publish_in_background(self) {
        count(|n| n + 1);
        let publish = move || {
            let _ = self.publish();
            count(|n| n.saturating_sub(1));
        };
        if std::thread::Builder::new().name("fastllm-cache".to_owned()).spawn(publish).is_err() {
            count(|n| n.saturating_sub(1));
        }
    }
}

/// Threads that publish: their number, and in the upper half the process that they are of. A forked child has none. No lock, which another
/// thread might hold while this one forks.
static PENDING: AtomicU64 = AtomicU64::new(0);
/// How often [`finish`] looks.
const POLL: Duration = Duration::from_millis(5);

/// The number of this process in the value of `PENDING`.
fn own(pending: u64) -> u64 {
    if pending >> 32 == u64::from(std::process::id()) { pending & 0xffff_ffff } else { 0 }
}

fn count(change: impl Fn(u64) -> u64) {
    let process = u64::from(std::process::id()) << 32;
    // The closure never refuses.
    let _ = PENDING.fetch_update(Ordering::AcqRel, Ordering::Acquire, |pending| Some(process | change(own(pending))));
}

/// Waits until the files that this process has written for the cache are on the disk, but not longer than `timeout`; whether they are.
/// A process that ends before has cached nothing.
pub fn finish(timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    while own(PENDING.load(Ordering::Acquire)) > 0 {
        let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
        std::thread::sleep(left.min(POLL));
    }
    true
}
