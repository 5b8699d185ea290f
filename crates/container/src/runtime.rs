//! A state root and the containers in it.

use crate::create;
use crate::error::Error;
use crate::options::{CreateOptions, RuntimeOptions};
use crate::record::{Record, StateDir};
use carrack_spec::ContainerId;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A state root: the directory that keeps what containers exist, and the
/// choices for all of them.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    options: RuntimeOptions,
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    pub(crate) runtime: Runtime,
    pub(crate) id: ContainerId,
    pub(crate) directory: StateDir,
    pub(crate) record: Record,
    /// What the call that made the container knows already.
    pub(crate) made: Option<Made>,
    /// The host's cgroup hierarchies, once they were looked for.
    pub(crate) layout: std::cell::OnceCell<carrack_cgroup::Layout>,
}

/// Knowledge that spares the maker of a container a second look.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its cgroups.
    pub group: carrack_cgroup::Group,
    /// Its configuration.
    pub spec: carrack_spec::runtime::Spec,
}

/// What `create` and `run` give back.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// The terminal's master, for [`crate::Console::Master`].
    pub console: Option<OwnedFd>,
    /// Init, a child of the caller, who reaps it.
    pub pidfd: OwnedFd,
}

impl Runtime {
    /// A runtime with its state at `root`, which is made when the first container is.
    pub fn new(root: impl Into<PathBuf>, options: RuntimeOptions) -> Self {
        Self {
            root: root.into(),
            options,
        }
    }

    /// `/run/carrack-runtime` for root, else the same in the user's runtime directory; also for
    /// root of a user namespace that an ordinary user made, as rootless engines have it.
    pub fn default_root() -> PathBuf {
        const NAME: &str = "carrack-runtime";
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(directory) if !directory.is_empty() && !is_first_root() => {
                Path::new(&directory).join(NAME)
            }
            _ => Path::new("/run").join(NAME),
        }
    }

    /// The state root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The choices for all containers.
    pub fn options(&self) -> &RuntimeOptions {
        &self.options
    }

    /// Makes a container whose init waits for [`Container::start`].
    ///
    /// Needs root, or a user namespace in the configuration. The child dies with
    /// the caller until this returns.
    ///
    /// # Errors
    /// Every [`Error`]; nothing made by the call is left then.
    pub fn create(&self, id: &ContainerId, options: CreateOptions) -> Result<Created, Error> {
        create::create(self, id, options, false)
    }

    /// Makes a container and starts its program at once.
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub fn run(&self, id: &ContainerId, options: CreateOptions) -> Result<Created, Error> {
        create::create(self, id, options, true)
    }

    /// A container that exists.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn load(&self, id: &ContainerId) -> Result<Container, Error> {
        let directory = StateDir::of(&self.root, id);
        let record = directory.load()?;
        Ok(Container::from_parts(
            self.clone(),
            id.clone(),
            directory,
            record,
        ))
    }

    /// Removes what a create that was killed in its first moments left of a container that
    /// [`Runtime::load`] does not find. Fine when there is nothing.
    ///
    /// # Errors
    /// When the directory cannot be removed, or is one of a container after all.
    pub fn remove_remains(&self, id: &ContainerId) -> Result<(), Error> {
        StateDir::of(&self.root, id).remove_remains()
    }

    /// Every container, by id. One that vanishes meanwhile is left out; one whose
    /// record cannot be read is left out with a warning.
    ///
    /// # Errors
    /// When the state root cannot be read.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| Error::path("cannot read", &self.root, e))?,
        };
        let mut ids: Vec<ContainerId> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        ids.sort();
        let mut containers = Vec::with_capacity(ids.len());
        for id in ids {
            match self.load(&id) {
                Ok(container) => containers.push(container),
                Err(Error::NotFound { .. }) => {}
                Err(error) => log::warn!("cannot load container {id}: {error}"),
            }
        }
        Ok(containers)
    }
}

impl Container {
    pub(crate) fn from_parts(
        runtime: Runtime,
        id: ContainerId,
        directory: StateDir,
        record: Record,
    ) -> Self {
        Self {
            runtime,
            id,
            directory,
            record,
            made: None,
            layout: std::cell::OnceCell::new(),
        }
    }

    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The container's record.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// Whether the caller is root where `/run` is root's. In a user namespace, `USER` tells root
/// who made a container for this (which has a `/run` of its own) from a user who became root.
fn is_first_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    let first = || {
        crate::procfs::open().is_ok_and(|proc| crate::procfs::in_first_user_namespace(proc.as_fd()))
    };
    root && (std::env::var_os("USER").is_some_and(|user| user == "root") || first())
}
