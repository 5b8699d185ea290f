//! Scheduling, I/O priority, CPU affinity and NUMA policy of the calling
//! thread. May run between clone and exec.

use crate::{Result, check};

/// `struct sched_attr` of `linux/sched/types.h`, version with clamps.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this structure; filled by [`set_attributes`].
    pub size: u32,
    /// `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
    /// Utilisation clamp, lower.
    pub util_min: u32,
    /// Utilisation clamp, upper.
    pub util_max: u32,
}

/// sched_setattr(2).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, `EINVAL`.
pub fn set_attributes(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..*attr
    };
    // SAFETY: `attr` has the kernel's layout, names its own size and lives across the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// ioprio_set(2) for the calling thread; `value` is class and level as the kernel packs them.
///
/// # Errors
/// `EPERM` for the real-time class without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`.
pub fn set_io_priority(value: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// A set of CPUs or memory nodes: one bit each, 1024 at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitSet(pub [u64; 16]);

/// sched_setaffinity(2) for the calling thread.
///
/// # Errors
/// `EINVAL` when no CPU of the set may be used.
pub fn set_affinity(cpus: &BitSet) -> Result<()> {
    // SAFETY: pointer and size describe the array.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(&cpus.0),
            cpus.0.as_ptr(),
        )
    })
    .map(drop)
}

/// set_mempolicy(2) for the calling thread; `mode` includes the mode flags.
///
/// # Errors
/// `EINVAL`, `ENOSYS` without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &BitSet) -> Result<()> {
    let empty = nodes.0.iter().all(|&word| word == 0);
    let (pointer, bits) = if empty {
        (std::ptr::null(), 0)
    } else {
        (nodes.0.as_ptr(), nodes.0.len() * 64)
    };
    // SAFETY: the kernel reads `bits` bits, which the array holds, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
