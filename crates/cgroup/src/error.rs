//! What can go wrong with a cgroup, said so that the reader knows what to do.
//!
//! Every variant names the file or field and the value; a kernel errno whose
//! meaning depends on the file is explained in `hint`. `Display` never repeats
//! the source, which `std::error::Error::source` carries.

use std::io;
use std::path::{Path, PathBuf};

/// Failure of a cgroup operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a cgroup file or directory failed.
    #[error("cannot {op} cgroup path {path:?}{hint}")]
    Io {
        /// What was tried: `create`, `open`, `read`, ….
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Empty, or ` (what this errno means here)`.
        hint: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a value.
    #[error("cannot write {value:?} to {path:?}{hint}")]
    Write {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Empty, or ` (what this errno means for this file)`.
        hint: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A cgroup path from outside is not acceptable.
    #[error("cgroup path {path:?} is refused: {reason}")]
    Path {
        /// The path as given.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The machine has no cgroup file system where one is needed.
    #[error(
        "no cgroup file system is mounted at {path:?}; mount cgroup2 there (or the v1 controllers below it)"
    )]
    NotMounted {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A limit was asked for, and the host lacks its controller.
    #[error(
        "`{field}` needs the cgroup controller `{controller}`, which this host does not offer: {reason}"
    )]
    MissingController {
        /// The controller's name.
        controller: &'static str,
        /// The field of `linux.resources`.
        field: String,
        /// Where it was looked for.
        reason: String,
    },
    /// A field has no counterpart on this cgroup version.
    #[error("invalid configuration: `{field}` cannot be carried out: {reason}")]
    Unsupported {
        /// The field of `linux.resources`.
        field: String,
        /// Why.
        reason: &'static str,
    },
    /// A field holds a value no kernel takes.
    #[error("`{field}` is {value}: {reason}")]
    Invalid {
        /// The field of `linux.resources`.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        reason: &'static str,
    },
    /// `checkBeforeUpdate` found more memory in use than the new limit.
    #[error(
        "the memory limit of {limit} bytes is below the {usage} bytes in use; the processes would be killed (checkBeforeUpdate)"
    )]
    BelowUsage {
        /// The wanted limit.
        limit: u64,
        /// What is charged now.
        usage: u64,
    },
    /// The cgroup of a new container exists already and holds processes.
    #[error(
        "the container's cgroup is not empty: {processes} process(es) found in {path:?}; another container uses it, or an old one was not cleaned up"
    )]
    NotEmpty {
        /// The cgroup.
        path: PathBuf,
        /// How many processes it holds.
        processes: usize,
    },
    /// The cgroup of a new container exists already and is frozen.
    #[error(
        "the container's cgroup unexpectedly frozen: {path:?}; thaw it before a container starts in it"
    )]
    Frozen {
        /// The cgroup.
        path: PathBuf,
    },
    /// The caller may not make cgroups here, and a limit was asked for.
    #[error(
        "`{field}` is set, but this user may not create cgroups; have one delegated (systemd: Delegate=yes) or drop the limit"
    )]
    NoRights {
        /// The first limit found.
        field: String,
    },
    /// No process can be put into this group, as none was created.
    #[error(
        "this group has no cgroup of its own (rootless without delegation), so it cannot {what}"
    )]
    NoCgroup {
        /// The operation.
        what: &'static str,
    },
    /// systemd did not do what was asked.
    #[error("cannot {what} the systemd unit {unit}")]
    Systemd {
        /// What was asked.
        what: &'static str,
        /// The unit.
        unit: String,
        /// Its answer, or why there was none.
        #[source]
        source: crate::systemd::BusError,
    },
    /// A command could not be started inside the group.
    #[error("cannot start the command inside its cgroup")]
    Spawn {
        /// The kernel's answer, to the start or to entering the cgroup.
        #[source]
        source: io::Error,
    },
    /// A cgroup could not be removed in time.
    #[error("the cgroup {path:?} is still in use after {waited_ms} ms; processes in it: {pids:?}")]
    Busy {
        /// The cgroup.
        path: PathBuf,
        /// How long it was tried, in milliseconds.
        waited_ms: u64,
        /// What holds it.
        pids: Vec<i32>,
    },
    /// A group did not freeze or thaw in time.
    #[error("the cgroup {path:?} did not become {wanted} within {waited_ms} ms")]
    FreezeTimeout {
        /// The freezer's cgroup.
        path: PathBuf,
        /// `frozen` or `thawed`.
        wanted: &'static str,
        /// How long it was tried, in milliseconds.
        waited_ms: u64,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let hint = match source.raw_os_error() {
            Some(libc_errno::EROFS) => " (the cgroup file system is mounted read-only here)",
            Some(libc_errno::EACCES | libc_errno::EPERM) => {
                " (no right to it: run as root, or in a cgroup delegated to this user)"
            }
            Some(libc_errno::EAGAIN) if op == "create" => {
                " (cgroup.max.depth or cgroup.max.descendants of a parent is reached)"
            }
            Some(libc_errno::EOPNOTSUPP) => {
                " (cgroup.type is threaded or invalid: the parent mixes threads and processes)"
            }
            _ => "",
        };
        Error::Io {
            op,
            path: path.to_owned(),
            hint,
            source,
        }
    }

    /// The errno of the kernel's answer, when there was one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } | Error::Write { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// errno values used in this crate, by name.
pub(crate) mod libc_errno {
    use rustix::io::Errno;
    pub const EROFS: i32 = Errno::ROFS.raw_os_error();
    pub const EACCES: i32 = Errno::ACCESS.raw_os_error();
    pub const EPERM: i32 = Errno::PERM.raw_os_error();
    pub const EAGAIN: i32 = Errno::AGAIN.raw_os_error();
    pub const EOPNOTSUPP: i32 = Errno::OPNOTSUPP.raw_os_error();
    pub const ENOENT: i32 = Errno::NOENT.raw_os_error();
    pub const ENODEV: i32 = Errno::NODEV.raw_os_error();
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
