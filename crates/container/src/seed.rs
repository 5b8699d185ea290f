//! A small mount namespace to start from on hosts with many mounts.
//!
//! A new mount namespace is a copy of the one its maker is in, mount by mount,
//! and the copies are taken down again when the root changes: with thousands of
//! mounts on the host that costs far more than the rest of a container. A
//! container needs none of them: its root and its bind mounts are detached trees
//! that were opened before. So the child first enters a namespace that has next
//! to nothing in it: that of `kdevtmpfs`, the kernel thread that keeps the device
//! file system, which every kernel with devtmpfs has had since 2.6.32.
//!
//! Only where it makes no difference to see: nothing may look up a host path
//! after the clone (hooks, rootless bind mounts, file systems with a source on
//! the host). Everything else takes the ordinary way; so does a caller that may
//! not enter that namespace, and one inside a container, which does not see it.

use crate::plan::{InitPlan, MountKind, Source};
use crate::procfs;
use carrack_sys::clone::ns;
use carrack_sys::mount;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Copying fewer mounts than this costs less than the detour.
const MOUNTS_MIN: usize = 128;
/// The name of the kernel thread.
const THREAD: &str = "kdevtmpfs\n";
/// Kernel threads of the boot have low pids; more are not searched.
const PID_MAX: i32 = 8192;
/// Where its pid is kept, in the state root; holds a character that no container id has.
const CACHE: &str = "@kdevtmpfs";

/// File systems that need nothing of the host.
const SELF_CONTAINED: [&std::ffi::CStr; 7] = [
    c"proc", c"sysfs", c"tmpfs", c"devpts", c"mqueue", c"cgroup", c"cgroup2",
];

/// Lets the child start from the small namespace when that pays and makes no difference.
/// True when it does.
pub fn use_seed(plan: &mut InitPlan, root: &Path) -> bool {
    let birth = &plan.birth;
    let fresh_mounts = birth.clone_flags & ns::MOUNT != 0;
    let user = birth.clone_flags & ns::USER != 0 || plan.birth.become_root;
    if !fresh_mounts || user || plan.run_hooks || !needs_no_host_path(plan) {
        return false;
    }
    if !mount::more_mounts_than(MOUNTS_MIN).unwrap_or(false) {
        return false;
    }
    let Some(namespace) = find(plan.proc.as_fd(), root) else {
        return false;
    };
    plan.birth.clone_flags &= !ns::MOUNT;
    plan.birth.unshare |= ns::MOUNT;
    plan.birth.joins.push((namespace, ns::MOUNT));
    true
}

fn needs_no_host_path(plan: &InitPlan) -> bool {
    let by_descriptor = |source: &Source| !matches!(source, Source::Path(_));
    matches!(plan.rootfs.tree, Source::Tree(_))
        && plan.rootfs.devices.iter().all(|device| !device.bind)
        && plan.rootfs.mounts.iter().all(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => by_descriptor(source),
            MountKind::FileSystem { kind, .. } => SELF_CONTAINED.contains(&kind.as_c_str()),
            MountKind::Remount { .. } | MountKind::Symlink { .. } | MountKind::Gather { .. } => {
                true
            }
        })
}

fn find(proc: BorrowedFd<'_>, root: &Path) -> Option<OwnedFd> {
    let is_it =
        |pid: i32| procfs::read(proc, &format!("{pid}/comm")).is_ok_and(|name| name == THREAD);
    let cache = root.join(CACHE);
    let cached = std::fs::read_to_string(&cache)
        .ok()
        .and_then(|text| text.parse().ok());
    let pid = match cached.filter(|&pid| is_it(pid)) {
        Some(pid) => pid,
        None => {
            let pid = (2..PID_MAX).find(|&pid| is_it(pid))?;
            // A cache that cannot be written costs the next one a search, nothing else.
            let _ = std::fs::write(&cache, pid.to_string());
            pid
        }
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(proc, format!("{pid}/ns/mnt"), flags, Mode::empty()).ok()
}
