//! The writable layer of a container: `snapshots/ID/` with `record.json`, `upper/` and `work/`.
//!
//! The directory is made under `tmp/` and appears by one rename, so it is complete or absent. Its
//! record keeps the image's layers from being removed.

use crate::driver::{DriverError, MountRequest, RootAttributes, Upper};
use crate::images::{ImageError, ImageRecord};
use crate::overlay::open_mapped;
use crate::store::{Store, StoreError};
use carrack_spec::image::parse;
use carrack_spec::{ContainerId, Digest};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const RECORD_VERSION: u32 = 2;

/// What a container's writable layer is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    version: u32,
    /// Id of the image.
    pub image: Digest,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Who keeps the container's run-time state: a directory with one entry a container. A writable
    /// layer without such an entry belongs to nobody any more.
    pub owner: PathBuf,
}

/// The writable layer of one container.
#[derive(Debug, Clone)]
pub struct Snapshot {
    store: Store,
    path: PathBuf,
    layers: Vec<Digest>,
}

/// A writable layer that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The name is taken.
    #[error("the container name {0:?} is in use; remove that container or choose another name")]
    Exists(String),
    /// A layer of the image is gone.
    #[error("layer {0} is missing from the store; load the image again")]
    MissingLayer(Digest),
    /// The layers cannot be mounted.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Snapshot {
    /// The directory, to be removed with the container.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts the container's root file system, attached nowhere. `volatile` gives up durability of
    /// the writable layer for speed, for a container that is removed when it ends. With a user
    /// namespace in `idmap` the owners of the image's files are shown by its map; the writable layer has
    /// those that the container's users really are.
    ///
    /// # Errors
    /// [`DriverError`] carries the kernel's message.
    pub fn mount(
        &self,
        volatile: bool,
        idmap: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, SnapshotError> {
        let lease = self.store.lease()?;
        let upper = self.path.join("upper");
        if let Some(userns) = idmap {
            let root = self.store.driver().prepare(&lease, &self.layers)?;
            shift_root(&upper, root, userns)?;
        }
        Ok(self.store.driver().mount(&MountRequest {
            lease: &lease,
            layers: &self.layers,
            upper: Some(Upper {
                upper: &upper,
                work: &self.path.join("work"),
                volatile,
            }),
            idmap,
        })?)
    }
}

/// Gives the root of a writable layer, whose owner is still that in the image, to the one that the user
/// namespace's map shows for it.
fn shift_root(
    upper: &Path,
    root: RootAttributes,
    userns: BorrowedFd<'_>,
) -> Result<(), SnapshotError> {
    let look = |path: &Path| path.metadata().map_err(StoreError::io("inspect", path));
    let now = look(upper)?;
    if (now.uid(), now.gid()) != (root.uid, root.gid) {
        return Ok(());
    }
    let mapped = open_mapped(upper, userns).map_err(DriverError::from)?;
    let shown = look(Path::new(&format!("/proc/self/fd/{}", mapped.as_raw_fd())))?;
    std::os::unix::fs::chown(upper, Some(shown.uid()), Some(shown.gid()))
        .map_err(StoreError::io("set the owner of", upper))?;
    Ok(())
}

impl Store {
    /// Makes the writable layer of container `id` on the layers of `image`; `owner` is kept in its record.
    ///
    /// # Errors
    /// [`SnapshotError::Exists`] when there is one of that name.
    pub fn create_snapshot(
        &self,
        id: &ContainerId,
        image: &ImageRecord,
        owner: &Path,
    ) -> Result<Snapshot, SnapshotError> {
        let to = self.snapshot_path(id);
        let lease = self.lease()?;
        if let Some(missing) = lease.protect_layers(&image.layers)? {
            return Err(SnapshotError::MissingLayer(missing.clone()));
        }
        let root = self.driver().prepare(&lease, &image.layers)?;
        let at = lease.temporary();
        for name in ["", "upper", "work"] {
            let path = at.join(name);
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))
                .map_err(|e| StoreError::io("make the directory", &path)(e.into()))?;
        }
        let record = SnapshotRecord {
            version: RECORD_VERSION,
            image: image.id.clone(),
            layers: image.layers.clone(),
            owner: owner.to_owned(),
        };
        let path = at.join("record.json");
        let text =
            serde_json::to_vec(&record).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        std::fs::write(&path, text).map_err(StoreError::io("write", &path))?;
        root.apply(&at.join("upper"))?;
        let held = self.committing()?;
        let cwd = rustix::fs::CWD;
        let moved =
            rustix::fs::renameat_with(cwd, &at, cwd, &to, rustix::fs::RenameFlags::NOREPLACE);
        drop(held);
        match moved {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(SnapshotError::Exists(id.to_string())),
            Err(error) => return Err(StoreError::io("put in place", to)(error.into()).into()),
        }
        Ok(Snapshot {
            store: self.clone(),
            path: to,
            layers: image.layers.clone(),
        })
    }

    /// Directory of a container's writable layer, whether it is there or not.
    pub fn snapshot_path(&self, id: &ContainerId) -> PathBuf {
        self.path("snapshots").join(id.as_str())
    }

    /// Mounts an image's layers read-only, attached nowhere.
    ///
    /// # Errors
    /// [`DriverError`] carries the kernel's message.
    pub fn mount_image(&self, image: &ImageRecord) -> Result<OwnedFd, SnapshotError> {
        let lease = self.lease()?;
        if let Some(missing) = lease.protect_layers(&image.layers)? {
            return Err(SnapshotError::MissingLayer(missing.clone()));
        }
        Ok(self.driver().mount(&MountRequest {
            lease: &lease,
            layers: &image.layers,
            upper: None,
            idmap: None,
        })?)
    }

    /// Removes writable layers of `owner` for which `is_alive` says no. Best effort: what cannot be read
    /// or removed is left for the next time.
    pub fn sweep_snapshots(&self, owner: &Path, is_alive: impl Fn(&str) -> bool) {
        let Ok(records) = self.snapshots() else {
            return;
        };
        for (id, record) in records {
            if record.owner == owner && !is_alive(&id) {
                let path = self.path("snapshots").join(&id);
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    log::warn!("cannot remove the leftover {}: {error}", path.display());
                }
            }
        }
    }

    /// All writable layers by their containers' ids.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn snapshots(&self) -> Result<Vec<(String, SnapshotRecord)>, ImageError> {
        let directory = self.path("snapshots");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path().join("record.json");
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(StoreError::io("read", path)(e).into()),
            };
            let record: SnapshotRecord = parse(&bytes).map_err(|source| ImageError::Damaged {
                what: path.display().to_string(),
                source,
            })?;
            if record.version != RECORD_VERSION {
                let version = record.version;
                return Err(ImageError::Version { path, version });
            }
            found.push((entry.file_name().to_string_lossy().into_owned(), record));
        }
        Ok(found)
    }
}
