//! The monitor's mount namespace: root file systems are attached here, seen by no one else.

use carrack_sys::clone::unshare;
use carrack_sys::mount::attach;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Flag of a mount namespace, clone(2).
const CLONE_NEWNS: u64 = 0x0002_0000;

/// Moves the caller to a mount namespace of its own. Mounts and unmounts of the host still arrive here
/// (so nothing on the host stays busy), none of ours go back.
pub(crate) fn leave_host_mounts() -> Result<(), Errno> {
    unshare(CLONE_NEWNS)?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)
}

/// Attaches a detached mount at `rootfs` of a bundle.
pub(crate) fn attach_root(mount: BorrowedFd<'_>, bundle: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let at = rustix::fs::open(bundle.join("rootfs"), flags, Mode::empty())?;
    attach(mount, at.as_fd())
}

/// Takes it away again.
pub(crate) fn detach_root(bundle: &Path) -> Result<(), Errno> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    rustix::mount::unmount(bundle.join("rootfs"), flags)
}
