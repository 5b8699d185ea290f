//! Records of containers: made by `run`, listed by `ps`, removed by `rm` or with the container.

use crate::engine::lock;
use crate::{Engine, EngineError};
use carrack_spec::ContainerId;
use carrack_task::{Call, Exit, TaskError};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::time::{Duration, Instant};

const RECORD_VERSION: u32 = 1;
/// Longest wait for a monitor that was told to delete its container, in milliseconds.
const REMOVE_TIMEOUT_MS: u64 = 20_000;
/// Time between two looks at a monitor that ends.
const LOOK: Duration = Duration::from_millis(5);
const EXIT_BYTES_MAX: usize = 4096;

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    version: u32,
    /// Its id.
    pub id: String,
    /// Name of the image.
    pub image: String,
    /// The command line inside.
    pub command: Vec<String>,
    /// When it was made, seconds since the epoch.
    pub created: u64,
    /// It is removed when it ends.
    pub remove: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerStatus {
    /// Its monitor lives.
    Running,
    /// It ended.
    Exited(Exit),
    /// Its monitor was killed, so nobody knows how it ended.
    Unknown,
}

impl ContainerRecord {
    pub(crate) fn new(id: &ContainerId, image: &str, command: &[String], remove: bool) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            version: RECORD_VERSION,
            id: id.to_string(),
            image: image.to_owned(),
            command: command.to_vec(),
            created: now.map_or(0, |d| d.as_secs()),
            remove,
        }
    }
}

impl Engine {
    /// Every container with a record, oldest first. One that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// The run-time state cannot be listed.
    pub fn containers(&self) -> Result<Vec<(ContainerRecord, ContainerStatus)>, EngineError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            let Ok(text) = std::fs::read(self.directory(&id).join("container.json")) else {
                continue;
            };
            match serde_json::from_slice::<ContainerRecord>(&text) {
                Ok(record) if record.version == RECORD_VERSION => {
                    found.push((record, self.status(&id)))
                }
                Ok(record) => {
                    log::warn!("container {id} has a record of version {}", record.version)
                }
                Err(error) => log::warn!("the record of container {id} is damaged: {error}"),
            }
        }
        found.sort_by_key(|(record, _)| record.created);
        Ok(found)
    }

    /// Removes a container; one that runs only with `force`, which kills it.
    ///
    /// # Errors
    /// [`EngineError::NoContainer`], [`EngineError::Running`].
    pub fn remove(&self, name: &str, force: bool) -> Result<String, EngineError> {
        let id = self.find(name)?;
        let directory = self.directory(id.as_str());
        let running = || EngineError::Running(name.to_owned());
        // Who makes a container holds this lock until its own is taken: without it, one that is
        // being made would look dead, and a look at its lock would be in the maker's way.
        let mut alone = self.lock_alone()?;
        if self.is_alive(id.as_str()) {
            if !force {
                return Err(running());
            }
            drop(alone);
            self.end(&id, name)?;
            alone = self.lock_alone()?;
            if self.is_alive(id.as_str()) {
                return Err(running());
            }
        } else if matches!(self.status(id.as_str()), ContainerStatus::Unknown) {
            self.delete_by_force(id.as_str());
        }
        for path in [self.store.snapshot_path(&id), directory] {
            match std::fs::remove_dir_all(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(EngineError::io("remove", path)(e));
                }
                _ => {}
            }
        }
        drop(alone);
        Ok(id.to_string())
    }

    /// Has the monitor delete a running container, and waits for the monitor's end.
    fn end(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        let patience = Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS);
        let mut told = false;
        while self.is_alive(id.as_str()) {
            if !told {
                told = match self.tell_to_delete(id) {
                    Ok(()) => true,
                    // One that begins does not listen yet, and one that ends no more.
                    Err(error) if Instant::now() > patience => return Err(error),
                    Err(_) => false,
                };
            }
            if Instant::now() > patience {
                return Err(EngineError::Running(name.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn tell_to_delete(&self, id: &ContainerId) -> Result<(), EngineError> {
        let call = Call::Delete {
            id: id.clone().into(),
            force: true,
        };
        match self.find_monitor(id.as_str())?.call(call) {
            Ok(_) | Err(TaskError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn lock_alone(&self) -> Result<Option<File>, EngineError> {
        lock(&self.runroot.join("lock"), FlockOperation::LockExclusive)
    }

    /// Removes what killed monitors and killed engines left of containers that should be gone.
    ///
    /// # Errors
    /// The run-time state cannot be listed or locked.
    pub fn sweep(&self) -> Result<(), EngineError> {
        let Some(_alone) = lock(
            &self.runroot.join("lock"),
            FlockOperation::NonBlockingLockExclusive,
        )?
        else {
            return Ok(());
        };
        for id in self.ids()? {
            let directory = self.directory(&id);
            if self.is_alive(&id) {
                continue;
            }
            let text = std::fs::read(directory.join("container.json"));
            let record = text
                .ok()
                .and_then(|t| serde_json::from_slice::<ContainerRecord>(&t).ok());
            // Without a record the engine died before the monitor started.
            if record.is_none_or(|r| r.remove) {
                if self.runroot.join("runtime").join(&id).exists() {
                    self.delete_by_force(&id);
                }
                if let Err(error) = std::fs::remove_dir_all(&directory) {
                    log::warn!(
                        "cannot remove the leftover {}: {error}",
                        directory.display()
                    );
                }
            }
        }
        self.store.sweep_snapshots(&self.runroot, |id| {
            self.directory(id).is_dir() || self.keeps_mount(id)
        });
        Ok(())
    }

    fn ids(&self) -> Result<Vec<String>, EngineError> {
        let path = self.runroot.join("containers");
        let entries = std::fs::read_dir(&path).map_err(EngineError::io("list", &path))?;
        Ok(entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect())
    }

    /// By name, by id, or by an unambiguous start of one.
    fn find(&self, name: &str) -> Result<ContainerId, EngineError> {
        let ids = self.ids()?;
        let exact = ids.iter().find(|id| *id == name);
        let mut starting = ids
            .iter()
            .filter(|id| !name.is_empty() && id.starts_with(name));
        let only = match (starting.next(), starting.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        };
        let id = exact
            .or(only)
            .ok_or_else(|| EngineError::NoContainer(name.to_owned()))?;
        id.parse()
            .map_err(|_| EngineError::NoContainer(name.to_owned()))
    }

    fn is_alive(&self, id: &str) -> bool {
        let path = self.directory(id).join("lock");
        path.exists() && matches!(lock(&path, FlockOperation::NonBlockingLockShared), Ok(None))
    }

    fn status(&self, id: &str) -> ContainerStatus {
        if self.is_alive(id) {
            return ContainerStatus::Running;
        }
        let text = std::fs::read(self.directory(id).join("exit.json")).unwrap_or_default();
        match text.len() <= EXIT_BYTES_MAX {
            true => serde_json::from_slice(&text)
                .map_or(ContainerStatus::Unknown, ContainerStatus::Exited),
            false => ContainerStatus::Unknown,
        }
    }
}
