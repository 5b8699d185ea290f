//! Checkpoint and restore: the processes of a container to files and back.
//!
//! ```text
//! checkpoint   criu swrk ── dump ──▶ IMAGES/*.img, descriptors.json
//! restore      state directory · record · cgroups
//!              child: own mount namespace · mount points · root ─▶ criu swrk
//!              criu ── notifications ──▶ hooks, terminal, pid ─▶ record
//! ```
//! The work is done by criu(8), a program of its own, spoken to over a socket
//! ([`rpc`]). What lies outside of the container (bind mounts, masks, namespaces
//! given by path, pipes of the standard streams) is named to criu on both
//! sides. Names and files in the images' directory are those of runc, so that
//! each can restore what the other stored.
//!
//! Failure: a dump that fails leaves the container running; a restore that
//! fails leaves nothing, because the mounts are in a namespace that ends with
//! criu, and processes, cgroups and state are undone as in a create. Both quote
//! criu's log. Needs root.

mod attributes;
mod criu;
mod dump;
mod mounts;
mod restore;
pub(crate) mod rpc;
mod wire;

pub use rpc::CgroupsMode;

use crate::options::Console;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// File in the images' directory with the names of init's standard streams.
const DESCRIPTORS: &str = "descriptors.json";

/// What checkpoint and restore have in common.
#[derive(Debug, Default)]
pub struct CriuOptions {
    /// The images' directory.
    pub images: PathBuf,
    /// The directory of criu's log and work files; the images' by default.
    pub work: Option<PathBuf>,
    /// Keep established TCP connections.
    pub tcp_established: bool,
    /// Unix sockets may have a peer outside of the container.
    pub external_unix_sockets: bool,
    /// The session may be one of the outside.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Free images of memory that a later image replaces.
    pub auto_dedup: bool,
    /// Bring memory over when it is touched.
    pub lazy_pages: bool,
    /// What to do with cgroups.
    pub cgroups: CgroupsMode,
}

/// Choices for a checkpoint.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// Those of a restore too.
    pub criu: CriuOptions,
    /// An earlier checkpoint that this one is the difference to, relative to the images.
    pub parent: Option<PathBuf>,
    /// Let the container run on.
    pub leave_running: bool,
    /// Only memory, and let the container run on.
    pub pre_dump: bool,
    /// Leave out TCP connections that nobody has accepted yet.
    pub tcp_skip_in_flight: bool,
    /// Give files without a name a temporary one.
    pub link_remap: bool,
    /// Address and port of a page server that takes the memory.
    pub page_server: Option<(String, u16)>,
    /// Takes a zero byte, and is closed, once lazy pages can be served.
    pub status: Option<OwnedFd>,
}

/// Choices for a restore.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// Those of a checkpoint too.
    pub criu: CriuOptions,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Where the terminal's master goes.
    pub console: Console,
    /// The standard streams; inherited when `None`.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Write init's pid there.
    pub pid_file: Option<PathBuf>,
    /// Security profile to restore with, `apparmor:NAME` or `selinux:LABEL`.
    pub lsm_profile: Option<String>,
    /// SELinux context of restored mounts.
    pub lsm_mount_context: Option<String>,
}

/// The configuration file that criu reads first; what it sets wins. The
/// annotation `org.criu.config` names another, or none.
fn config_file(annotations: &std::collections::BTreeMap<String, String>) -> Option<String> {
    match annotations.get("org.criu.config").map(String::as_str) {
        None => Some("/etc/criu/runc.conf".to_owned()),
        Some("") => None,
        Some(path) => Some(path.to_owned()),
    }
}
