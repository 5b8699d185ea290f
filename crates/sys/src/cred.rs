//! Credentials: users, groups, capabilities, `no_new_privs`, keyrings, labels'
//! neighbours. All of it may run between clone and exec.

use crate::{Result, check};
use std::ffi::CStr;

/// One bit a capability, by the kernel's numbers.
pub type CapBits = u64;

/// The three sets of capset(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSets {
    /// Effective.
    pub effective: CapBits,
    /// Permitted.
    pub permitted: CapBits,
    /// Inheritable.
    pub inheritable: CapBits,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

/// Reads the calling thread's sets.
///
/// # Errors
/// None in practice.
pub fn capget() -> Result<CapSets> {
    let header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads and writes exactly two CapData, which `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapSets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets the calling thread's sets.
///
/// # Errors
/// `EPERM` when a set holds what the permitted set lacks.
pub fn capset(sets: &CapSets) -> Result<()> {
    let header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads exactly two CapData, which `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// prctl(2) with integer arguments only.
fn prctl(option: libc::c_int, a: u64, b: u64) -> Result<libc::c_long> {
    // SAFETY: the options used in this module take integers, no pointers.
    check(unsafe { libc::prctl(option, a, b, 0u64, 0u64) }.into())
}

/// Whether the bounding set has the capability; `EINVAL` for one the kernel does not know.
///
/// # Errors
/// `EINVAL`.
pub fn bounding_has(cap: u32) -> Result<bool> {
    Ok(prctl(libc::PR_CAPBSET_READ, cap.into(), 0)? == 1)
}

/// Drops a capability from the bounding set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn bounding_drop(cap: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, cap.into(), 0).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// None in practice.
pub fn ambient_clear() -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as u64,
        0,
    )
    .map(drop)
}

/// Raises a capability in the ambient set.
///
/// # Errors
/// `EPERM` when it is not both permitted and inheritable.
pub fn ambient_raise(cap: u32) -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as u64,
        cap.into(),
    )
    .map(drop)
}

/// Keeps the permitted set over a change of user ids, or not.
///
/// # Errors
/// None in practice.
pub fn keep_caps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, on.into(), 0).map(drop)
}

/// Sets `no_new_privs`.
///
/// # Errors
/// None in practice.
pub fn no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Makes the process dumpable (and open to ptrace and `/proc/PID`) or not.
///
/// # Errors
/// None in practice.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, on.into(), 0).map(drop)
}

/// Sends `signal` to the calling process when its parent thread ends.
///
/// # Errors
/// `EINVAL` for an invalid signal.
pub fn parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Makes the caller the parent of its orphaned descendants.
///
/// # Errors
/// None in practice.
pub fn child_subreaper(on: bool) -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, on.into(), 0).map(drop)
}

/// Sets real, effective and saved user id of the calling thread (raw: no
/// signalling of other threads as glibc does).
///
/// # Errors
/// `EPERM`, `EINVAL` for an id that the user namespace does not map.
pub fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group id of the calling thread.
///
/// # Errors
/// As [`setresuid`].
pub fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the supplementary groups of the calling thread.
///
/// # Errors
/// `EPERM` without `CAP_SETGID` or where setgroups is denied.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and the length describe the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Joins a new session keyring named `name`; returns its serial number.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` over the quota.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: `name` is a C string that lives across the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(|serial| serial as i32)
}

/// Gives the possessor's and user's rights of a key as the mask `set`, keeping nothing else.
///
/// # Errors
/// `EACCES`.
pub fn keyring_set_permissions(serial: i32, mask: u32) -> Result<()> {
    const KEYCTL_SETPERM: libc::c_int = 5;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, mask) }).map(drop)
}

/// Sets the execution domain.
///
/// # Errors
/// `EINVAL`.
pub fn personality(domain: u32) -> Result<()> {
    // SAFETY: one integer.
    check(unsafe { libc::syscall(libc::SYS_personality, u64::from(domain)) }).map(drop)
}
