//! The driver over overlayfs: every layer a directory of files.
//!
//! ```text
//! layers/HEX/
//!   fs/        the files, whiteouts and opaque directories as overlayfs has them
//!   kept/N     a file or directory that a later entry of the layer replaced; its bytes are part of
//!              the layer's archive
//!   kept.log   what was replaced when
//! ```

mod chain;
mod kept;
mod mount;
mod unpack;
mod verify;

use crate::driver::{Contents, Driver, DriverError, MountRequest, RootAttributes, Unpack, Verify};
use crate::lease::Lease;
use crate::store::StoreError;
use crate::usage::Measure;
use carrack_spec::Digest;
pub use mount::OverlayError;
pub(crate) use mount::{mount_detached, mount_image};
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

    fn prepare(&self, _lease: &Lease, layers: &[Digest]) -> Result<RootAttributes, DriverError> {
        let path = match layers.last() {
            Some(diff_id) => self.root.join("layers").join(diff_id.hex()).join("fs"),
            None => self.root.join("empty"),
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
        Ok(layers.iter().map(|layer| measure.tree(layer)).sum())
    }

    fn mount(&self, request: &MountRequest<'_>) -> Result<OwnedFd, DriverError> {
        let layers = self.root.join("layers");
        let mut lowers = Vec::new();
        for diff_id in request.layers.iter().rev() {
            let path = layers.join(diff_id.hex()).join("fs");
            // The kernel joins the roots of all layers, opaque or not.
            let hides = rustix::fs::getxattr(&path, self.privilege.opaque(), &mut [0; 1][..]);
            lowers.push(path);
            if hides.is_ok() {
                break;
            }
        }
        // overlayfs wants two lower directories when there is no upper one.
        if lowers.is_empty() || (lowers.len() == 1 && request.upper.is_none()) {
            lowers.push(self.root.join("empty"));
        }
        Ok(mount_detached(
            &lowers,
            request.upper,
            request.idmap,
            self.privilege,
            &request.lease.temporary(),
        )?)
    }
}
