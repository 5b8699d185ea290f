//! execve(2) with vectors that were made ahead of time, so that the child of a
//! clone only passes pointers.

use crate::{Errno, Result, last};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A null-terminated vector of C strings, as `argv` and `envp` are.
#[derive(Debug)]
pub struct CVec {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CVec {
    /// Builds the vector.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces the process by `program`. Returns only on failure.
pub fn execve(program: &CStr, argv: &CVec, envp: &CVec) -> Errno {
    // SAFETY: CVec owns its strings and ends its pointer vector with null (see `CVec::new`); a
    // CString's bytes do not move when the CString does.
    unsafe {
        libc::execve(
            program.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        )
    };
    last()
}

/// Replaces the process by the program that `fd` refers to. Returns only on failure.
pub fn execveat(fd: BorrowedFd<'_>, argv: &CVec, envp: &CVec) -> Errno {
    // SAFETY: as in `execve`; the empty path with AT_EMPTY_PATH names the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last()
}

/// Marks every descriptor from `first` on as close-on-exec.
///
/// # Errors
/// None in practice.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: the flag only sets close-on-exec; no descriptor that Rust owns is closed.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Closes every descriptor from `first` on but those of `keep`, which gets sorted.
///
/// The caller must be the child of a clone that never returns to code which
/// owns descriptors: what is closed here is not dropped again.
///
/// # Errors
/// None in practice.
pub fn close_others(first: u32, keep: &mut [i32]) -> Result<()> {
    keep.sort_unstable();
    let mut begin = first;
    for &fd in keep.iter() {
        let Ok(fd) = u32::try_from(fd) else { continue };
        if fd > begin {
            close_range(begin, fd - 1)?;
        }
        begin = begin.max(fd.saturating_add(1));
    }
    close_range(begin, u32::MAX)
}

/// Closes descriptor `number` when it is one of those that end at exec, unless it is in `keep`.
///
/// The caller must be such a child as [`close_others`] asks for.
///
/// # Errors
/// None in practice; a number that is not open is none.
pub fn close_unless_inherited(number: u32, keep: &[i32]) -> Result<()> {
    let Ok(fd) = i32::try_from(number) else {
        return Ok(());
    };
    // SAFETY: integers only.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC == 0 || keep.contains(&fd) {
        return Ok(());
    }
    close_range(number, number)
}

/// Whether the number is an open descriptor that a program we execute would inherit.
pub fn is_inherited(number: u32) -> bool {
    i32::try_from(number).is_ok_and(|fd| {
        // SAFETY: integers only.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        flags >= 0 && flags & libc::FD_CLOEXEC == 0
    })
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the process is the child of a clone on its way to exec or exit (see `close_others`):
    // the Rust values that own these descriptors are copies that are never used or dropped.
    crate::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Makes `fd` also descriptor number `target`, without close-on-exec.
///
/// The target's old file is closed: the caller must be about to exec, so that
/// no Rust value still refers to the old file.
///
/// # Errors
/// `EBADF` in practice never.
pub fn dup_onto(fd: BorrowedFd<'_>, target: i32) -> Result<()> {
    if fd.as_raw_fd() == target {
        // dup2 onto itself would leave close-on-exec set.
        // SAFETY: a borrowed descriptor and integers.
        return crate::check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: the process is the child of a clone on its way to exec; the descriptors it replaces
    // (standard streams and inherited numbers) have no owner that would be dropped later.
    crate::check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// getcwd(2): the working directory as the kernel names it, with the
/// terminator. A directory outside of the root starts with `(unreachable)`.
///
/// # Errors
/// `ERANGE` when the buffer is too small, `ENOENT` for a removed directory.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: pointer and length describe the buffer, and the kernel writes at most that much.
    let length = crate::check(unsafe {
        libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len())
    })?;
    Ok(&buffer[..(length as usize).min(buffer.len())])
}
