//! Children that ended, without reaping them.

use crate::{Result, check};

/// The process id of some child that ended and waits to be reaped; it stays so. `None` when there is
/// none, also when there are no children at all.
///
/// # Errors
/// None in practice.
pub fn ended_child() -> Result<Option<i32>> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: an all-zero siginfo is a valid value of this plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` lives across the call, and the kernel writes at most one siginfo into it.
    let ret = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    match check(ret.into()) {
        Err(crate::Errno::CHILD) => return Ok(None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    // SAFETY: waitid filled the SIGCHLD member of the union, or left it zero.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}
