//! What can go wrong in a verb, and the exit code that says so.

use crate::compose::ComposeError;
use crate::user::UserError;
use carrack_store::{ImageError, LoadError, SnapshotError, StoreError};
use carrack_task::{FailureKind, TaskError};
use std::path::PathBuf;

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An image cannot be brought from or to a registry.
    #[error(transparent)]
    Images(#[from] crate::images::ImagesError),
    /// An image cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An image cannot be found, read or removed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writable layer cannot be made or mounted.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The user is unknown.
    #[error(transparent)]
    User(#[from] UserError),
    /// The flags do not make a container.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// A file of the container's run-time state cannot be used.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name is taken.
    #[error(
        "the container name {0:?} is in use; remove it with `carrack rm {0}` or choose another name"
    )]
    NameInUse(String),
    /// No container has the name.
    #[error("no container {0:?}; see `carrack ps -a`")]
    NoContainer(String),
    /// The container runs.
    #[error("container {0:?} is running; stop it, or use --force")]
    Running(String),
    /// A damaged image cannot be fetched again.
    #[error("{0}")]
    NotFetched(String),
    /// The image is not mounted.
    #[error("image {0:?} is not mounted; see `carrack image mount`")]
    NotMounted(String),
    /// `carrack-runtime` was not found.
    #[error(
        "carrack-runtime is neither beside this program nor in PATH; install it, or name it in CARRACK_RUNTIME"
    )]
    NoRuntime,
    /// The monitor did not come up, or went away.
    #[error("the monitor of container {id} ended unexpectedly{log}")]
    MonitorDied {
        /// The container.
        id: String,
        /// Its last words, after a colon, or nothing.
        log: String,
    },
    /// The monitor cannot be reached or refused.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl EngineError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What a person can do about it, when that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            _ => None,
        }
    }

    /// Exit code as docker's users know it: 127 the command is not there, 126 it cannot be executed, 125
    /// everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Task(TaskError::Failed(failure)) => match failure.kind {
                FailureKind::NoProgram => 127,
                FailureKind::NotExecutable => 126,
                _ => 125,
            },
            _ => 125,
        }
    }
}
