//! The monitor: one small process that owns the containers of one sandbox and serves the task protocol.
//!
//! # What it does
//!
//! It attaches root file systems in a mount namespace of its own (nothing of a container is ever in the
//! host's mount table), has containers made by a [`Driver`], reaps every process that ends (it is their
//! subreaper), writes exit records, and tells its connections. It never copies a byte of standard streams:
//! those are descriptors that the engine passes, and terminals are handed to it.
//!
//! # Life
//!
//! ```text
//! start ─► greet the engine on the inherited socket ─► serve ─► no connection and no container left ─► end
//! ```
//!
//! A container *tied* to its connection ends with it: SIGTERM, and SIGKILL after [`GRACE_MS`]. SIGTERM to
//! the monitor does the same to all its containers. Signals from a terminal cannot reach the monitor: it
//! has a session of its own.
//!
//! # Files in its directory
//!
//! `lock` is locked (flock) as long as the monitor lives, by a descriptor that the engine opened;
//! `task.sock` accepts further connections; `exit.json` is the durable exit record of a container, written
//! before anybody is told, unless the container's directories are removed with it.
//!
//! # On failure
//!
//! If the monitor is killed, its mount namespace goes with it, the container goes on, and whoever finds
//! `lock` free with an entry in the runtime's state deletes the container by force.
//!
//! ```
//! // Whoever comes after the monitor finds how its container ended.
//! let directory = std::env::temp_dir().join("no-such-monitor");
//! assert_eq!(carrack_supervisor::read_exit(&directory)?, None);
//! # Ok::<(), std::io::Error>(())
//! ```

mod driver;
mod exit;
mod library;
mod roots;
mod serve;

pub use driver::{Driver, Made, Streams};
pub use exit::{EXIT_RECORD, read_exit};
pub use library::Library;
pub use serve::{GRACE_MS, Options, ServeError, serve};
