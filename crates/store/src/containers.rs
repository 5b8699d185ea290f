//! The writable layer of a container: `containers/ID/` with `record.json`, `upper/` and `work/`.
//!
//! The directory is made under `tmp/` and appears by one rename, so it is complete or absent. Its
//! record keeps the image's layers from being removed.

use crate::images::{ImageError, ImageRecord};
use crate::overlay::{OverlayError, mount_overlay};
use crate::store::{Shared, Store, StoreError};
use carrack_spec::image::parse;
use carrack_spec::{ContainerId, Digest};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const RECORD_VERSION: u32 = 1;

/// What a container's writable layer is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
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
pub struct ContainerDisk {
    path: PathBuf,
    lowers: Vec<PathBuf>,
}

/// A writable layer that cannot be made or mounted.
#[derive(Debug, thiserror::Error)]
pub enum ContainerDiskError {
    /// The name is taken.
    #[error("the container name {0:?} is in use; remove that container or choose another name")]
    Exists(String),
    /// A layer of the image is gone.
    #[error("layer {0} is missing from the store; load the image again")]
    MissingLayer(Digest),
    /// The overlay cannot be mounted.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ContainerDisk {
    /// The directory, to be removed with the container.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts the container's root file system, attached nowhere. `volatile` gives up durability of
    /// the writable layer for speed, for a container that is removed when it ends.
    ///
    /// # Errors
    /// [`OverlayError`] carries the kernel's message.
    pub fn mount(&self, volatile: bool) -> Result<OwnedFd, OverlayError> {
        let upper = (self.path.join("upper"), self.path.join("work"));
        mount_overlay(&self.lowers, Some((&upper.0, &upper.1)), volatile)
    }
}

impl Store {
    /// Makes the writable layer of container `id` on the layers of `image`; `owner` is kept in its record.
    ///
    /// # Errors
    /// [`ContainerDiskError::Exists`] when there is one of that name.
    pub fn create_disk(
        &self,
        held: &Shared,
        id: &ContainerId,
        image: &ImageRecord,
        owner: &Path,
    ) -> Result<ContainerDisk, ContainerDiskError> {
        let to = self.path("containers").join(id.as_str());
        let mut lowers: Vec<PathBuf> = Vec::with_capacity(image.layers.len());
        for layer in image.layers.iter().rev() {
            if !self.has_layer(layer) {
                return Err(ContainerDiskError::MissingLayer(layer.clone()));
            }
            lowers.push(self.layer_path(layer));
        }
        let temporary = self.temporary(held);
        let at = temporary.path();
        let lowest = if lowers.is_empty() { "empty" } else { "" };
        for name in ["", "upper", "work", lowest] {
            let path = at.join(name);
            let mode = Mode::from_raw_mode(if name == "empty" { 0o755 } else { 0o700 });
            if path.is_dir() {
                continue;
            }
            rustix::fs::mkdir(&path, mode)
                .map_err(|e| StoreError::io("make the directory", &path)(e.into()))?;
        }
        if let Some(top) = lowers.first() {
            copy_attributes(top, &at.join("upper"))?;
        } else {
            lowers.push(to.join("empty"));
            copy_attributes(&at.join("empty"), &at.join("upper"))?;
        }
        let record = DiskRecord {
            version: RECORD_VERSION,
            image: image.id.clone(),
            layers: image.layers.clone(),
            owner: owner.to_owned(),
        };
        let path = at.join("record.json");
        let text =
            serde_json::to_vec(&record).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        std::fs::write(&path, text).map_err(StoreError::io("write", &path))?;
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, at, cwd, &to, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => temporary.moved(),
            Err(rustix::io::Errno::EXIST) => {
                return Err(ContainerDiskError::Exists(id.to_string()));
            }
            Err(error) => return Err(StoreError::io("put in place", to)(error.into()).into()),
        }
        Ok(ContainerDisk { path: to, lowers })
    }

    /// Directory of a container's writable layer, whether it is there or not.
    pub fn disk_path(&self, id: &ContainerId) -> PathBuf {
        self.path("containers").join(id.as_str())
    }

    /// Removes writable layers of `owner` for which `is_alive` says no. Best effort: what cannot be read
    /// or removed is left for the next time.
    pub fn sweep_disks(&self, owner: &Path, is_alive: impl Fn(&str) -> bool) {
        let Ok(records) = self.container_records() else {
            return;
        };
        for (id, record) in records {
            if record.owner == owner && !is_alive(&id) {
                let path = self.path("containers").join(&id);
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    log::warn!("cannot remove the leftover {}: {error}", path.display());
                }
            }
        }
    }

    pub(crate) fn container_records(&self) -> Result<Vec<(String, DiskRecord)>, ImageError> {
        let directory = self.path("containers");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path().join("record.json");
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(StoreError::io("read", path)(e).into()),
            };
            let record = parse(&bytes).map_err(|source| ImageError::Damaged {
                what: path.display().to_string(),
                source,
            })?;
            found.push((entry.file_name().to_string_lossy().into_owned(), record));
        }
        Ok(found)
    }
}

/// The root of an overlay takes mode and owner from the upper directory, whatever is below.
fn copy_attributes(from: &Path, to: &Path) -> Result<(), StoreError> {
    let stat = from.metadata().map_err(StoreError::io("inspect", from))?;
    std::os::unix::fs::chown(to, Some(stat.uid()), Some(stat.gid()))
        .map_err(StoreError::io("set the owner of", to))?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.mode() & 0o7777))
        .map_err(|e| StoreError::io("set the mode of", to)(e.into()))
}
