//! What differs between systems: private files, space, file systems whose files may vanish.
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that a disk has in all, and that this user may still use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub total: u64,
    pub available: u64,
}

#[cfg(unix)]
mod unix {
    use super::{File, Path, PathBuf, Space, io};
    use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
    use rustix::io::Errno;
    use std::fs::{DirBuilder, OpenOptions, Permissions};
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    /// The real path of a folder that belongs to this user and that no other may write to; it is made where it is missing.
    pub fn private_folder(path: &Path, create: bool) -> io::Result<PathBuf> {
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let path = path.canonicalize()?;
        let metadata = path.metadata()?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a folder of this user alone"));
        }
        Ok(path)
    }

    /// Opens a regular file, no link.
    pub fn open(path: &Path) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Makes a file that nobody else can open.
    pub fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    /// Takes this user's own right to write away: a guard against accidents.
    pub fn protect(file: &File) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(0o400))
    }

    /// Makes the file this long, with blocks of the disk where the file system can promise them.
    pub fn reserve(file: &File, len: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            done => done?,
        }
        file.set_len(len)
    }

    pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(bytes, offset)
    }

    /// Makes names in a folder last.
    pub fn sync_folder(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub fn space(folder: &Path) -> io::Result<Space> {
        let s = statvfs(folder)?;
        Ok(Space { total: s.f_blocks.saturating_mul(s.f_frsize), available: s.f_bavail.saturating_mul(s.f_frsize) })
    }

    /// Whether a file of this folder stays readable for who has it open, also when somebody on another machine deletes it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn is_local(folder: &Path) -> io::Result<bool> {
        // NFS, SMB (three generations), FUSE, 9P, Ceph, AFS (two), Coda, Lustre, GPFS, OCFS2, GFS2.
        const REMOTE: [u64; 14] = [
            0x6969,
            0x517b,
            0xff53_4d42,
            0xfe53_4d42,
            0x6573_5546,
            0x0102_1997,
            0x00c3_6400,
            0x5346_414f,
            0x6b41_4653,
            0x7375_7245,
            0x0bd0_0bd0,
            0x4750_4653,
            0x7461_636f,
            0x0116_1970,
        ];
        // The type of the field differs between architectures; magic numbers have 32 bits.
        let magic = rustix::fs::statfs(folder)?.f_type as u64 & 0xffff_ffff;
        Ok(!REMOTE.contains(&magic))
    }

    #[cfg(target_vendor = "apple")]
    pub fn is_local(folder: &Path) -> io::Result<bool> {
        /// `MNT_LOCAL` of `<sys/mount.h>`.
        const LOCAL: u32 = 0x1000;
        Ok(rustix::fs::statfs(folder)?.f_flags & LOCAL != 0)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    pub fn is_local(_: &Path) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(unix)]
pub(super) use unix::*;

/// No cache: [`private_folder`] is what everything else begins with.
#[cfg(not(unix))]
mod none {
    use super::{File, Path, PathBuf, Space, io};

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn private_folder(_: &Path, _: bool) -> io::Result<PathBuf> {
        unsupported()
    }
    pub fn open(_: &Path) -> io::Result<File> {
        unsupported()
    }
    pub fn create(_: &Path) -> io::Result<File> {
        unsupported()
    }
    pub fn protect(_: &File) -> io::Result<()> {
        unsupported()
    }
    pub fn reserve(_: &File, _: u64) -> io::Result<()> {
        unsupported()
    }
    pub fn write_all_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
        unsupported()
    }
    pub fn read_exact_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
        unsupported()
    }
    pub fn sync_folder(_: &Path) -> io::Result<()> {
        unsupported()
    }
    pub fn space(_: &Path) -> io::Result<Space> {
        unsupported()
    }
    pub fn is_local(_: &Path) -> io::Result<bool> {
        unsupported()
    }
}

#[cfg(not(unix))]
pub(super) use none::*;
