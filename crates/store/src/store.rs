//! The store's directory: its format, its places, the meta lock.
//!
//! # The meta lock
//!
//! `lock` is held for milliseconds only, never over a download, an unpacking or a wait: shared by who
//! puts something in its place or protects it ([`Store::committing`]), exclusively by who decides what
//! is removed ([`Store::removing`]). Whoever holds it takes no other lock.

use crate::driver::Driver;
use crate::durable::Syncer;
use crate::overlay::Overlay;
use crate::pool::PoolDriver;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First line of `format`.
const FORMAT: &str = "carrack-store 2";
const FORMAT_BYTES_MAX: usize = 256;
/// The directories of a store, below its root.
const DIRECTORIES: [&str; 10] = [
    "tmp",
    "leases",
    "ingests",
    "blobs/sha256",
    "layers",
    "objects",
    "trees",
    "images",
    "lists",
    "snapshots",
];

/// An open store. Cheap to clone; holds no lock.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    driver: Box<dyn Driver>,
    syncer: Syncer,
}

/// The meta lock, shared: nothing is removed while it lives.
#[derive(Debug)]
pub(crate) struct Committing {
    _lock: File,
}

/// The meta lock, exclusive: nothing appears or is protected while it lives.
#[derive(Debug)]
pub(crate) struct Removing {
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
    /// The directory was made by another version.
    #[error(
        "{path} has the format {found:?}; this build knows {FORMAT:?}: use the version that made it, or another directory"
    )]
    Format {
        /// The store's root.
        path: PathBuf,
        /// First line of its `format`.
        found: String,
    },
    /// The directory was made for another driver.
    #[error(
        "{path} keeps its layers with the driver {found:?}, not {wanted:?}; use another directory for another driver"
    )]
    Driver {
        /// The store's root.
        path: PathBuf,
        /// The driver it was made for.
        found: String,
        /// The driver asked for, or what this build knows.
        wanted: String,
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

/// How layers are kept. A store has one driver for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverKind {
    /// A directory of files a layer, joined by overlayfs.
    Overlay,
    /// An EROFS image of names for each chain of layers, over contents kept once each.
    Pool,
    /// As `Pool`, and everything read of the contents is verified by the kernel (fs-verity).
    PoolVerity,
}

impl DriverKind {
    const ALL: [Self; 3] = [Self::Overlay, Self::Pool, Self::PoolVerity];

    /// Its name in `format` and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Pool => "pool",
            Self::PoolVerity => "pool-verity",
        }
    }

    fn driver(self, root: &Path) -> Box<dyn Driver> {
        match self {
            Self::Overlay => Box::new(Overlay::new(root)),
            Self::Pool => Box::new(PoolDriver::new(root, false)),
            Self::PoolVerity => Box::new(PoolDriver::new(root, true)),
        }
    }
}

impl std::str::FromStr for DriverKind {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        let found = Self::ALL.into_iter().find(|d| d.name() == name);
        found.ok_or_else(|| UnknownDriver(name.to_owned()))
    }
}

/// A driver's name that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no storage driver {0:?}; there are overlay, pool and pool-verity")]
pub struct UnknownDriver(String);

impl Store {
    /// Opens the store at `root`, makes it when it is missing, and removes what dead processes left.
    ///
    /// # Errors
    /// [`StoreError`] names the path.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(root, None)
    }

    /// As [`Store::open`], for a store that must have, or is made with, this driver.
    ///
    /// # Errors
    /// [`StoreError::Driver`] when the store was made with another one.
    pub fn open_with(
        root: impl Into<PathBuf>,
        driver: Option<DriverKind>,
    ) -> Result<Self, StoreError> {
        let root = root.into();
        let format = root.join("format");
        let text = match std::fs::read(&format) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                make(&root, driver.unwrap_or(DriverKind::Overlay))?;
                std::fs::read(&format).map_err(StoreError::io("read", &format))?
            }
            Err(e) => return Err(StoreError::io("read", format)(e)),
        };
        let found = known_format(&root, &text)?;
        if let Some(wanted) = driver.filter(|d| *d != found) {
            return Err(StoreError::Driver {
                path: root,
                found: found.name().to_owned(),
                wanted: wanted.name().to_owned(),
            });
        }
        let inner = Inner {
            driver: found.driver(&root),
            syncer: Syncer::default(),
            root,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.sweep();
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The driver that keeps the layers.
    pub fn driver(&self) -> &dyn Driver {
        &*self.inner.driver
    }

    /// A file of `tmp/` that has no name and goes away with its descriptor.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn unnamed_file(&self) -> Result<File, StoreError> {
        let directory = self.path("tmp");
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|e| StoreError::io("make a file in", &directory)(e.into()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    pub(crate) fn syncer(&self) -> &Syncer {
        &self.inner.syncer
    }

    /// Waits (milliseconds) until nobody removes anything.
    pub(crate) fn committing(&self) -> Result<Committing, StoreError> {
        let lock = self.meta_lock(FlockOperation::LockShared)?;
        Ok(Committing { _lock: lock })
    }

    /// Waits (milliseconds) until nobody commits or removes anything.
    pub(crate) fn removing(&self) -> Result<Removing, StoreError> {
        let lock = self.meta_lock(FlockOperation::LockExclusive)?;
        Ok(Removing { _lock: lock })
    }

    fn meta_lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.path("lock");
        let file = open_lock(&path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
            .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
        Ok(file)
    }
}

/// Opens a lock file, and makes it when it is missing.
pub(crate) fn open_lock(path: &Path) -> Result<File, StoreError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open", path))
}

/// Makes the directories, then `format`, which says that they are complete. Several processes may do
/// so at once.
fn make(root: &Path, driver: DriverKind) -> Result<(), StoreError> {
    for name in DIRECTORIES {
        let path = root.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(StoreError::io("make the directory", &path))?;
    }
    if let Some(name) = ["containers"].iter().find(|n| root.join(n).exists()) {
        return Err(StoreError::Format {
            path: root.to_owned(),
            found: format!("carrack-store 1 ({name}/)"),
        });
    }
    let empty = root.join("empty");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&empty)
        .map_err(StoreError::io("make the directory", &empty))?;
    let epoch = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let stamps = rustix::fs::Timestamps {
        last_access: epoch,
        last_modification: epoch,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        &empty,
        &stamps,
        rustix::fs::AtFlags::empty(),
    )
    .map_err(|e| StoreError::io("set the times of", &empty)(e.into()))?;
    let lock = root.join("lock");
    let held = open_lock(&lock)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&held, FlockOperation::LockExclusive))
        .map_err(|e| StoreError::io("lock", &lock)(e.into()))?;
    let format = root.join("format");
    if !format.exists() {
        let text = format!("{FORMAT}\ndriver {}\n", driver.name());
        crate::durable::write(&root.join("tmp/format"), &format, text.as_bytes())?;
    }
    drop(held);
    Ok(())
}

fn known_format(root: &Path, text: &[u8]) -> Result<DriverKind, StoreError> {
    let text = String::from_utf8_lossy(text.get(..FORMAT_BYTES_MAX).unwrap_or(text));
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != FORMAT {
        return Err(StoreError::Format {
            path: root.to_owned(),
            found: first.to_owned(),
        });
    }
    let driver = lines.next().and_then(|l| l.strip_prefix("driver "));
    let driver = driver.unwrap_or_default();
    driver.parse().map_err(|_| StoreError::Driver {
        path: root.to_owned(),
        found: driver.to_owned(),
        wanted: DriverKind::ALL.map(DriverKind::name).join(", "),
    })
}
