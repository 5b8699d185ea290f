//! How layers are kept and joined: the interface that the drivers implement.
//!
//! ```text
//! tar entries ─► Unpack::entry ─► … ─► Unpack::finish   a layer below tmp/, complete
//!                                 ─► Driver::publish    under the meta lock (shared), before the rename
//! layer directories ─► Driver::mount ─► a mount that is attached nowhere
//! (layer, key) ─► Driver::contents ─► the bytes of one entry, for making the tar again
//! layers moved away ─► Driver::collect                  under the meta lock (exclusive)
//! ```
//!
//! A driver owns what it puts into a layer's directory beside `info.json`, `forms.json` and `recipe`,
//! which are the store's, and the store's directories named for it. It never decides when something
//! is removed.

use crate::lease::Lease;
use crate::overlay::OverlayError;
use crate::pool::ErofsError;
use crate::store::StoreError;
use crate::tar::Entry;
use crate::unpack::ExtractError;
use carrack_spec::Digest;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How layers are kept and joined.
pub trait Driver: Send + Sync + std::fmt::Debug {
    /// Its name, as in the store's `format`.
    fn name(&self) -> &'static str;

    /// Begins to unpack a layer into `at`, an empty directory.
    ///
    /// # Errors
    /// The directory cannot be used.
    fn unpacker(&self, at: &Path) -> Result<Box<dyn Unpack>, DriverError>;

    /// Puts what the layer at `at` shares with others in its place; called once, under the meta lock
    /// (shared), when the layer is durable and about to appear.
    ///
    /// # Errors
    /// The store's directory cannot be used.
    fn publish(&self, at: &Path) -> Result<(), DriverError> {
        let _ = at;
        Ok(())
    }

    /// Finds the bytes of the entries of the layer at `at` again.
    ///
    /// # Errors
    /// The layer is damaged.
    fn contents(&self, at: &Path) -> Result<Box<dyn Contents>, DriverError>;

    /// Begins to compare the layer at `at` with the entries of its archive: kinds, sizes, owners, modes,
    /// times, and that nothing else is there. (The bytes are compared by making the archive again.)
    ///
    /// # Errors
    /// The layer is damaged.
    fn verifier(&self, at: &Path) -> Result<Box<dyn Verify>, DriverError> {
        let _ = at;
        Ok(Box::new(NothingElse))
    }

    /// Mounts layers, attached nowhere.
    ///
    /// # Errors
    /// The kernel refuses.
    fn mount(&self, request: &MountRequest<'_>) -> Result<OwnedFd, DriverError>;

    /// Makes ready what a mount of these layers (lowest first; perhaps none) needs, so that it is quick,
    /// and tells owner and mode of their root directory. The layers are protected.
    ///
    /// # Errors
    /// A layer is damaged.
    fn prepare(&self, lease: &Lease, layers: &[Digest]) -> Result<RootAttributes, DriverError>;

    /// Compares what the driver keeps for the layers at `layers` with what it must be; calls `bad` with
    /// a layer and what is wrong with it.
    ///
    /// # Errors
    /// The store's directory cannot be used.
    fn check(
        &self,
        layers: &[PathBuf],
        bad: &mut dyn FnMut(&Path, String),
    ) -> Result<(), DriverError> {
        let _ = (layers, bad);
        Ok(())
    }

    /// True when layers share things outside their directories.
    fn shares(&self) -> bool {
        false
    }

    /// Bytes on disk of the layers at `layers`, with what they share counted once.
    ///
    /// # Errors
    /// The store's directory cannot be used.
    fn usage(&self, layers: &[PathBuf]) -> Result<u64, DriverError>;

    /// Moves what only removed layers used to names that `trash` gives; called under the meta lock
    /// (exclusive) after the layers were moved away. `kept` are the directories of all others.
    ///
    /// # Errors
    /// The store's directory cannot be used.
    fn collect(&self, kept: &[PathBuf], trash: &dyn Fn() -> PathBuf) -> Result<(), DriverError> {
        let _ = (kept, trash);
        Ok(())
    }
}

/// Takes the entries of one layer in the order of its archive, on a thread whose umask is zero.
pub trait Unpack: Send {
    /// Takes one entry. `content` yields exactly the bytes that the archive has for it
    /// ([`Entry::size`], or for a sparse file those of its map).
    ///
    /// Returns a key by which [`Contents::open`] finds the bytes later, whatever entries follow; all
    /// of `content` was read then. `None` when nothing was read of it.
    ///
    /// # Errors
    /// [`ExtractError`] names the entry.
    fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<Option<Vec<u8>>, DriverError>;

    /// Completes the layer. It need not be durable: the caller flushes the file system.
    ///
    /// # Errors
    /// The directory cannot be used.
    fn finish(self: Box<Self>) -> Result<(), DriverError>;
}

/// Owner and mode of a root directory. A writable layer takes those of the topmost layer: its own root
/// hides theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootAttributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl RootAttributes {
    /// Gives them to a directory.
    pub(crate) fn apply(self, path: &Path) -> Result<(), StoreError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(StoreError::io("set the owner of", path))?;
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(self.mode))
            .map_err(|e| StoreError::io("set the mode of", path)(e.into()))
    }
}

/// Finds the bytes of a layer's entries.
pub trait Contents: Send {
    /// The file of one entry. `key` is what [`Unpack::entry`] gave for it, `n` the number of keys that
    /// it had given before.
    ///
    /// # Errors
    /// The layer is damaged.
    fn open(&mut self, key: &[u8], n: u64) -> Result<File, DriverError>;
}

/// Compares a layer with the entries of its archive.
pub trait Verify: Send {
    /// The next entry.
    ///
    /// # Errors
    /// [`ExtractError`] names the entry.
    fn entry(&mut self, entry: &Entry) -> Result<(), DriverError>;

    /// What is not as the archive says, in words; nothing when all is well.
    ///
    /// # Errors
    /// The directory cannot be used.
    fn finish(self: Box<Self>) -> Result<Vec<String>, DriverError>;
}

/// For a driver that keeps nothing of an entry but its bytes.
struct NothingElse;

impl Verify for NothingElse {
    fn entry(&mut self, _entry: &Entry) -> Result<(), DriverError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>, DriverError> {
        Ok(Vec::new())
    }
}

/// What to mount.
#[derive(Debug)]
pub struct MountRequest<'a> {
    /// Whose leave it is to make temporary things.
    pub lease: &'a Lease,
    /// Diff ids of the layers, lowest first; perhaps none.
    pub layers: &'a [Digest],
    /// The writable layer; without it the mount is read-only.
    pub upper: Option<Upper<'a>>,
    /// User namespace by whose map the owners of files are shown.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// A writable layer.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// Directory of the changes.
    pub upper: &'a Path,
    /// Empty directory beside it, for the kernel.
    pub work: &'a Path,
    /// Gives up durability for speed.
    pub volatile: bool,
}

/// A driver that failed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A layer's archive cannot be unpacked.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// overlayfs cannot be mounted.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// An image of the driver `pool` cannot be mounted.
    #[error(transparent)]
    Erofs(#[from] ErofsError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer lacks what it must have.
    #[error("the layer at {path} is damaged: {what}; see `carrack system check`")]
    Damaged {
        /// Its directory.
        path: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
}
