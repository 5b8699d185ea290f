//! seccomp(2). [`load`] may run between clone and exec.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FLAG_NEW_LISTENER: u64 = 1 << 3;

/// One instruction, `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Jump when true.
    pub jt: u8,
    /// Jump when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Puts the calling thread under a filter. With [`FLAG_NEW_LISTENER`] returns
/// the notify descriptor (close-on-exec).
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`, `EINVAL` for a program the kernel refuses.
pub fn load(program: &[SockFilter], flags: u64) -> Result<Option<OwnedFd>> {
    let Ok(length) = u16::try_from(program.len()) else {
        return Err(crate::Errno::INVAL);
    };
    let fprog = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `fprog` points at `length` instructions of the kernel's layout; the kernel copies them.
    let ret = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the kernel returns a new descriptor that nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as i32) }))
}

/// Whether this kernel knows the filter flag: an unknown flag is `EINVAL`, a
/// known one gets as far as the null program (`EFAULT`).
pub fn flag_supported(flag: u64) -> bool {
    // SAFETY: the null program is never read successfully; the call cannot succeed.
    let ret = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flag,
            std::ptr::null::<libc::sock_fprog>(),
        )
    });
    ret == Err(crate::Errno::FAULT)
}

/// A call that waits for a listener's answer, `struct seccomp_notif`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// What to answer with.
    pub id: u64,
    /// The caller, as the listener's pid namespace sees it; 0 when it does not.
    pub pid: u32,
    /// Number of the call.
    pub call: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// `SECCOMP_IOCTL_NOTIF_RECV` of `linux/seccomp.h`.
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
/// `SECCOMP_IOCTL_NOTIF_SEND`.
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;

/// Waits for a call on a notify descriptor.
///
/// # Errors
/// `ENOENT` when the caller died meanwhile: try again.
pub fn receive_notification(listener: BorrowedFd<'_>) -> Result<Notification> {
    // SAFETY: all-zero is a valid value of this plain C structure, and what the kernel demands.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `struct seccomp_notif`, whose size is in the request number.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut notif) }.into())?;
    Ok(Notification {
        id: notif.id,
        pid: notif.pid,
        call: notif.data.nr,
        args: notif.data.args,
    })
}

/// Answers a call: its return value, or an error as a negative errno.
///
/// # Errors
/// `ENOENT` when the caller is gone.
pub fn answer_notification(
    listener: BorrowedFd<'_>,
    id: u64,
    value: i64,
    error: i32,
) -> Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: value,
        error,
        flags: 0,
    };
    // SAFETY: the kernel reads one `struct seccomp_notif_resp`, whose size is in the request number.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut answer) }.into())
        .map(drop)
}
