//! Resources as an API: limits, statistics, pressure and out-of-memory events
//! over cgroup v1, v2, both at once (hybrid) and systemd.
//!
//! ```text
//! Layout::detect ──► Group::create ──► apply, apply_devices ──► entry ──► a process enters
//!                        │                                       (or attach(pid))
//!                        ├─ stats, watch_oom, watch_pressure
//!                        ├─ pids freeze thaw kill    life of its processes
//!                        └─ remove, destroy          the end
//! ```
//!
//! Contract: paths from configurations are checked component by component;
//! creating a group costs a handful of system calls and no read of the mount
//! table in the common case; nothing is left behind when a step fails; errors
//! name file, value, errno and what to do. The crate starts no thread, keeps no
//! global state and needs no particular user: what the kernel refuses is
//! reported.

mod apply;
mod check;
pub mod convert;
mod device_program;
mod devices;
mod error;
mod events;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod group;
mod hint;
mod layout;
mod life;
mod limits;
mod mounts;
mod path;
pub mod stats;
mod systemd;
mod v1;
mod v2;

pub use carrack_spec::parse_size;
pub use devices::DEVICE_PROGRAM_NAME;
pub use error::{Error, Result};
pub use events::{OomEvent, OomWatch, PressureWatch, Resource, Threshold};
pub use group::{Driver, Entry, Group, Request};
pub use layout::{CGROUP_ROOT, Hierarchy, Layout, Mode, Version};
pub use life::{FREEZE_TIMEOUT_MS, KILL_TIMEOUT_MS, REMOVE_TIMEOUT_MS};
pub use limits::{Device, Limits, Size};
pub use mounts::{ContainerMounts, HierarchyMount, Link};
pub use path::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX};
pub use stats::Stats;
pub use systemd::BusError;
