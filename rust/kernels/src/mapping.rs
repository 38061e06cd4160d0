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

/// Samples that [`Mapping::is_as_fast_as_memory`] takes, and the bytes of each.
#[cfg(target_os = "linux")]
const SAMPLES: (usize, usize) = (16, 4 << 20);

impl Mapping {
    /// Whether reading it is as fast as reading memory of one's own: where that has huge pages, most of some samples here have too. The
    /// page cache of some file systems does, if the file was written or is read in large pieces.
    #[cfg(target_os = "linux")]
    pub fn is_as_fast_as_memory(&self) -> bool {
        if std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|modes| modes.contains("[never]")) {
            return true;
        }
        let (count, bytes) = SAMPLES;
        let last = self.map.len().saturating_sub(bytes);
        for i in 0..count {
            let at = (last / (count - 1) * i).next_multiple_of(bytes).min(last);
            if self.populate(at..self.map.len().min(at + bytes)).is_err() {
                return false;
            }
        }
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let (resident, huge) = resident_and_huge(&smaps, self.map.as_ptr() as usize);
        resident > 0 && huge >= resident / 2
    }

    /// Whether reading it is as fast as reading memory of one's own: other systems give neither huge pages.
    #[cfg(not(target_os = "linux"))]
    pub fn is_as_fast_as_memory(&self) -> bool {
        true
    }
}

/// KiB of the mapping at an address that are in memory, and in huge pages, in the words of `/proc/self/smaps`.
#[cfg(target_os = "linux")]
fn resident_and_huge(smaps: &str, address: usize) -> (u64, u64) {
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        Some(hex(start)?..hex(rest.split(' ').next()?)?)
    };
    let (mut inside, mut resident, mut huge) = (false, 0, 0);
    for line in smaps.lines() {
        if let Some(range) = range(line) {
            inside = range.contains(&address);
        } else if inside && let Some((name, value)) = line.split_once(':') {
            let kib = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            match name {
                "Rss" => resident += kib,
                "FilePmdMapped" | "ShmemPmdMapped" => huge += kib,
                _ => {}
            }
        }
    }
    (resident, huge)
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_counted_in_the_right_mapping() {
        let smaps = "7f0000000000-7f0000400000 r--s 00000000 fd:00 1 /a.packed\nSize: 4096 kB\nRss:   4096 kB\nFilePmdMapped:   2048 kB\n\
                     7f0000400000-7f0000800000 rw-p 00000000 00:00 0 \nRss:   100 kB\nAnonHugePages: 8 kB\nVmFlags: rd wr\n";
        assert_eq!(resident_and_huge(smaps, 0x7f00_0000_0000), (4096, 2048));
        assert_eq!(resident_and_huge(smaps, 0x7f00_0040_0000), (100, 0));
        assert_eq!(resident_and_huge(smaps, 0x1000), (0, 0));
        assert_eq!(resident_and_huge("", 0), (0, 0));
    }
}
