//! What an errno means when the kernel refuses a value for a control file.
//!
//! Pure but for one thing: a memory limit refused as busy is explained with
//! the usage, which is read from the same cgroup. Sources: the kernel's
//! `Documentation/admin-guide/cgroup-v1`, `cgroup-v2.rst` and the handlers.

use rustix::io::Errno;
use std::path::Path;

/// Empty, or the explanation in parentheses with a leading space.
pub(crate) fn of_write(path: &Path, errno: Errno) -> String {
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if let Some(text) = with_usage(path, file, errno) {
        return text;
    }
    let text = match (file, errno) {
        ("cgroup.subtree_control", Errno::BUSY) => {
            "the cgroup holds processes itself: on v2 only cgroups without processes may pass controllers on; move them into a child cgroup"
        }
        ("cgroup.subtree_control", Errno::OPNOTSUPP) => {
            "the cgroup is threaded: only threaded controllers can be enabled in it"
        }
        ("cgroup.subtree_control", Errno::NOENT) => {
            "the parent cgroup does not pass this controller on"
        }
        ("cgroup.procs" | "tasks", Errno::BUSY) => {
            "the cgroup passes controllers on to children, so on v2 it may not hold processes itself"
        }
        ("cgroup.procs" | "tasks", Errno::OPNOTSUPP) => {
            "cgroup.type is threaded or invalid: the parent mixes threads and processes"
        }
        ("cgroup.procs" | "tasks", Errno::NOSPC) => {
            "cpuset.cpus or cpuset.mems of the cgroup is empty"
        }
        ("cgroup.procs" | "tasks", Errno::INVAL) => {
            "a real-time task needs cpu.rt_runtime_us in the cgroup, and a kernel thread cannot move"
        }
        ("cgroup.procs" | "tasks", Errno::SRCH) => "there is no such process",
        ("cgroup.procs" | "tasks", Errno::PERM | Errno::ACCESS) => {
            "needs write access to cgroup.procs of the common ancestor of the old and new cgroup"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::ACCESS | Errno::INVAL) => {
            "must be a list like 0-3,7 within the parent's set"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::BUSY) => {
            "the set is used exclusively elsewhere or by a child cgroup"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::NOSPC) => {
            "the cgroup has processes, so the set may not become empty"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::RANGE) => "beyond what this kernel counts",
        ("cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max", Errno::INVAL) => {
            "the period lies between 1000 and 1000000 µs, the quota is at least 1000 µs and on v1 relative to the period not above the parent's"
        }
        ("cpu.cfs_burst_us" | "cpu.max.burst", Errno::INVAL) => {
            "the burst may not exceed the quota"
        }
        ("cpu.rt_runtime_us" | "cpu.rt_period_us", Errno::INVAL) => {
            "the parents have not reserved that much real-time for it"
        }
        ("memory.kmem.tcp.limit_in_bytes", Errno::BUSY) => "in use already",
        ("memory.memsw.limit_in_bytes", Errno::INVAL) => "must be at least memory.limit_in_bytes",
        ("memory.limit_in_bytes", Errno::INVAL) => "may not exceed memory.memsw.limit_in_bytes",
        ("memory.swappiness", Errno::INVAL) => "must be 0 to 100 (200 from Linux 5.8 on)",
        (_, Errno::NODEV) if is_io(file) => "there is no such block device",
        (_, Errno::OPNOTSUPP) if is_io(file) => "the device's scheduler does not support it",
        ("devices.allow" | "devices.deny", Errno::PERM) => {
            "needs CAP_SYS_ADMIN, and the parent cgroup must have the access itself"
        }
        (_, Errno::NODEV) => "the cgroup was removed meanwhile",
        (_, Errno::NOENT) => {
            "no such control file: the controller is not enabled here or the kernel is too old"
        }
        (_, Errno::ACCESS | Errno::PERM) => {
            "no right to it: run as root, or in a cgroup delegated to this user"
        }
        (_, Errno::ROFS) => "the cgroup file system is mounted read-only here",
        (_, Errno::RANGE) => "out of the kernel's range for it",
        _ => return String::new(),
    };
    format!(" ({text})")
}

fn is_io(file: &str) -> bool {
    file.starts_with("blkio.") || file.starts_with("io.")
}

/// Memory limits below usage: say the usage.
fn with_usage(path: &Path, file: &str, errno: Errno) -> Option<String> {
    if errno != Errno::BUSY {
        return None;
    }
    let usage_file = match file {
        "memory.limit_in_bytes" => "memory.usage_in_bytes",
        "memory.memsw.limit_in_bytes" => "memory.memsw.usage_in_bytes",
        "memory.max" => "memory.current",
        _ => return None,
    };
    let usage = crate::files::try_read(&path.with_file_name(usage_file)).ok()?;
    Some(format!(
        " (it is below the {} bytes in use, and not enough could be reclaimed)",
        usage.trim()
    ))
}
