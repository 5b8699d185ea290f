//! The OCI runtime as a library: from a bundle to a process, and what can be
//! done with it afterwards.
//!
//! ```text
//! ContainerBuilder ──▶ Spec
//!                       │
//! Runtime (a state root)▼                Container
//!   create, run ── plan ── clone ──┐       start kill delete pause resume
//!   load, list, restore            │       update exec processes cgroup
//!                                  │       checkpoint
//!                                  ▼
//!                        init: replays the plan
//! ```
//!
//! Contract: synchronous, no thread of its own, no global state. The parent
//! parses, validates and opens everything into a plan ([`plan`]); the child
//! replays it with system calls only ([`init`]) and reports failures as numbers
//! that the parent puts into words ([`Error`]). A call that fails leaves nothing
//! behind. Paths inside a root file system are descriptors opened beneath its
//! root; procfs is one checked handle. Calls may come from any thread; the
//! child of a container belongs to the caller, who reaps it.

pub mod builder;
mod checkpoint;
mod config;
mod copy_up;
mod create;
mod error;
mod exec;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod group;
mod hooks;
mod init;
mod lifecycle;
mod namespaces;
mod netdev;
mod options;
mod passwd;
mod pid_file;
mod plan;
mod procfs;
mod rdt;
mod record;
mod runtime;
mod seed;
mod shield;
mod talk;
mod userns;
mod validate;

pub use builder::{Child, Command, ContainerBuilder, HookStage, Network, Output, Running, Stdio};
pub use carrack_cgroup::{Limits, OomEvent, OomWatch, PressureWatch, Resource, Stats, Threshold};
pub use carrack_sys::pidfd::Exit;
pub use checkpoint::{CgroupsMode, CheckpointOptions, CriuOptions, RestoreOptions};
pub use error::Error;
pub use exec::Executed;
pub use options::{Console, CreateOptions, ExecOptions, RuntimeOptions};
pub use record::{Own, Record, RecordConfig};
pub use runtime::{Container, Created, Runtime};
pub use shield::shield;
pub use {carrack_cgroup as cgroup, carrack_spec as spec};

/// Facts for `features`.
pub mod facts {
    pub use crate::plan::{MEMORY_FLAGS, MEMORY_MODES};

    /// Names of the mount options that the runtime understands.
    pub fn mount_options() -> impl Iterator<Item = &'static str> {
        crate::plan::options::names()
    }
}
