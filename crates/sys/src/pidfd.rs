//! Processes by descriptor. May run between clone and exec.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a process that the caller can see.
///
/// # Errors
/// `ESRCH` when there is none, `EINVAL` for a thread that is no leader.
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: two integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal; signal 0 only asks whether the process exists.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM`, `EINVAL` for an invalid signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a borrowed descriptor, integers, and null for no siginfo.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Copies descriptor number `fd` out of another process.
///
/// # Errors
/// `EPERM` without ptrace rights over it, `EBADF`.
pub fn get_fd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: a borrowed descriptor and integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The code a shell would report: the exit code, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child to end and reaps it; with `block` false returns `None`
/// when it still runs.
///
/// # Errors
/// `ECHILD` when it is not the caller's child or was reaped already.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    let flags = libc::WEXITED | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: an all-zero siginfo is a valid value of this plain C structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: P_PIDFD takes a descriptor; `info` lives across the call.
        let ret = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                &raw mut info,
                flags,
            )
        };
        match check(ret.into()) {
            Err(crate::Errno::INTR) => continue,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        // SAFETY: waitid filled the SIGCHLD member of the union, or left it zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok(match (pid, info.si_code) {
            (0, _) => None,
            (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        });
    }
}
