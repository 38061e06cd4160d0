//! Opening a file that is certainly a regular one, and reading it at positions.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A regular file and the length it had when it was opened.
#[derive(Debug)]
pub(crate) struct RegularFile {
    file: File,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// What tells one state of a file from another: where the file system keeps the time of change, no later change of the file's contents
/// leaves it as it is, but for one within the resolution of that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub len: u64,
    /// Nanoseconds of the last modification since 1970, which anyone may set.
    pub modified: i128,
    /// Nanoseconds of the last change of contents or attributes since 1970, which the file system sets. Elsewhere than on Unix: `modified`.
    pub changed: i128,
}

impl FileStamp {
    #[cfg(unix)]
    fn new(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(rest));
        Self {
            len: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    fn new(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = since.and_then(|t| i128::try_from(t.as_nanos()).ok()).unwrap_or(0);
        Self { len: metadata.len(), modified, changed: modified }
    }
}

/// Opens a regular file for reading, without waiting for a writer of a FIFO; its length.
///
/// # Errors
/// If it cannot be opened, or is a directory or a device.
pub fn open_regular(path: impl AsRef<Path>) -> Result<(File, u64), Error> {
    RegularFile::open(path.as_ref()).map(|opened| (opened.file, opened.len))
}

impl RegularFile {
    /// Opens without waiting for a writer of a FIFO, and looks at what was opened rather than at what the path names a moment later.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |doing: &str| {
            let (path, doing) = (path.to_owned(), doing.to_owned());
            |source| Error::Io { path, doing, source }
        };
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
        // Windows refuses to open a directory; the error should say that it is one.
        #[cfg(windows)]
        if path.is_dir() {
            return Err(Error::NotRegularFile { path: path.to_owned(), kind: "a directory" });
        }
        let file = options.open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("stat"))?;
        if !metadata.is_file() {
            return Err(Error::NotRegularFile { path: path.to_owned(), kind: kind(metadata.file_type()) });
        }
        Ok(Self { file, path: path.to_owned(), len: metadata.len() })
    }

    /// Length and times, as they are now.
    pub(crate) fn stamp(&self) -> Result<FileStamp, Error> {
        let failed = |source| Error::Io { path: self.path.clone(), doing: "stat".to_owned(), source };
        self.file.metadata().map(|m| FileStamp::new(&m)).map_err(failed)
    }

    /// Fills `buf` from `offset` on. `what` is for the error message.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64, what: impl FnOnce() -> String) -> Result<(), Error> {
        let shrunk = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "the file has become shorter since it was opened"),
            _ => e,
        };
        let failed = |e| Error::Io { path: self.path.clone(), doing: what(), source: shrunk(e) };
        read_exact_at(&self.file, buf, offset).map_err(failed)
    }

    /// Puts the path around an error in the contents.
    pub(crate) fn inside(&self, error: Error) -> Error {
        match error {
            Error::Io { .. } => error,
            _ => Error::InFile { path: self.path.clone(), source: Box::new(error) },
        }
    }
}

#[cfg(unix)]
fn kind(file_type: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match file_type {
        t if t.is_dir() => "a directory",
        t if t.is_fifo() => "a FIFO",
        t if t.is_char_device() || t.is_block_device() => "a device",
        t if t.is_socket() => "a socket",
        _ => "a special file",
    }
}

#[cfg(not(unix))]
fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() { "a directory" } else { "a special file" }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    use crate::convert::len_u64;
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = buf.get_mut(n..).unwrap_or_default();
                offset = offset.saturating_add(len_u64(n));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
