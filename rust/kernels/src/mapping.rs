//! Weights in a file that is mapped into memory, which several processes share. Knows no file format.
#![allow(unsafe_code)]
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A whole file, read-only, mapped shared. It outlives the file's name: what is deleted stays until the last mapping of it is dropped.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps a file that belongs to this user and that no other user may write, or even read.
    ///
    /// Nobody may change what has been written to the file, or shorten it, while it is mapped: for this user's own programs that is a
    /// promise of whoever calls this.
    ///
    /// # Errors
    /// If it is not such a file, is empty, or cannot be mapped.
    pub fn of_private_file(file: &File) -> io::Result<Mapping> {
        check_private(file)?;
        // SAFETY: the bytes do not change. No other user can open the file for writing, as was just checked on the open file; this user's
        // own programs are `fastllm_model::packed_cache`, which writes to a file only before it maps it, and gets rid of it by unlinking.
        // Who may act as this user can do otherwise, as they could with the memory of this process.
        let map = unsafe { Mmap::map(file)? };
        if map.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Where the page cache has huge pages, the mapping does too. Others refuse, and nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Mapping { map })
    }

    /// All bytes; they begin on a page.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads a range into the page cache and enters its pages into this process's tables, as far as the system can do so at once. What
    /// it cannot is read on first use.
    ///
    /// # Errors
    /// If the device fails, or the file has become shorter: a later access would be a signal.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.end > self.map.len() || range.is_empty() {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        match self.map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len()) {
            // Linux before 5.14.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            done => return done,
        }
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        Ok(())
    }
}

/// Whether the file is this user's alone.
#[cfg(unix)]
fn check_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    // SAFETY: `geteuid` only returns a number.
    let user = unsafe { libc::geteuid() };
    if !metadata.is_file() || metadata.uid() != user || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a file of this user alone"));
    }
    Ok(())
}

/// Elsewhere it cannot be told.
#[cfg(not(unix))]
fn check_private(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
