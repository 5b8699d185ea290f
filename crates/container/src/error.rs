//! Errors of the runtime, and the prose for what a child reports.

use crate::init::report::{Fail, Stage};
use carrack_spec::runtime::{ParseError, Status};
use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this id.
    #[error("container does not exist: {id}")]
    NotFound {
        /// The id.
        id: String,
    },
    /// A container has this id already.
    #[error("container with given ID already exists: {id}; delete it first or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// The container has stopped.
    #[error("container not running: {id}")]
    NotRunning {
        /// The id.
        id: String,
    },
    /// Only a stopped container can be deleted without force.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The id.
        id: String,
        /// Where it is.
        status: Status,
    },
    /// The operation does not fit where the container is in its life.
    #[error("cannot {verb} container {id:?} that is {status}")]
    WrongStatus {
        /// What was asked for.
        verb: &'static str,
        /// The container.
        id: String,
        /// Where it is.
        status: Status,
    },
    /// A property of the configuration is wrong or cannot be honoured here.
    #[error("config.json: {field}: {reason}")]
    Invalid {
        /// Dotted path of the property.
        field: String,
        /// Why.
        reason: String,
    },
    /// A setting of a builder is wrong.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// A document could not be parsed.
    #[error("cannot read {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: ParseError,
    },
    /// An operation of the operating system failed.
    #[error("{what}")]
    System {
        /// What was being done, to what.
        what: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The container's init or exec process failed at a step.
    #[error("{what}{hint}")]
    Child {
        /// The step, in words.
        what: String,
        /// What to do about it, or nothing.
        hint: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
        /// The step.
        stage: u32,
    },
    /// No directory of the container's PATH has the program. In the words that callers of runc look for.
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NoProgram {
        /// As the caller named it.
        program: String,
    },
    /// The child ended without a word.
    #[error("the container's process ended before it was ready ({how})")]
    ChildDied {
        /// Exit code or signal, in words.
        how: String,
    },
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {path}: {reason}")]
    Hook {
        /// Which list.
        kind: &'static str,
        /// Which of the list.
        index: usize,
        /// Its program.
        path: String,
        /// What happened, with what it printed.
        reason: String,
    },
    /// The cgroup could not be made, changed or removed.
    #[error("cgroup")]
    Cgroup(#[from] carrack_cgroup::Error),
    /// The seccomp profile could not be compiled.
    #[error("config.json: linux.seccomp")]
    Seccomp(#[from] carrack_seccomp::CompileError),
    /// criu is not installed.
    #[error("criu is not installed or not in PATH; the package criu has it")]
    NoCriu,
    /// criu is too old.
    #[error("criu is version {found}, and {wanted} needs {needed} or later")]
    OldCriu {
        /// What there is.
        found: String,
        /// What was asked for.
        wanted: &'static str,
        /// What it needs.
        needed: String,
    },
    /// criu could not do it.
    #[error("criu cannot {doing} the container: {reason}; from {}:\n{quote}", log.display())]
    Criu {
        /// Checkpoint or restore.
        doing: &'static str,
        /// What it answered.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The log's errors.
        quote: String,
    },
    /// A helper program failed.
    #[error("{program} failed: {output}")]
    Helper {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
}

impl Error {
    /// A property that is wrong.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// A failed operation.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::System {
            what: what.into(),
            source: source.into(),
        }
    }

    /// A failed operation on a path.
    pub(crate) fn path(what: &str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::system(format!("{what} {}", path.display()), source)
    }

    /// The kernel's answer, where there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } | Self::Child { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether a program to execute was not found (true) or cannot be executed
    /// (false); `None` for every other error.
    pub fn program_missing(&self) -> Option<bool> {
        let (stage, source) = match self {
            Self::NoProgram { .. } => return Some(true),
            Self::Child { stage, source, .. } => (stage, source),
            _ => return None,
        };
        let program = *stage == Stage::Executable.number() || *stage == Stage::Exec.number();
        program.then(|| source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Names for the elements that reports count: what the parent keeps of a plan
/// to turn a [`Fail`] into words.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// `type source -> destination` of each mount.
    pub mounts: Vec<String>,
    /// Paths of the devices.
    pub devices: Vec<String>,
    /// Names of the kernel parameters.
    pub sysctl: Vec<String>,
    /// Names of the limits.
    pub rlimits: Vec<String>,
    /// Namespaces joined, in order.
    pub joins: Vec<String>,
    /// Masked and read-only paths.
    pub masked: Vec<String>,
    /// Read-only paths.
    pub readonly: Vec<String>,
    /// Paths of the createContainer and startContainer hooks.
    pub hooks: [Vec<String>; 2],
    /// The program as the caller named it.
    pub program: String,
    /// The working directory.
    pub cwd: String,
    /// The root file system on the host.
    pub rootfs: String,
    /// User and group.
    pub user: String,
}

impl Names {
    /// Puts a report into words.
    pub fn explain(&self, fail: &Fail, hook_output: &str) -> Error {
        use rustix::io::Errno;
        let index = fail.index as usize;
        let hook = |kind, list: &Vec<String>| Error::Hook {
            kind,
            index,
            path: list.get(index).cloned().unwrap_or_default(),
            reason: match hook_output.trim() {
                "" => crate::init::hooks::explain(fail).to_owned(),
                output => format!(
                    "{}; it printed: {output}",
                    crate::init::hooks::explain(fail)
                ),
            },
        };
        match fail.stage {
            Stage::CreateContainerHook => return hook("createContainer", &self.hooks[0]),
            Stage::StartContainerHook => return hook("startContainer", &self.hooks[1]),
            Stage::Executable if fail.errno == Errno::NOENT && !self.program.contains('/') => {
                let program = self.program.clone();
                return Error::NoProgram { program };
            }
            _ => {}
        }
        let (what, hint) = self.words(fail);
        Error::Child {
            what,
            hint: hint.to_owned(),
            source: fail.errno.into(),
            stage: fail.stage.number(),
        }
    }

    fn words(&self, fail: &Fail) -> (String, &'static str) {
        use rustix::io::Errno;
        let index = fail.index as usize;
        let at = |list: &[String]| {
            list.get(index)
                .cloned()
                .unwrap_or_else(|| format!("#{index}"))
        };
        let plain = |what: &str| (what.to_owned(), "");
        match fail.stage {
            Stage::Wait => plain("cannot talk to the runtime"),
            Stage::JoinNamespace => (format!("cannot join the {} namespace", at(&self.joins)), ""),
            Stage::NewNamespace => plain("cannot make new namespaces"),
            Stage::TimeOffsets => plain("cannot set linux.timeOffsets"),
            Stage::Cgroup => plain("cannot enter the cgroup"),
            Stage::BecomeRoot => (
                "cannot become root of the user namespace".into(),
                " (do uidMappings and gidMappings map id 0?)",
            ),
            Stage::Session => plain("cannot start a session"),
            Stage::Keyring => plain("cannot join a session keyring"),
            Stage::OomScore => plain("cannot set process.oomScoreAdj"),
            Stage::Loopback => plain("cannot bring the loopback interface up"),
            Stage::Propagation => plain("cannot set the propagation of the root mount"),
            Stage::RootTree => (
                format!("cannot open the root file system {}", self.rootfs),
                "",
            ),
            Stage::RootAttach => (
                format!("cannot attach the root file system {}", self.rootfs),
                "",
            ),
            Stage::MountSource => (
                format!("cannot open the source of mount {}", at(&self.mounts)),
                "",
            ),
            Stage::MountDestination => (
                format!(
                    "cannot make or open the destination of mount {}",
                    at(&self.mounts)
                ),
                match fail.errno {
                    Errno::PERM => " (it leads onto procfs)",
                    Errno::LOOP => {
                        " (a symbolic link stands in the way; proc and sysfs \
                          must be mounted on ordinary directory entries)"
                    }
                    _ => "",
                },
            ),
            Stage::Mount => (
                format!("cannot mount {}", at(&self.mounts)),
                match fail.errno {
                    Errno::NODEV => " (this kernel does not know the file system type)",
                    Errno::PERM => {
                        " (the user namespace does not own what the mount shows, \
                                    or the file system cannot be mounted in one)"
                    }
                    _ => "",
                },
            ),
            Stage::MountAttributes => (
                format!("cannot set the options of mount {}", at(&self.mounts)),
                "",
            ),
            Stage::CopyUp => (format!("cannot copy into mount {}", at(&self.mounts)), ""),
            Stage::CgroupMount => plain("cannot mount the cgroup hierarchy"),
            Stage::Device => (
                format!("cannot make the device {}", at(&self.devices)),
                match fail.errno {
                    Errno::EXIST => " (the image has something else at that path)",
                    _ => "",
                },
            ),
            Stage::DeviceLink => plain("cannot make the links in /dev"),
            Stage::Console => (
                "cannot open a terminal".into(),
                " (process.terminal needs a devpts mount at /dev/pts)",
            ),
            Stage::ConsoleSend => plain("cannot send the terminal to the console socket"),
            Stage::ConsoleMount => plain("cannot mount the terminal at /dev/console"),
            Stage::Pivot => (
                "cannot make the root file system the root".into(),
                match fail.errno {
                    Errno::INVAL => " (on an initramfs, --no-pivot is needed)",
                    _ => "",
                },
            ),
            Stage::RootAttributes => plain("cannot make the root file system read-only"),
            Stage::Sysctl => (
                format!("cannot set the kernel parameter {}", at(&self.sysctl)),
                match fail.errno {
                    Errno::NOENT => " (this kernel does not have it)",
                    Errno::ROFS | Errno::ACCESS => {
                        " (it does not belong to the container's namespaces)"
                    }
                    _ => "",
                },
            ),
            Stage::ReadonlyPath => (format!("cannot make {} read-only", at(&self.readonly)), ""),
            Stage::MaskedPath => (
                format!("cannot mask {}", at(&self.masked)),
                match fail.errno {
                    Errno::NODEV | Errno::NOENT => {
                        " (/dev/null of the container is not the null device)"
                    }
                    _ => "",
                },
            ),
            Stage::Hostname => plain("cannot set the host name"),
            Stage::Domainname => plain("cannot set the domain name"),
            Stage::Rlimit => (format!("cannot set the limit {}", at(&self.rlimits)), ""),
            Stage::Scheduler => (
                "cannot set process.scheduler".into(),
                match fail.errno {
                    Errno::PERM => {
                        " (without CAP_SYS_NICE only less urgent ones; for SCHED_DEADLINE, \
                          process scheduler can't be used together with AllowedCPUs, \
                          that is linux.resources.cpu.cpus)"
                    }
                    _ => "",
                },
            ),
            Stage::IoPriority => plain("cannot set process.ioPriority"),
            Stage::MemoryPolicy => plain("cannot set linux.memoryPolicy"),
            Stage::CpuAffinity => plain("cannot set process.execCPUAffinity"),
            Stage::Personality => plain("cannot set linux.personality"),
            Stage::NoNewPrivileges => plain("cannot set process.noNewPrivileges"),
            Stage::Apparmor => (
                "cannot apply process.apparmorProfile".into(),
                match fail.errno {
                    Errno::NOENT => " (the profile is not loaded, or AppArmor is off)",
                    _ => " (is AppArmor on in this kernel?)",
                },
            ),
            Stage::Selinux => (
                "cannot apply process.selinuxLabel".into(),
                " (SELinux is off, or its policy does not know the label)",
            ),
            Stage::Cwd => (
                format!("cannot enter the working directory {}", self.cwd),
                "",
            ),
            Stage::CwdOutside => (
                format!(
                    "the working directory {} is outside of the container",
                    self.cwd
                ),
                " (it leads through a descriptor of the host)",
            ),
            Stage::Groups => plain("cannot set process.user.additionalGids"),
            Stage::User => (
                format!("cannot become user {}", self.user),
                " (is it mapped in the user namespace?)",
            ),
            Stage::Capabilities => (
                "cannot set process.capabilities".into(),
                match fail.errno {
                    Errno::PERM => " (is each inheritable one in the bounding set?)",
                    _ => "",
                },
            ),
            Stage::Seccomp => plain("cannot load the seccomp filter"),
            Stage::SeccompListener => plain("cannot hand on the seccomp notify descriptor"),
            Stage::Executable => (self.program_words(fail.errno), ""),
            Stage::Exec => (format!("exec {}", self.program), ""),
            Stage::StartWait => plain("cannot wait for start"),
            Stage::Streams => plain("cannot set up the standard streams"),
            Stage::CreateContainerHook | Stage::StartContainerHook => plain("hook"),
        }
    }

    /// In the words that callers of runc look for.
    fn program_words(&self, errno: rustix::io::Errno) -> String {
        let program = &self.program;
        match errno {
            rustix::io::Errno::ISDIR => format!("exec: {program:?}: is a directory"),
            _ => format!("exec: {program:?}"),
        }
    }
}
