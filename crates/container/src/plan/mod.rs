//! Plans: all that a child needs, as descriptors, numbers and C strings.
//!
//! The parent resolves and validates everything into an [`InitPlan`] (or a
//! [`Birth`] and a [`ProcessPlan`] for exec); the child in [`crate::init`]
//! replays it with system calls only. Building a plan may fail with prose;
//! replaying it fails with a number.

mod caps;
mod cgroups;
mod devices;
mod mounts;
pub mod options;
mod process;
mod rootfs;
mod terminal;

pub use caps::CapPlan;
pub use cgroups::{CgroupContext, cgroup_plan, is_unified};
pub use devices::{DevicePlan, device_plans, device_rules};
pub use mounts::{Detached, Fresh, MountKind, MountPlan, inside};
#[cfg(fuzzing)]
pub use process::bit_set;
pub use process::{
    MEMORY_FLAGS, MEMORY_MODES, ProcessContext, ProcessPlan, SeccompPlan, c_string, exec_affinity,
    keeps_groups, name_process, process_plan, seccomp_plan, session_keyring,
};
pub use rootfs::{CgroupMounts, Pivot, RootfsContext, RootfsPlan, rootfs_plan};
pub use terminal::{TerminalPlan, terminal_plan};

use carrack_sys::exec::CVec;
use carrack_sys::late::Batch;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// How the child comes into its namespaces and cgroups.
#[derive(Debug, Default)]
pub struct Birth {
    /// Namespaces that clone3 makes.
    pub clone_flags: u64,
    /// Namespaces that the parent visits for the clone: file and `CLONE_NEW…` flag.
    pub parent_joins: Vec<(OwnedFd, u64)>,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<OwnedFd>,
    /// v1 `tasks` files: the child writes itself into each.
    pub tasks: Batch,
    /// Namespaces to enter, in this order: file or pidfd, and `CLONE_NEW…` flags.
    pub joins: Vec<(OwnedFd, u64)>,
    /// Namespaces to leave for new ones after the joins.
    pub unshare: u64,
    /// Clone once more after joins and unshare: pid namespaces count for children only.
    pub second: bool,
    /// Make a time namespace, once it is clear who is in it.
    pub clocks: bool,
    /// Wait for the parent's GO before anything else.
    pub wait: bool,
    /// Become user and group 0 of the user namespace.
    pub become_root: bool,
    /// Become a new session's leader.
    pub session: bool,
    /// Signals that get their default action, which exec would else hand on ignored: signal n as bit n - 1.
    pub ignored: u32,
    /// Processes of a container can see the child before it is one of them.
    pub hidden: bool,
}

/// Where a mount comes from.
#[derive(Debug)]
pub enum Source {
    /// A detached mount the parent made, attributes already set.
    Tree(OwnedFd),
    /// A host path that the child clones itself (the parent has no right to).
    Path(CString),
    /// A path inside the container's root, cloned by the child when its turn comes: earlier mounts
    /// of the same configuration show there.
    Inside(CString),
}

/// A hook that the child runs.
#[derive(Debug)]
pub struct HookPlan {
    /// The program.
    pub path: CString,
    /// Its arguments.
    pub argv: CVec,
    /// Its environment.
    pub envp: CVec,
    /// Milliseconds until it is killed.
    pub timeout_ms: Option<i64>,
}

/// Hooks of the child and their streams.
#[derive(Debug, Default)]
pub struct Hooks {
    /// Run in the container's namespaces, before the root changes.
    pub create_container: Vec<HookPlan>,
    /// Run in the container, just before its program.
    pub start_container: Vec<HookPlan>,
    /// The state as JSON for each of the two lists: files, read from their start.
    pub states: Option<[OwnedFd; 2]>,
    /// A file that takes what the hooks print.
    pub output: Option<OwnedFd>,
}

/// All that init needs.
#[derive(Debug)]
pub struct InitPlan {
    /// Namespaces and cgroups.
    pub birth: Birth,
    /// The checked handle of the host's procfs.
    pub proc: OwnedFd,
    /// Lines for `/proc/self/timens_offsets`.
    pub time_offsets: Option<CString>,
    /// Name of a new session keyring.
    pub keyring: Option<CString>,
    /// Bring the loopback interface up.
    pub loopback: bool,
    /// The root file system; `None` when the mount namespace is the caller's.
    pub rootfs: RootfsPlan,
    /// Ask the parent to run the hooks of the runtime namespace.
    pub run_hooks: bool,
    /// Hooks of the child.
    pub hooks: Hooks,
    /// Host name.
    pub hostname: Option<CString>,
    /// NIS domain name.
    pub domainname: Option<CString>,
    /// Kernel parameters: path below procfs and value.
    pub sysctl: Vec<(CString, CString)>,
    /// The process.
    pub process: ProcessPlan,
    /// Limits and OOM score are set by the parent: a new user namespace has no right to.
    pub outside_limits: bool,
    /// The fifo that start writes to; `None` to go on at once.
    pub start: Option<OwnedFd>,
}
