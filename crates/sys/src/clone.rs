//! clone3(2), setns(2), unshare(2) and leaving a process.
//!
//! All of it may run between clone and exec.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Namespace flags, `CLONE_NEW…`.
pub mod ns {
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// Host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// System V IPC and message queues.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// Users.
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    /// Process ids.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Network.
    pub const NET: u64 = libc::CLONE_NEWNET as u64;
    /// Cgroup root.
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// Clocks.
    pub const TIME: u64 = 0x80;
}

/// Which process we are after [`clone_process`].
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// Process id of the child, in the caller's pid namespace.
        pid: i32,
        /// A descriptor of the child; close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Arguments of clone3, `struct clone_args` of `linux/sched.h` (v2, with `cgroup`).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How the child relates to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parentage {
    /// The caller's child.
    Child,
    /// The caller's sibling (`CLONE_PARENT`): the caller's parent reaps it.
    Sibling,
}

/// Makes a process with a copy of the address space, in new namespaces
/// (`flags` of [`ns`]) and, with `cgroup` (a cgroup v2 directory), inside that
/// cgroup from its first instruction.
///
/// Returns twice. In the child only the calling thread exists, and a lock that
/// another thread held stays locked: the child must not allocate and must end
/// in exec or [`exit`], never by returning from the function that called this.
///
/// # Errors
/// Those of clone3(2): `EPERM` without `CAP_SYS_ADMIN` for namespaces other
/// than a user namespace, `ENOSPC` at a namespace limit, `EBUSY` for a cgroup
/// with controllers enabled.
pub fn clone_process(
    flags: u64,
    parentage: Parentage,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        ..Default::default()
    };
    match parentage {
        Parentage::Child => args.exit_signal = libc::SIGCHLD as u64,
        Parentage::Sibling => args.flags |= libc::CLONE_PARENT as u64,
    }
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `pidfd` live across the call and have the kernel's layout and size; no
    // stack is given, so the child goes on with a copy of this one (no CLONE_VM is ever set here).
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// Enters the namespaces `flags` of the namespace file or pidfd `fd`.
///
/// # Errors
/// Those of setns(2).
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: the call takes a borrowed descriptor and an integer.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) }.into()).map(drop)
}

/// Leaves the namespaces `flags` for new ones.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: the callers' flags are namespaces only; descriptors and memory stay shared as they are.
    check(unsafe { libc::unshare(flags as libc::c_int) }.into()).map(drop)
}

/// Ends the process at once: no exit handlers, no buffers flushed.
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
