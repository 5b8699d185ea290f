//! The verbs people know, over the store and the monitors.
//!
//! ```text
//! RunRequest ─► find image ─► user from the image's files ─► compose (pure) ─► bundle
//!                   │                                                            │
//!                 store ─► overlay as a detached mount ─────────► monitor ◄──────┘
//! ```
//!
//! Contract: the engine never links the code that makes containers; it starts a monitor
//! (`carrack-runtime monitor`) and speaks to it. It does no terminal input or output: the caller gives
//! descriptors for the standard streams and gets the other end of the terminal.
//!
//! ```
//! use carrack_engine::request::{RunRequest, Volume};
//!
//! let volume: Volume = "/srv/data:/data:ro".parse()?;
//! assert_eq!(volume.destination, "/data");
//! let request = RunRequest { image: "debian".into(), volumes: vec![volume], ..RunRequest::default() };
//! assert!(request.command.is_empty(), "the image's own command");
//! # Ok::<(), carrack_engine::request::RequestError>(())
//! ```

pub mod compose;
mod containers;
mod engine;
mod error;
pub mod images;
mod monitor;
pub mod request;
mod run;
pub mod user;

pub use carrack_store::{
    Compression, DriverKind, ImageError, ImageRecord, LoadOptions, Loaded, NewFile,
};
pub use carrack_task::Exit;
pub use containers::{ContainerRecord, ContainerStatus};
pub use engine::{Engine, EngineOptions};
pub use error::EngineError;
pub use run::Run;
