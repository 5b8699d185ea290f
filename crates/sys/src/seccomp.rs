//! seccomp(2). [`load`] may run between clone and exec.

use crate::{Result, check};
use std::os::fd::{FromRawFd, OwnedFd};

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
