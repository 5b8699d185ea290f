//! The state of a container, as `state` prints it and hooks receive it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is under way.
    Creating,
    /// The environment exists, the program has not started.
    Created,
    /// The program runs.
    Running,
    /// The program runs but is frozen.
    Paused,
    /// The program has exited.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The specification's `state` (`runtime.md`, "State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The specification version.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its init process as the host sees it; 0 when it is stopped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a seccomp listener receives beside the notify descriptor
/// (`config-linux.md`, "The Container Process State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// The specification version.
    pub oci_version: String,
    /// Names of the descriptors that were passed, in order.
    pub fds: Vec<String>,
    /// The filtered process as the host sees it.
    pub pid: i32,
    /// `listenerMetadata` of the profile.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// State of the container.
    pub state: State,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}
