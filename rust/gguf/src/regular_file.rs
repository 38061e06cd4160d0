//! Opening a file that is certainly a regular one, and reading it at positions.

use std::fs::{File, FileType, OpenOptions};
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

    /// Fills `buf` from `offset` on. `what` is for the error message.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64, what: impl FnOnce() -> String) -> Result<(), Error> {
        read_exact_at(&self.file, buf, offset).map_err(|source| Error::Io { path: self.path.clone(), doing: what(), source })
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
