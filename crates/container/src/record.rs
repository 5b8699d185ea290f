//! A container on disk: its directory in the state root and the record in it.
//!
//! ```text
//! ROOT/
//!   ID/                  0711, made by create, removed by delete
//!     state.json         the record; replaced by rename, so a reader sees a whole one
//!     config.json        the configuration as it was at create
//!     criu-root/         there during a restore: criu's root, a mount in a namespace of criu's own
//!     exec.fifo          there while the container waits for start
//!   @seccomp/            compiled filters by digest of profile and architecture
//! ```
//! `state.json` has the names that other programs read in runc's file, and our
//! own facts under `carrack`. It is written before the first cgroup exists, so
//! that a create that was killed half-way can still be deleted. Nothing here
//! survives a reboot, so nothing is synced.

use crate::error::Error;
use crate::namespaces::KINDS;
use crate::procfs;
use carrack_spec::ContainerId;
use carrack_spec::runtime::{State, Status};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of the `carrack` part of the record.
const RECORD_VERSION: u32 = 1;
/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// A container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The container.
    pub id: String,
    /// Its init process as the host sees it; 0 before it exists.
    pub init_process_pid: i32,
    /// Init's start time in clock ticks since boot; with the pid it names the process for good.
    pub init_process_start: u64,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// What other programs look up in runc's record.
    pub config: RecordConfig,
    /// The caller was no root.
    pub rootless: bool,
    /// Cgroup directories by controller; the empty name is v2.
    pub cgroup_paths: BTreeMap<String, String>,
    /// Namespace files of init by runc's names.
    pub namespace_paths: BTreeMap<String, String>,
    /// What init's standard streams were, for checkpoints.
    #[serde(default)]
    pub external_descriptors: Vec<String>,
    /// The resctrl group.
    #[serde(default)]
    pub intel_rdt_path: String,
    /// Our own facts.
    pub carrack: Own,
}

/// The part of runc's configuration that other programs read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecordConfig {
    /// The root file system on the host, absolute.
    pub rootfs: String,
    /// `bundle=PATH` and the annotations as `NAME=value`.
    pub labels: Vec<String>,
}

/// Facts that only this runtime reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Own {
    /// Version of this part.
    pub version: u32,
    /// The bundle, absolute.
    pub bundle: String,
    /// The specification version of the configuration.
    pub oci_version: String,
    /// The user who created the container.
    pub owner: u32,
    /// The process that is creating the container, while init does not exist.
    pub creator: i32,
    /// Its start time.
    pub creator_start: u64,
    /// Namespaces (`CLONE_NEW…`) that init does not share with the runtime.
    pub namespaces: u64,
    /// The cgroup was made by systemd.
    pub systemd: bool,
    /// By the user's own systemd.
    pub systemd_user: bool,
    /// `linux.cgroupsPath` as it was asked for.
    pub cgroups_path: String,
    /// The cgroup may be missing for lack of rights.
    pub rootless_cgroups: bool,
    /// The resctrl group was made for this container.
    pub intel_rdt_made: bool,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// A record for a container that is about to be made.
    pub(crate) fn new(id: &ContainerId) -> Self {
        let owner = rustix::process::geteuid();
        Self {
            id: id.as_str().to_owned(),
            init_process_pid: 0,
            init_process_start: 0,
            created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
            config: RecordConfig::default(),
            rootless: !owner.is_root(),
            cgroup_paths: BTreeMap::new(),
            namespace_paths: BTreeMap::new(),
            external_descriptors: Vec::new(),
            intel_rdt_path: String::new(),
            carrack: Own {
                version: RECORD_VERSION,
                owner: owner.as_raw(),
                ..Own::default()
            },
        }
    }

    /// The bundle.
    pub fn bundle(&self) -> &Path {
        Path::new(&self.carrack.bundle)
    }

    /// The root file system on the host.
    pub fn rootfs(&self) -> &Path {
        Path::new(&self.config.rootfs)
    }

    /// The state as the specification defines it.
    pub(crate) fn state(&self, status: Status) -> State {
        State {
            oci_version: self.carrack.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: match status {
                Status::Stopped => 0,
                _ => self.init_process_pid,
            },
            bundle: self.carrack.bundle.clone(),
            annotations: self.carrack.annotations.clone(),
        }
    }

    /// Notes which process is init.
    pub(crate) fn note_init(&mut self, proc: BorrowedFd<'_>, pid: i32) {
        self.init_process_pid = pid;
        self.init_process_start = procfs::start_time(proc, pid).unwrap_or(0);
        self.namespace_paths = KINDS
            .iter()
            .map(|(_, _, _, file, name)| ((*name).to_owned(), format!("/proc/{pid}/ns/{file}")))
            .collect();
    }
}

/// What the standard streams are, in the kernel's words: a checkpoint names pipes by them.
pub fn stream_names(proc: &OwnedFd, stdio: Option<&[OwnedFd; 3]>) -> Vec<String> {
    let number = |index| stdio.map_or(index, |stdio| stdio[index as usize].as_raw_fd());
    (0..3)
        .map(|index| {
            let link = format!("self/fd/{}", number(index));
            rustix::fs::readlinkat(proc, link, Vec::new())
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
        .collect()
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The directory of `id`, which need not exist.
    pub fn of(root: &Path, id: &ContainerId) -> Self {
        Self {
            path: root.join(id.as_str()),
        }
    }

    /// Makes the directory (and the root above it).
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn create(root: &Path, id: &ContainerId) -> Result<Self, Error> {
        let path = root.join(id.as_str());
        let make = || fs::DirBuilder::new().mode(0o711).create(&path);
        let made = match make() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let failed = |e| Error::path("cannot make the state root", root, e);
                fs::DirBuilder::new()
                    .mode(0o711)
                    .recursive(true)
                    .create(root)
                    .map_err(failed)?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(Self { path }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists {
                id: id.as_str().to_owned(),
            }),
            Err(e) => Err(Error::path("cannot make the state directory", &path, e)),
        }
    }

    /// The fifo that start writes to.
    pub fn fifo(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    /// Makes the fifo.
    pub fn make_fifo(&self) -> Result<OwnedFd, Error> {
        let path = self.fifo();
        let failed = |e| Error::path("cannot make", &path, e);
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).map_err(failed)?;
        // Open for both ends: init then never sees an end of file, and start sees that init lives.
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    }

    /// A path in the directory.
    pub fn below(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the fifo is there: the container waits for start.
    pub fn waits_for_start(&self) -> bool {
        rustix::fs::access(self.fifo(), rustix::fs::Access::EXISTS).is_ok()
    }

    /// The copy of the configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Keeps the configuration.
    pub fn save_config(&self, text: &[u8]) -> Result<(), Error> {
        let path = self.config();
        write_new(&path, text).map_err(|e| Error::path("cannot write", &path, e))
    }

    /// Replaces the record.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.path.join("state.json");
        let temporary = self.path.join("state.json.new");
        let failed = |e| Error::path("cannot write", &path, e);
        let text = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        write_new(&temporary, &text).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such container.
    pub fn load(&self) -> Result<Record, Error> {
        let path = self.path.join("state.json");
        let text = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { id: self.name() },
            _ => Error::path("cannot read", &path, e),
        })?;
        carrack_spec::runtime::parse_json(&text, RECORD_BYTES_MAX)
            .map_err(|source| Error::Parse { path, source })
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Removes the directory when it has no record: its create was killed before it had made
    /// anything else. A record that is written meanwhile stays.
    pub fn remove_remains(&self) -> Result<(), Error> {
        for name in ["config.json", "state.json.new"] {
            let _ = fs::remove_file(self.path.join(name));
        }
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::path("cannot remove", &self.path, e))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directory and all in it; fine when it is gone already.
    pub fn remove(&self) -> Result<(), Error> {
        // The usual files first: four calls instead of a walk.
        for name in ["config.json", "state.json"] {
            let _ = fs::remove_file(self.path.join(name));
        }
        match fs::remove_dir(&self.path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        fs::remove_dir_all(&self.path).map_err(|e| Error::path("cannot remove", &self.path, e))
    }
}

fn write_new(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text)
}
