//! The parts of the mount API that `rustix` lacks: mount_setattr(2), mounting
//! onto a descriptor, pivot_root in place. May run between clone and exec.

use crate::{Result, check};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `MOUNT_ATTR_…` of `linux/mount.h`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-ID.
    pub const NOSUID: u64 = 0x2;
    /// No devices.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// The two bits of the access time mode; zero is relatime.
    pub const ATIME: u64 = 0x70;
    /// Access times never change.
    pub const NOATIME: u64 = 0x10;
    /// Access times always change.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories never change.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// Attributes to set, of [`attr`].
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation, one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// User namespace descriptor for [`attr::IDMAP`].
    pub userns_fd: u64,
}

/// Changes a mount (`fd` is its root), with all below it when `recursive`.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path is a C string and `attr` has the kernel's layout and the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// A detached copy of the mount at `path` (relative to `dir`), with the mounts
/// below it when `recursive`. An empty path names `dir` itself.
///
/// # Errors
/// Those of open_tree(2): `EPERM` without `CAP_SYS_ADMIN` over the mount namespace.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let flags = clone_flags(path, recursive);
    // SAFETY: `path` is a C string that lives across the call.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags)
    })?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// As [`clone_tree`], with attributes changed before anybody can see the copy; of all the mounts in
/// it when `recursive`. One system call since Linux 6.15 (`open_tree_attr`).
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2).
pub fn clone_tree_with(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attr: &MountAttr,
) -> Result<OwnedFd> {
    const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
    // SAFETY: `path` is a C string and `attr` has the kernel's layout and the size given; both live
    // across the call.
    let fd = check(unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            dir.as_raw_fd(),
            path.as_ptr(),
            clone_flags(path, recursive),
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    });
    if let Ok(fd) = fd {
        // SAFETY: the kernel returned a new descriptor that nothing else owns.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
    // An older kernel, a filter that does not know the call, or an error that is told better here.
    let tree = clone_tree(dir, path, recursive)?;
    mount_setattr(tree.as_fd(), recursive, attr)?;
    Ok(tree)
}

fn clone_flags(path: &CStr, recursive: bool) -> libc::c_uint {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    flags
}

/// Attaches the detached mount `tree` on what `target` refers to.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: two borrowed descriptors and empty C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// mount(2).
///
/// # Errors
/// Those of mount(2).
pub fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    // SAFETY: every pointer is a C string that lives across the call, or null for no data.
    check(
        unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                flags,
                data.map_or(std::ptr::null(), CStr::as_ptr).cast(),
            )
        }
        .into(),
    )
    .map(drop)
}

/// Makes the working directory (a mount) the root, and stacks the old root on it.
///
/// # Errors
/// Those of pivot_root(2).
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: two C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Detaches the topmost mount at the path, with all below it.
///
/// # Errors
/// Those of umount2(2).
pub fn detach(path: &CStr) -> Result<()> {
    // SAFETY: a C string and an integer.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// Whether the caller's mount namespace has more than `limit` mounts (at most
/// [`COUNT_MAX`]); asks for no more than that many.
///
/// # Errors
/// `ENOSYS` before Linux 6.8.
pub fn more_mounts_than(limit: usize) -> Result<bool> {
    /// `struct mnt_id_req` of `linux/mount.h`, first version.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        param: u64,
    }
    const SYS_LISTMOUNT: libc::c_long = 458;
    const LSMT_ROOT: u64 = u64::MAX;
    let request = Request {
        size: size_of::<Request>() as u32,
        spare: 0,
        mount: LSMT_ROOT,
        param: 0,
    };
    let mut ids = [0u64; COUNT_MAX + 1];
    let wanted = limit.min(COUNT_MAX) + 1;
    // SAFETY: `request` names its own size, and the kernel writes at most `wanted` ids, which `ids` holds.
    let count = check(unsafe {
        libc::syscall(
            SYS_LISTMOUNT,
            &raw const request,
            ids.as_mut_ptr(),
            wanted,
            0,
        )
    })?;
    Ok(count as usize >= wanted)
}

/// Largest limit of [`more_mounts_than`].
pub const COUNT_MAX: usize = 255;
