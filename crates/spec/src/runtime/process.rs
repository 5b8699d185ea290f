//! `process`: what runs in the container and with which rights.

use super::{is_false, null_default};
use serde::{Deserialize, Serialize};

/// The process of a container, or of an `exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Give the process a pseudo-terminal as its standard streams.
    #[serde(skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// Initial size of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// User and groups.
    pub user: User,
    /// Arguments as for execvp(3); the first is the program.
    #[serde(deserialize_with = "null_default")]
    pub args: Vec<String>,
    /// Windows only; refused when it is all there is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command_line: String,
    /// Environment, `NAME=value`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub env: Vec<String>,
    /// Working directory, absolute; created when it is missing.
    pub cwd: String,
    /// The five capability sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub rlimits: Vec<Rlimit>,
    /// Set `no_new_privs`.
    #[serde(skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
    /// AppArmor profile to enter at exec.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// Value for `/proc/self/oom_score_adj`, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy and parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// SELinux process label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// I/O priority.
    #[serde(rename = "ioPriority", skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU affinity of an exec, before and after it enters the cgroup.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// User and groups of a process, as ids in the container's user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode creation mask; the runtime's default is 0o022.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub additional_gids: Vec<u32>,
    /// Windows only; ignored on Linux by the specification.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
}

/// Capability names (`CAP_…`) of each set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// The bounding set.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub bounding: Vec<String>,
    /// The effective set.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub effective: Vec<String>,
    /// The inheritable set.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub inheritable: Vec<String>,
    /// The permitted set.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub permitted: Vec<String>,
    /// The ambient set.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub ambient: Vec<String>,
}

/// One resource limit, setrlimit(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ceiling; `u64::MAX` is no limit.
    pub hard: u64,
    /// Value in force; `u64::MAX` is no limit.
    pub soft: u64,
}

/// Scheduling attributes, sched_setattr(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO`, `SCHED_RR`, `SCHED_BATCH`, `SCHED_ISO`, `SCHED_IDLE`, `SCHED_DEADLINE`.
    pub policy: String,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// `SCHED_FLAG_…`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub flags: Vec<String>,
    /// Nanoseconds of run time a period, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<u64>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

/// I/O priority, ioprio_set(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0 (first) to 7 (last).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// CPU lists (`0-3,7`) for an exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// Before the process enters the container's cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub initial: String,
    /// After it entered the cgroup.
    #[serde(rename = "final", skip_serializing_if = "String::is_empty")]
    pub last: String,
}
