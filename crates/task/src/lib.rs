//! The protocol between an engine and the monitor that owns a sandbox's containers.
//!
//! # Transport
//!
//! A unix stream socket. A frame is a length (32 bits, little-endian) and so many bytes of JSON, one
//! [`Message`]. Descriptors travel with the first byte of a frame (`SCM_RIGHTS`); the frame says how many.
//! A stream that cannot carry descriptors (vsock) can use the same frames for everything but standard streams.
//!
//! # Conversation
//!
//! ```text
//! engine                                   monitor
//!   │ Hello {version}                ──►      │   first, both ways; versions must be equal
//!   │      ◄──                Hello {version} │
//!   │ Call {seq, call, descriptors}  ──►      │   any number, answered in order
//!   │      ◄── Done {seq, answer, descriptors}│
//!   │      ◄── Failed {seq, failure}          │
//!   │      ◄── Event                          │   at any time after Hello, to every connection
//! ```
//!
//! A message that does not fit is a [`TaskError::Unexpected`] naming what was awaited; the connection is
//! of no use after it. Nothing here waits without a limit but for events.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use carrack_task::{Call, Connection};
//!
//! // Both sides of a conversation greet first; then frames carry calls, answers and events.
//! let (engine, monitor) = UnixStream::pair()?;
//! let greeting = std::thread::spawn(move || Connection::new(monitor.into()).greet());
//! Connection::new(engine.into()).greet()?;
//! greeting.join().unwrap()?;
//! let call: Call = serde_json::from_str(r#"{"verb":"state","id":"web-1"}"#).unwrap();
//! assert_eq!(call.descriptors(), 0);
//! # Ok::<(), carrack_task::TaskError>(())
//! ```

mod client;
mod connection;
mod message;

pub use client::{Client, Created};
pub use connection::{Connection, Incoming};
pub use message::*;

use std::io;

/// Version of the protocol; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest frame in bytes. A process with a large environment is the largest in practice.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most descriptors in one frame: a root file system and three standard streams.
pub const FRAME_FDS_MAX: usize = 4;
/// Longest wait for the answer to a call, in milliseconds. A hook may take long.
pub const CALL_TIMEOUT_MS: u32 = 300_000;
/// Longest wait for the rest of a frame whose first byte is there, in milliseconds.
pub const FRAME_TIMEOUT_MS: u32 = 10_000;

/// A conversation that failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The socket failed.
    #[error("the connection to the monitor failed")]
    Socket(#[from] io::Error),
    /// The other side closed the connection.
    #[error("the monitor closed the connection")]
    Closed,
    /// A frame is larger than [`FRAME_BYTES_MAX`] or has more than [`FRAME_FDS_MAX`] descriptors.
    #[error("a frame of {bytes} bytes and {fds} descriptors is too large")]
    TooLarge {
        /// Length of the frame.
        bytes: usize,
        /// Number of descriptors.
        fds: usize,
    },
    /// A frame is no message.
    #[error("a frame of the monitor's protocol is malformed")]
    Malformed(#[from] serde_json::Error),
    /// A frame came with another number of descriptors than it says.
    #[error("a frame came with {found} descriptors instead of {wanted}")]
    Descriptors {
        /// What the frame says.
        wanted: usize,
        /// What came.
        found: usize,
    },
    /// The two programs do not fit together.
    #[error(
        "the monitor speaks protocol version {theirs}, this program version {PROTOCOL_VERSION}; install both from one release"
    )]
    Version {
        /// The other side's version.
        theirs: u32,
    },
    /// A message came that has no place here.
    #[error("awaited {wanted}, received {found}")]
    Unexpected {
        /// What was awaited.
        wanted: &'static str,
        /// What came.
        found: String,
    },
    /// The answer took longer than [`CALL_TIMEOUT_MS`].
    #[error("the monitor did not answer in time")]
    Timeout,
    /// The monitor refused the call.
    #[error("{}", .0.message)]
    Failed(Failure),
}
