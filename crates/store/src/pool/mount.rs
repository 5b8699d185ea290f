//! Mounts an EROFS image from its file, attached nowhere.

use carrack_sys::mount::{MountAttr, attr, mount_setattr};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An image that cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// The kernel has no EROFS.
    #[error(
        "this kernel has no EROFS, which the storage driver \"pool\" needs; load the module erofs, or make the store with the driver \"overlay\""
    )]
    Missing,
    /// The kernel does not take the image.
    #[error(
        "the kernel does not take the image {path}: it is damaged (see `carrack system check`), or Linux is older than 6.5, which the storage driver \"pool\" needs"
    )]
    Refused {
        /// The image.
        path: PathBuf,
    },
    /// A file cannot be mounted.
    #[error(
        "this kernel mounts EROFS from block devices only (files: Linux 6.12), and no loop device could be set up for {path}"
    )]
    Loop {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Owners cannot be mapped.
    #[error("cannot map the owners of the image {path}")]
    Map {
        /// The image.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount the image {path} ({step})")]
    Mount {
        /// The image.
        path: PathBuf,
        /// The call that failed.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Mounts the image at `path`, read-only; with the owners of `idmap` when it is given.
///
/// Linux 6.12 mounts a file as it is; for an older kernel it is given a loop device, which the kernel takes
/// back when the last mount is gone.
pub(super) fn mount(path: &Path, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, ErofsError> {
    let mount = match create(path, path) {
        Err(ErofsError::Mount { source, .. })
            if source.raw_os_error() == Some(Errno::NOTBLK.raw_os_error()) =>
        {
            let device =
                carrack_sys::loopdev::attach_read_only(path).map_err(|e| ErofsError::Loop {
                    path: path.to_owned(),
                    source: std::io::Error::from_raw_os_error(e.raw_os_error()),
                })?;
            create(path, device.path())?
        }
        other => other?,
    };
    if let Some(userns) = idmap {
        use std::os::fd::AsRawFd;
        let map = MountAttr {
            set: attr::IDMAP,
            userns_fd: userns.as_raw_fd() as u64,
            ..MountAttr::default()
        };
        mount_setattr(mount.as_fd(), false, &map).map_err(|e| ErofsError::Map {
            path: path.to_owned(),
            source: std::io::Error::from_raw_os_error(e.raw_os_error()),
        })?;
    }
    Ok(mount)
}

fn create(path: &Path, source: &Path) -> Result<OwnedFd, ErofsError> {
    let failed = |step| {
        move |e: Errno| ErofsError::Mount {
            path: path.to_owned(),
            step,
            source: e.into(),
        }
    };
    let fs = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NODEV => ErofsError::Missing,
        e => failed("fsopen")(e),
    })?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source).map_err(failed("source"))?;
    // Else a loop device would be opened for writing.
    rustix::mount::fsconfig_set_flag(fs.as_fd(), "ro").map_err(failed("ro"))?;
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(|e| match e {
        Errno::INVAL => ErofsError::Refused {
            path: path.to_owned(),
        },
        e => failed("create")(e),
    })?;
    rustix::mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .map_err(failed("fsmount"))
}
