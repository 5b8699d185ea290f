//! What callers choose beyond the configuration.

use carrack_spec::runtime::{ConsoleSize, Mount, Process, Spec};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Choices for all containers of a state root.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuntimeOptions {
    /// Let systemd make the cgroups.
    pub systemd_cgroup: bool,
    /// Whether cgroups may be missing for lack of rights; by default they may for other users than root.
    pub rootless: Option<bool>,
    /// Refuse what the lenient mode does with a warning: see `docs/strict.md`.
    pub strict: bool,
}

/// Where a terminal's master goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Console {
    /// The process has no terminal of its own.
    #[default]
    None,
    /// To whoever listens on this unix socket.
    Socket(PathBuf),
    /// To the caller.
    Master,
    /// To the caller, who passes the output on as it comes: line ends stay those of the program.
    PlainMaster,
}

/// Choices for one container.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// The bundle's directory; relative paths of the configuration start there.
    pub bundle: PathBuf,
    /// The configuration, instead of the bundle's `config.json`.
    pub spec: Option<Box<Spec>>,
    /// Where the terminal's master goes; needed when `process.terminal` is set.
    pub console: Console,
    /// The standard streams; inherited when `None`.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Move the root mount instead of pivoting.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Write init's pid there.
    pub pid_file: Option<PathBuf>,
    /// More environment for the program.
    pub extra_env: Vec<String>,
    /// Mounts behind those of the configuration.
    pub extra_mounts: Vec<Mount>,
    /// Asked for the size of the terminal instead of the configuration's, when there is one.
    pub console_size: Option<fn() -> Option<ConsoleSize>>,
}

/// Choices for one exec.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// The process to run.
    pub process: Process,
    /// Where the terminal's master goes; needed when `process.terminal` is set.
    pub console: Console,
    /// The standard streams; inherited when `None`.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Sub-cgroups: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH` on v1.
    pub cgroup: Vec<String>,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Write the process' pid there.
    pub pid_file: Option<PathBuf>,
    /// Go on although the container is paused (the process then starts when it is resumed).
    pub ignore_paused: bool,
    /// More environment for the program.
    pub extra_env: Vec<String>,
}
