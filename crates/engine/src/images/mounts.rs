//! `image mount`: an image's files in a directory of the run-time state, read-only.
//!
//! `RUNROOT/mounts/HEX/` is the directory, HEX the image's id. While it is there, a writable layer of the name
//! `mount-HEX12` that nobody writes to keeps the image's layers from being removed.

use crate::{Engine, EngineError};
use carrack_spec::{ContainerId, Digest};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Start of the names of what keeps layers.
const KEEPER: &str = "mount-";

impl Engine {
    /// Mounts an image; where. One that is mounted stays where it is.
    ///
    /// # Errors
    /// The image is not there, or the kernel refuses.
    pub fn mount_image(&self, name: &str) -> Result<PathBuf, EngineError> {
        let image = self.store().find_image(name)?;
        let path = self.mount_directory(&image.id);
        if is_mounted(&path) {
            return Ok(path);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(EngineError::io("make the directory", &path))?;
        let done = self.keep_and_attach(&image, &path);
        if done.is_err() {
            let _ = std::fs::remove_dir(&path);
            self.let_go(&image.id);
        }
        done.map(|()| path)
    }

    fn keep_and_attach(
        &self,
        image: &carrack_store::ImageRecord,
        path: &Path,
    ) -> Result<(), EngineError> {
        match self
            .store()
            .create_snapshot(&keeper(&image.id)?, image, &self.runroot)
        {
            // What a boot or a kill left behind does as well.
            Ok(_) | Err(carrack_store::SnapshotError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let tree = self.store().mount_image(image)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .and_then(|target| carrack_sys::mount::attach(tree.as_fd(), target.as_fd()))
            .map_err(|e| EngineError::io("mount the image at", path)(e.into()))
    }

    /// Ends the mount of an image; its id.
    ///
    /// # Errors
    /// The image is not mounted, or the kernel refuses.
    pub fn unmount_image(&self, name: &str) -> Result<Digest, EngineError> {
        let id = self.store().find_image(name)?.id;
        let path = self.mount_directory(&id);
        if !is_mounted(&path) {
            return Err(EngineError::NotMounted(name.to_owned()));
        }
        let text = std::ffi::CString::new(path.as_os_str().as_bytes())
            .map_err(|e| EngineError::io("unmount", &path)(e.into()))?;
        carrack_sys::mount::detach(&text)
            .map_err(|e| EngineError::io("unmount", &path)(e.into()))?;
        std::fs::remove_dir(&path).map_err(EngineError::io("remove", &path))?;
        self.let_go(&id);
        Ok(id)
    }

    /// Images that are mounted, and where.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn mounts(&self) -> Result<Vec<(Digest, PathBuf)>, EngineError> {
        let directory = self.runroot.join("mounts");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(EngineError::io("list", &directory)(e)),
        };
        let mut found: Vec<(Digest, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let id = format!("sha256:{}", entry.file_name().to_str()?);
                Some((id.parse().ok()?, entry.path()))
            })
            .filter(|(_, path)| is_mounted(path))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Whether a writable layer of this name keeps the layers of a mounted image.
    pub(crate) fn keeps_mount(&self, name: &str) -> bool {
        let Some(short) = name.strip_prefix(KEEPER) else {
            return false;
        };
        let mounts = self.mounts().unwrap_or_default();
        mounts.iter().any(|(id, _)| id.short() == short)
    }

    fn mount_directory(&self, id: &Digest) -> PathBuf {
        self.runroot.join("mounts").join(id.hex())
    }

    fn let_go(&self, id: &Digest) {
        let Ok(keeper) = keeper(id) else {
            return;
        };
        let path = self.store().snapshot_path(&keeper);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn keeper(id: &Digest) -> Result<ContainerId, EngineError> {
    let name = format!("{KEEPER}{}", id.short());
    name.parse().map_err(|_| EngineError::NotMounted(name))
}

fn is_mounted(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::TYPE);
    found.is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
