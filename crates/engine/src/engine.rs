//! The engine: a store, a directory of run-time state, and the program that runs containers.
//!
//! # Layout of the run-time state
//!
//! ```text
//! RUNROOT/                   mode 0700
//!   lock                     flock: shared by who makes a container, exclusive by who removes or sweeps
//!   runtime/                 the state of carrack-runtime
//!   containers/ID/           the bundle, and the monitor's directory
//!     lock                   flock: exclusive as long as the monitor lives
//!     container.json         the record, written before the monitor starts
//!     config.json rootfs/ hostname hosts resolv.conf monitor.log task.sock exit.json
//! ```
//!
//! A directory whose `lock` is free belongs to a container that ended, or whose monitor was killed.

use crate::EngineError;
use carrack_store::{DriverKind, Store};
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the program that makes containers.
const RUNTIME: &str = "carrack-runtime";

/// Where everything is.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The store; the default depends on the user.
    pub root: Option<PathBuf>,
    /// Run-time state; the default depends on the user.
    pub runroot: Option<PathBuf>,
    /// The driver that the store must have, or is made with; without it any, and the usual one.
    pub storage_driver: Option<DriverKind>,
    /// `carrack-runtime`; found beside this program or in PATH by default.
    pub runtime: Option<PathBuf>,
}

/// An engine over one store and one directory of run-time state.
#[derive(Debug)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) runroot: PathBuf,
    runtime: Option<PathBuf>,
}

impl EngineOptions {
    /// With the places of the user who runs this, where none were named.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        let (root, runroot) = defaults();
        Self {
            root: self.root.or(Some(root)),
            runroot: self.runroot.or(Some(runroot)),
            ..self
        }
    }
}

impl Engine {
    /// Opens the store and the run-time state, and makes what is missing.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let (root, runroot) = defaults();
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(EngineError::io("find", &path));
        let root = absolute(options.root.unwrap_or(root))?;
        let runroot = absolute(options.runroot.unwrap_or(runroot))?;
        let containers = runroot.join("containers");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&containers)
            .map_err(EngineError::io("make the directory", &containers))?;
        Ok(Self {
            store: Store::open_with(root, options.storage_driver)?,
            runroot,
            runtime: options.runtime,
        })
    }

    /// The images.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.runroot.join("containers").join(id)
    }

    /// `carrack-runtime`: as configured, from `CARRACK_RUNTIME`, beside this program, or in PATH.
    pub(crate) fn runtime(&self) -> Result<PathBuf, EngineError> {
        if let Some(named) = self
            .runtime
            .clone()
            .or_else(|| std::env::var_os("CARRACK_RUNTIME").map(PathBuf::from))
        {
            return Ok(named);
        }
        let own = std::env::current_exe().ok();
        let beside = own
            .as_deref()
            .and_then(Path::parent)
            .map(|d| d.join(RUNTIME));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&paths).map(|d| d.join(RUNTIME));
        beside
            .into_iter()
            .chain(in_path)
            .find(|p| p.is_file())
            .ok_or(EngineError::NoRuntime)
    }
}

/// Opens (and makes) a lock file and locks it; `None` when another process has it and `operation` does not wait.
pub(crate) fn lock(path: &Path, operation: FlockOperation) -> Result<Option<File>, EngineError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(EngineError::io("open", path))?;
    match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(EngineError::io("lock", path)(error.into())),
    }
}

/// Store and run-time state of root, or of the user by the XDG base directories.
fn defaults() -> (PathBuf, PathBuf) {
    let uid = rustix::process::geteuid();
    // Root of a user namespace may be an ordinary user, who has no part in the system's directories.
    let is_ours = || rustix::fs::access("/run", rustix::fs::Access::WRITE_OK).is_ok();
    if uid.is_root() && is_ours() {
        return ("/var/lib/carrack".into(), "/run/carrack".into());
    }
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let home = variable("HOME").unwrap_or_else(|| "/".into());
    let data = variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
    let runtime =
        variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", uid.as_raw()).into());
    (data.join("carrack"), runtime.join("carrack"))
}
