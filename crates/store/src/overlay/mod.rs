//! The driver over overlayfs: every layer a directory of files.
//!
//! ```text
//! layers/HEX/
//!   fs/        the files, whiteouts and opaque directories as overlayfs has them
//!   kept/N     a file or directory that a later entry of the layer replaced; its bytes are part of
//!              the layer's archive
//!   kept.log   what was replaced when
//!   implied    directories that its archive does not mention
//! trees/HEX/
//!   fs/        directories on top of a chain, for the sake of those (see `mended`)
//! ```

mod chain;
mod implied;
mod kept;
mod mended;
mod mount;
mod placed;
mod unpack;
mod verify;

use crate::driver::{Contents, Driver, DriverError, MountRequest, RootAttributes, Unpack, Verify};
use crate::lease::Lease;
use crate::store::StoreError;
use crate::trees;
use crate::usage::Measure;
use carrack_spec::Digest;
pub use mount::OverlayError;
pub(crate) use mount::mount_image;
pub(crate) use mount::open_mapped;
use mount::{mount_detached, mount_directory};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which attributes overlayfs reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Root of the machine: `trusted.overlay.…`.
    Root,
    /// Root of a user namespace: `user.overlay.…` (`userxattr`, Linux 5.11), and no devices.
    UserNamespace,
}

impl Privilege {
    /// Of this process.
    pub(crate) fn own() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let words: Vec<&str> = map.split_whitespace().collect();
        match words.as_slice() {
            ["0", "0", "4294967295"] => Self::Root,
            _ => Self::UserNamespace,
        }
    }

    /// Marks a directory that hides what lower layers have at its place.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.opaque",
            Self::UserNamespace => "user.overlay.opaque",
        }
    }
}

/// The driver.
#[derive(Debug)]
pub(crate) struct Overlay {
    root: PathBuf,
    privilege: Privilege,
}

impl Overlay {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            privilege: Privilege::own(),
        }
    }

    /// The files of a layer.
    fn files(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex()).join("fs")
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn unpacker(&self, at: &Path) -> Result<Box<dyn Unpack>, DriverError> {
        Ok(Box::new(unpack::Unpacker::new(at, self.privilege)?))
    }

    fn contents(&self, at: &Path) -> Result<Box<dyn Contents>, DriverError> {
        Ok(Box::new(kept::Files::new(at)?))
    }

    fn verifier(&self, at: &Path) -> Result<Box<dyn Verify>, DriverError> {
        Ok(Box::new(verify::Verifier::new(at, self.privilege)?))
    }

    fn prepare(&self, lease: &Lease, layers: &[Digest]) -> Result<RootAttributes, DriverError> {
        let mended = mended::layer(&self.root, lease, layers, self.privilege)?;
        let path = match (mended, layers.last()) {
            (Some(mended), _) => mended,
            (None, Some(diff_id)) => self.files(diff_id),
            (None, None) => self.root.join("empty"),
        };
        let stat = path.metadata().map_err(StoreError::io("inspect", &path))?;
        Ok(RootAttributes {
            uid: stat.uid(),
            gid: stat.gid(),
            mode: stat.mode() & 0o7777,
        })
    }

    fn usage(&self, layers: &[PathBuf]) -> Result<u64, DriverError> {
        let mut measure = Measure::default();
        let mut bytes = layers.iter().map(|layer| measure.tree(layer)).sum();
        for (tree, needed) in trees::list(&self.root, layers)? {
            if needed {
                bytes += measure.tree(&tree);
            }
        }
        Ok(bytes)
    }

    fn collect(&self, kept: &[PathBuf], trash: &dyn Fn() -> PathBuf) -> Result<(), DriverError> {
        Ok(trees::collect(&self.root, kept, trash)?)
    }

    fn mount(&self, request: &MountRequest<'_>) -> Result<OwnedFd, DriverError> {
        let mended = mended::layer(&self.root, request.lease, request.layers, self.privilege)?;
        let mut lowers: Vec<PathBuf> = mended.into_iter().collect();
        for diff_id in request.layers.iter().rev() {
            let path = self.files(diff_id);
            // The kernel joins the roots of all layers, opaque or not.
            let hides = rustix::fs::getxattr(&path, self.privilege.opaque(), &mut [0; 1][..]);
            lowers.push(path);
            if hides.is_ok() {
                break;
            }
        }
        let empty = self.root.join("empty");
        if lowers.is_empty() && request.upper.is_none() {
            return Ok(mount_directory(&empty, request.idmap)?);
        }
        // overlayfs wants two lower directories when there is no upper one.
        if lowers.is_empty() || (lowers.len() == 1 && request.upper.is_none()) {
            lowers.push(empty);
        }
        Ok(mount_detached(
            &lowers,
            request.upper,
            request.idmap,
            self.privilege,
            request.lease,
        )?)
    }
}
