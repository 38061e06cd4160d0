//! The folder: names, finding, making room, cleaning up.
use super::format::{FIXED, Header, Problem};
use super::key::Hash;
use super::os;
use super::settings::CacheSettings;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// What is left free on the disk: a tenth of it, but not more than this.
const FREE: u64 = 16 << 30;
/// Files that nobody will look for any more, as it seems, are deleted after so long without use: another version may be in use too, and
/// the path of a model may stand for several, in containers.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);
/// Chunks of a file that are compared with their checksums whenever it is opened.
const CHECKED: usize = 8;
/// Bytes of a chunk that are read at once.
const PIECE: usize = 16 << 10;
const PACKED: &str = ".packed";
const UNFINISHED: &str = ".tmp";

/// The folder of the cache.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub folder: PathBuf,
    limit: u64,
}

/// A file of the folder.
#[derive(Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    /// Somebody is writing it, or has died while doing so.
    pub unfinished: bool,
    pub bytes: u64,
    pub used: SystemTime,
}

/// Letters that begin the names of the files of a model.
fn stem(key: &Hash) -> String {
    key.iter().take(16).fold(String::new(), |stem, byte| format!("{stem}{byte:02x}"))
}

/// Whether a name is one of ours, and of an unfinished file.
fn ours(name: &str) -> Option<bool> {
    let (stem, rest) = name.split_at_checked(32)?;
    let hex = stem.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match rest {
        _ if !hex => None,
        PACKED => Some(false),
        _ => (rest.starts_with('.') && rest.ends_with(UNFINISHED)).then_some(true),
    }
}

/// The header of an open file.
pub(super) fn read_header(file: &File) -> Result<Header, Problem> {
    let read = |bytes: &mut [u8]| os::read_exact_at(file, bytes, 0).map_err(|_| Problem::Damaged);
    let mut fixed = [0; FIXED];
    read(&mut fixed)?;
    let len = file.metadata().map_err(|_| Problem::Damaged)?.len();
    let header_len = Header::length(&fixed)?;
    if header_len as u64 > len {
        return Err(Problem::Damaged);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(header_len).map_err(|_| Problem::Memory)?;
    bytes.resize(header_len, 0);
    read(&mut bytes)?;
    Header::decode(&bytes, len)
}

/// Whether a chunk is as it was written. Takes little memory, which may be short.
pub(super) fn chunk_is_sound(file: &File, header: &Header, index: usize) -> bool {
    let (at, len) = header.chunk(index);
    let (mut sum, mut piece) = (Xxh3::new(), [0; PIECE]);
    for first in (0..len).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(len - first)];
        if os::read_exact_at(file, piece, at + first as u64).is_err() {
            return false;
        }
        sum.update(piece);
    }
    header.chunks.get(index) == Some(&sum.digest())
}

impl Store {
    /// The folder, which is made with `create`.
    pub fn open(settings: &CacheSettings, create: bool) -> io::Result<Store> {
        let folder = os::private_folder(&settings.folder, create)?;
        Ok(Store { folder, limit: settings.limit })
    }

    pub fn packed_path(&self, key: &Hash) -> PathBuf {
        self.folder.join(stem(key) + PACKED)
    }

    /// A name that nobody has used.
    pub fn unfinished_path(&self, key: &Hash) -> PathBuf {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.folder.join(format!("{}.{}-{}{UNFINISHED}", stem(key), std::process::id(), now.as_nanos()))
    }

    /// The file of a model, checked as far as that is quick. What is damaged is deleted.
    pub fn find(&self, key: &Hash) -> Option<(File, Header)> {
        let path = self.packed_path(key);
        let file = os::open(&path).ok()?;
        match read_header(&file) {
            Ok(header) if header.key == *key && looks_sound(&file, &header) => {
                // Who was used last is deleted last. Elsewhere than in our own folder it may not be allowed.
                let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
                Some((file, header))
            }
            Err(Problem::Memory) => None,
            _ => {
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// All files of the cache.
    pub fn files(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let Some(unfinished) = entry.file_name().to_str().and_then(ours) else { continue };
            // What has just been deleted by another process, and what is no file.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Found { path: entry.path(), unfinished, bytes: metadata.len(), used });
            }
        }
        Ok(found)
    }

    /// Deletes what dead processes have left; whether a living one is writing the file of `key` (or, without one, any).
    pub fn clean_up(&self, key: Option<&Hash>) -> io::Result<bool> {
        let stem = key.map(stem);
        let mut busy = false;
        for found in self.files()?.iter().filter(|f| f.unfinished) {
            let name = found.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Ok(file) = os::open(&found.path) else { continue };
            match file.try_lock() {
                Ok(()) => drop(fs::remove_file(&found.path)),
                Err(_) => busy |= stem.as_ref().is_none_or(|stem| name.starts_with(stem.as_str())),
            }
        }
        Ok(busy)
    }

    /// Deletes the files that were used least recently, until `bytes` more fit. Deletes nothing if they cannot.
    pub fn make_room(&self, bytes: u64) -> io::Result<bool> {
        let mut files = self.files()?;
        let space = os::space(&self.folder)?;
        let all: u64 = files.iter().map(|f| f.bytes).sum();
        let least_free = (space.total / 10).min(FREE);
        // What may be in the cache in all, this file included.
        let limit = self.limit.min(all.saturating_add(space.available).saturating_sub(least_free));
        let fixed: u64 = files.iter().filter(|f| f.unfinished).map(|f| f.bytes).sum();
        if fixed.saturating_add(bytes) > limit {
            return Ok(false);
        }
        files.retain(|f| !f.unfinished);
        files.sort_by_key(|f| f.used);
        let mut left = all;
        for file in files {
            if left.saturating_add(bytes) <= limit {
                break;
            }
            fs::remove_file(&file.path)?;
            left = left.saturating_sub(file.bytes);
        }
        Ok(true)
    }

    /// Deletes what nobody will look for again: packed from an earlier state of the same model file, by another version, or damaged.
    pub fn remove_superseded(&self, header: &Header, path: &Path) -> io::Result<()> {
        for found in self.files()?.iter().filter(|f| !f.unfinished && f.path != path) {
            let old = found.used.elapsed().is_ok_and(|unused| unused > OLD);
            let superseded = match os::open(&found.path).map(|file| read_header(&file)) {
                Ok(Ok(other)) => old && other.source == header.source,
                Ok(Err(Problem::Damaged)) => true,
                Ok(Err(Problem::Version)) => old,
                Ok(Err(Problem::Memory)) | Err(_) => false,
            };
            if superseded {
                fs::remove_file(&found.path)?;
            }
        }
        Ok(())
    }
}

/// Compares a few chunks with their checksums, the first and the last among them.
fn looks_sound(file: &File, header: &Header) -> bool {
    let last = header.chunks.len().saturating_sub(1);
    let mut picked: Vec<usize> = (0..CHECKED).map(|i| last * i / (CHECKED - 1)).collect();
    picked.dedup();
    header.chunks.is_empty() || picked.into_iter().all(|i| chunk_is_sound(file, header, i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let stem = stem(&[0xab; 32]);
        assert_eq!(ours(&format!("{stem}.packed")), Some(false));
        assert_eq!(ours(&format!("{stem}.12-34.tmp")), Some(true));
        let long = format!("é{stem}.packed");
        for other in ["", ".packed", "model.gguf", "0123.packed", &format!("{stem}x.packed"), &format!("{stem}.txt"), &long, &stem] {
            assert_eq!(ours(other), None, "{other}");
        }
    }
}
