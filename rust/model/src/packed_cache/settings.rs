//! Where the cache is and how large it may get.
use crate::ModelError;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Most bytes of all cached files together, unless something else is asked for.
pub const DEFAULT_LIMIT: u64 = 64 << 30;
/// Models below this size are packed again each time: that takes less than a tenth of a second.
const LEAST_BYTES: usize = 64 << 20;
/// More than the resolution of any file system's times (FAT: two seconds).
const SETTLED: Duration = Duration::from_secs(3);

/// How packed weights get from a file into a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped where that makes the model no slower and is safe, otherwise read: on Linux where the page cache has huge pages, and on file
    /// systems of this machine.
    #[default]
    Fastest,
    /// Mapped if the file system is of this machine: processes share the memory, also where that makes the model slower.
    Map,
    /// Read into memory of its own: nothing that happens to the file matters afterwards.
    Read,
}

/// Where the cache is and how large it may get.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The folder of the files.
    pub folder: PathBuf,
    /// Most bytes of all files together.
    pub limit: u64,
    /// How packed weights get from there into a process.
    pub access: Access,
    /// Models whose packed weights take less are not cached.
    pub least_bytes: usize,
    /// A model file must have been left alone for so long before it is packed for the cache: then its times tell every later change.
    pub settled: Duration,
}

impl CacheSettings {
    /// The default sizes, in a certain folder.
    pub fn in_folder(folder: PathBuf) -> CacheSettings {
        CacheSettings { folder, limit: DEFAULT_LIMIT, access: Access::Fastest, least_bytes: LEAST_BYTES, settled: SETTLED }
    }

    /// What the environment asks for: `FASTLLM_CACHE`, `FASTLLM_CACHE_LIMIT`, and those of [`folder`](Self::folder_from_env). `None` if it
    /// turns the cache off or there is no place for it.
    ///
    /// # Errors
    /// A variable has a value that cannot be.
    pub fn from_env() -> Result<Option<CacheSettings>, ModelError> {
        let access = match text("FASTLLM_CACHE").as_deref() {
            None | Some("1" | "on") => Some(Access::Fastest),
            Some("map") => Some(Access::Map),
            Some("read") => Some(Access::Read),
            Some("0" | "off") => None,
            Some(other) => return Err(ModelError::Option(format!("FASTLLM_CACHE is {other:?}, but must be 0, off, 1, on, map or read"))),
        };
        let limit = match text("FASTLLM_CACHE_LIMIT").as_deref() {
            None => DEFAULT_LIMIT,
            Some("off") => 0,
            Some(number) => number
                .parse()
                .map_err(|_| ModelError::Option(format!("FASTLLM_CACHE_LIMIT is {number:?}, but must be a number of bytes, or off")))?,
        };
        let chosen = access.filter(|_| limit > 0).zip(Self::folder_from_env());
        Ok(chosen.map(|(access, folder)| CacheSettings { limit, access, ..Self::in_folder(folder) }))
    }

    /// `FASTLLM_CACHE_DIR`, or `fastllm/packed` in the system's folder for caches: `XDG_CACHE_HOME` or `~/.cache`, on macOS
    /// `~/Library/Caches`. `None` on Windows, where a mapped file can be neither replaced nor deleted, and where there is no home.
    pub fn folder_from_env() -> Option<PathBuf> {
        if !cfg!(unix) {
            return None;
        }
        let path = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = path("FASTLLM_CACHE_DIR") {
            return Some(folder);
        }
        let below_home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let caches = match path("XDG_CACHE_HOME").filter(|path| path.is_absolute() && !cfg!(target_os = "macos")) {
            Some(caches) => caches,
            None => env::home_dir().filter(|home| home.is_absolute())?.join(below_home),
        };
        Some(caches.join("fastllm/packed"))
    }
}

/// A variable that is set and not empty.
fn text(name: &str) -> Option<String> {
    env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}
