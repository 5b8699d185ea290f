//! The messages.
//!
//! | call | descriptors with it | answer | what it does |
//! |---|---|---|---|
//! | `Create` | root mount if `root`; then stdin, stdout, stderr unless `terminal` | `Created` (+ terminal) | makes the container of a bundle, and starts it with `start` |
//! | `Start` | | `Done` | starts a created container |
//! | `Exec` | stdin, stdout, stderr unless `terminal` | `Created` (+ terminal) | starts another process |
//! | `Signal` | | `Done` | signals one process, or all of the container |
//! | `Resize` | | `Done` | sets the size of a process's terminal |
//! | `State` | | `State` | where the container is in its life |
//! | `Delete` | | `Done` | removes a stopped container, or any with `force` |
//!
//! | event | when |
//! |---|---|
//! | `Exited` | a container's first process or an exec ended; for a container, its record is durable and, if it was created with `release`, everything of it is gone |

use carrack_spec::ContainerId;
use carrack_spec::runtime::{ConsoleSize, Process, Status};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// One frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// The first message of each side.
    Hello {
        /// The sender's [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
        version: u32,
    },
    /// A request of the engine.
    Call {
        /// Chosen by the engine, repeated in the answer.
        seq: u64,
        /// What to do.
        call: Box<Call>,
    },
    /// The call succeeded.
    Done {
        /// Of the call.
        seq: u64,
        /// What came of it.
        answer: Answer,
    },
    /// The call failed and changed nothing that lasts.
    Failed {
        /// Of the call.
        seq: u64,
        /// Why.
        failure: Failure,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value at a time, on its way to or from a frame"
)]
pub enum Call {
    /// Makes a container.
    Create(Create),
    /// Starts a created container.
    Start {
        /// Which.
        id: Id,
    },
    /// Starts another process in a container.
    Exec(Exec),
    /// Signals a process.
    Signal {
        /// Which container.
        id: Id,
        /// An exec; the first process when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<Id>,
        /// Signal number.
        signal: i32,
        /// Every process of the container.
        #[serde(default)]
        all: bool,
    },
    /// Sets the size of a terminal.
    Resize {
        /// Which container.
        id: Id,
        /// An exec; the first process when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<Id>,
        /// The size.
        size: ConsoleSize,
    },
    /// Asks where a container is in its life.
    State {
        /// Which.
        id: Id,
    },
    /// Removes a container.
    Delete {
        /// Which.
        id: Id,
        /// Kill it first.
        force: bool,
    },
}

/// Parameters of `Create`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The container.
    pub id: Id,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// A detached mount comes with the frame; the monitor attaches it at `rootfs` of the bundle, in its
    /// own mount namespace.
    pub root: bool,
    /// The process has a terminal; its other end comes with the answer.
    pub terminal: bool,
    /// Start it at once.
    pub start: bool,
    /// Kill the container when the connection that made it ends.
    pub tied: bool,
    /// Delete the container as soon as it ends.
    pub release: bool,
    /// Directories to remove when the container is deleted.
    pub remove: Vec<PathBuf>,
}

/// Parameters of `Exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container.
    pub id: Id,
    /// Name of the new process, unique in the container.
    pub exec: Id,
    /// What to run.
    pub process: Process,
    /// Kill the process when the connection that made it ends.
    pub tied: bool,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// A process exists.
    Created {
        /// Its id as the host sees it.
        pid: i32,
        /// The other end of its terminal comes with the frame.
        terminal: bool,
    },
    /// Where a container is in its life.
    State {
        /// Status.
        status: Status,
        /// First process as the host sees it; zero when it ended.
        pid: i32,
        /// How it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A process ended.
    Exited {
        /// The container.
        id: Id,
        /// The exec; the first process when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<Id>,
        /// How.
        exit: Exit,
    },
}

/// How a process ended. Also the text of the durable exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; for a signal 128 and its number, as shells count.
    pub code: i32,
    /// The signal that killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it was noticed, milliseconds since the epoch.
    pub at_ms: u64,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// The whole story, causes included.
    pub message: String,
}

/// Kinds of failures that a caller treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No such container or process.
    NotFound,
    /// The name is taken.
    Exists,
    /// The program is not in the container.
    NoProgram,
    /// The program cannot be executed.
    NotExecutable,
    /// The call does not fit the state of the container.
    WrongState,
    /// Everything else.
    Other,
}

/// A container's or exec's name on the wire: checked as it is read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub ContainerId);

impl From<ContainerId> for Id {
    fn from(id: ContainerId) -> Self {
        Self(id)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl Call {
    /// Number of descriptors that must come with the call.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Create(c) => usize::from(c.root) + if c.terminal { 0 } else { 3 },
            Self::Exec(e) if !e.process.terminal => 3,
            _ => 0,
        }
    }
}

impl Message {
    /// Number of descriptors that must come with the message.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Call { call, .. } => call.descriptors(),
            Self::Done {
                answer: Answer::Created { terminal, .. },
                ..
            } => usize::from(*terminal),
            _ => 0,
        }
    }

    /// Its name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::Call { .. } => "Call",
            Self::Done { .. } => "Done",
            Self::Failed { .. } => "Failed",
            Self::Event { .. } => "Event",
        }
    }
}
