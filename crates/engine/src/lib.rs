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

pub mod compose;
pub mod request;
pub mod user;
