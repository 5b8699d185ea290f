//! Thin, safe, policy-free wrappers of Linux system calls that `rustix` and
//! `std` do not offer, and the only home of `unsafe` in the workspace.
//!
//! Contract: a wrapper adds types and nothing else. No policy, no retries but
//! `EINTR`, no logging. Every function that may run between clone and exec
//! (module heads say which) neither allocates nor takes a lock, so that it is
//! correct in the child of a multi-threaded parent. Errors are the kernel's
//! [`Errno`].
//!
//! ```
//! // A process by descriptor: signal 0 asks whether it is there.
//! use std::os::fd::AsFd;
//! let own = carrack_sys::pidfd::open(std::process::id() as i32)?;
//! carrack_sys::pidfd::send_signal(own.as_fd(), 0)?;
//! # Ok::<(), carrack_sys::Errno>(())
//! ```
//!
//! Oldest kernel: 5.14 (`clone3`, `openat2`, the new mount API with
//! `mount_setattr`, `close_range`, pidfds).

pub mod bpf;
pub mod clone;
pub mod cred;
pub mod exec;
pub mod fdpass;
pub mod late;
pub mod loopdev;
pub mod mount;
pub mod netif;
pub mod pidfd;
#[cfg(target_arch = "x86_64")]
pub mod prestart;
pub mod pty;
pub mod reap;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod start;
pub mod verity;

pub use rustix::io::Errno;

/// Result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// Turns the return value of a libc call into a result.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret == -1 { Err(last()) } else { Ok(ret) }
}

/// The calling thread's errno.
pub(crate) fn last() -> Errno {
    // SAFETY: glibc keeps errno in thread-local storage for the thread's whole
    // life; the pointer is valid and only this thread accesses it.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
