//! The store's directory, its locks and its temporary files.

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The directories of a store, below its root.
const DIRECTORIES: [&str; 5] = ["tmp", "blobs/sha256", "layers", "images", "containers"];

/// An open store. Cheap to clone; holds no lock.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Leave to use `tmp/` and to rely on layers; released on drop.
#[derive(Debug)]
pub struct Shared {
    _lock: File,
}

/// Leave to remove images and layers; released on drop.
#[derive(Debug)]
pub struct Exclusive {
    _lock: File,
}

/// The store's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory or file of the store cannot be made or opened.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl Store {
    /// Opens the store at `root`, makes it when it is missing, and empties `tmp/` when nobody else
    /// uses the store.
    ///
    /// # Errors
    /// [`StoreError`] names the path.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for name in DIRECTORIES {
            let path = store.root.join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(StoreError::io("make the directory", &path))?;
        }
        if let Some(_alone) = store.lock(FlockOperation::NonBlockingLockExclusive)? {
            store.empty_tmp();
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until nobody removes anything.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn share(&self) -> Result<Shared, StoreError> {
        let lock = self.wait_lock(FlockOperation::LockShared)?;
        Ok(Shared { _lock: lock })
    }

    /// Waits until nobody uses the store.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn exclude(&self) -> Result<Exclusive, StoreError> {
        let lock = self.wait_lock(FlockOperation::LockExclusive)?;
        Ok(Exclusive { _lock: lock })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A name in `tmp/` that nobody else uses; the holder of a [`Shared`] may make it.
    pub(crate) fn temporary(&self, _held: &Shared) -> Temporary {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{n}", std::process::id());
        Temporary {
            path: self.path("tmp").join(name),
            keep: false,
        }
    }

    fn wait_lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.path("lock");
        loop {
            match self.lock(operation)? {
                Some(file) => return Ok(file),
                None => log::debug!("waiting for {}", path.display()),
            }
        }
    }

    fn lock(&self, operation: FlockOperation) -> Result<Option<File>, StoreError> {
        let path = self.path("lock");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(StoreError::io("lock", &path)(error.into())),
        }
    }

    /// Best effort: what cannot be removed is tried again by the next process.
    fn empty_tmp(&self) {
        let Ok(entries) = std::fs::read_dir(self.path("tmp")) else {
            return;
        };
        for entry in entries.flatten() {
            if let Err(error) = remove_path(&entry.path()) {
                log::warn!(
                    "cannot remove the leftover {}: {error}",
                    entry.path().display()
                );
            }
        }
    }
}

/// Something in `tmp/` that is removed on drop unless it was moved away.
pub(crate) struct Temporary {
    path: PathBuf,
    keep: bool,
}

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It was moved to its place.
    pub(crate) fn moved(mut self) {
        self.keep = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep
            && self.path.symlink_metadata().is_ok()
            && let Err(error) = remove_path(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes a file or a tree, without following links.
pub(crate) fn remove_path(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

/// Writes `bytes` at `path` so that a crash leaves the old or the new contents: temporary file, fsync,
/// rename, fsync of the directory.
pub(crate) fn write_durably(
    temporary: Temporary,
    path: &Path,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let at = temporary.path().to_owned();
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&at)
        .map_err(StoreError::io("make", &at))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io("write", &at))?;
    std::fs::rename(&at, path).map_err(StoreError::io("put in place", path))?;
    temporary.moved();
    path.parent().map_or(Ok(()), sync_directory)
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(|fd| rustix::fs::fsync(&fd))
        .map_err(|e| StoreError::io("flush the directory", path)(e.into()))
}
