//! Signal masks and dispositions. [`reset`] and [`end_on`] may run between clone and exec.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The highest signal number of Linux, `_NSIG`.
pub const SIGNAL_MAX: i32 = 64;

/// Blocks every signal in the calling thread.
///
/// # Errors
/// None in practice.
pub fn block_all() -> Result<()> {
    set_mask(u64::MAX)
}

/// Unblocks every signal in the calling thread.
///
/// # Errors
/// None in practice.
pub fn unblock_all() -> Result<()> {
    set_mask(0)
}

fn set_mask(mask: u64) -> Result<()> {
    // SAFETY: the kernel reads the eight bytes of its sigset from `mask`; no old mask is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    })
    .map(drop)
}

/// Gives the signal its default action. exec resets handlers by itself, but
/// keeps a signal that is ignored (as Rust's runtime does with `SIGPIPE`).
///
/// # Errors
/// `EINVAL` for an invalid signal.
pub fn reset(signal: i32) -> Result<()> {
    // SAFETY: SIG_DFL is no handler of ours, so nothing can run in a wrong context.
    let old = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if old == libc::SIG_ERR {
        Err(crate::last())
    } else {
        Ok(())
    }
}

/// Lets the signal end the calling process with 128 and its number. By default the first process
/// of a pid namespace does not notice it. Exec takes this back.
///
/// # Errors
/// `EINVAL` for an invalid signal.
pub fn end_on(signal: i32) -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe and has no preconditions.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    // SAFETY: the handler only calls _exit, so it can run at any point of the process.
    let old = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    if old == libc::SIG_ERR {
        Err(crate::last())
    } else {
        Ok(())
    }
}

/// A descriptor that reads every blocked signal, non-blocking and close-on-exec.
///
/// # Errors
/// Those of signalfd(2).
pub fn descriptor() -> Result<OwnedFd> {
    let mask = u64::MAX;
    // SAFETY: the kernel reads the eight bytes of its sigset from `mask`.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &raw const mask,
            size_of::<u64>(),
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    })?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Takes the next signal from [`descriptor`]: its number and sender.
///
/// # Errors
/// `EAGAIN` when there is none.
pub fn take(descriptor: BorrowedFd<'_>) -> Result<(i32, i32)> {
    // SAFETY: an all-zero value of this plain C structure is valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most one structure into `info`.
    let length = check(unsafe {
        libc::read(
            descriptor.as_raw_fd(),
            (&raw mut info).cast(),
            size_of_val(&info),
        ) as libc::c_long
    })?;
    if length as usize != size_of_val(&info) {
        return Err(crate::Errno::AGAIN);
    }
    Ok((info.ssi_signo as i32, info.ssi_pid as i32))
}
