//! Support of integration tests on the real kernel. Only ever a development dependency.
//!
//! | module | gives |
//! |---|---|
//! | [`skip`] | `skip!`, `require!` and the questions a test asks before it starts |
//! | [`temp`] | unique names, and a directory that goes away with its mounts |
//! | [`bundle`] | a busybox root file system and a `config.json` to tweak |
//! | [`runtime`] | runs of an OCI runtime with a private `--root`, a time limit and a leak check |
//! | [`registry`] | Debian's docker-registry on the loopback |
//! | [`apparmor`], [`selinux`] | a profile, a label |
//! | [`user`] | an ordinary user with id ranges, for rootless tests |
//! | [`pty`] | the receiving end of `--console-socket`, and a terminal to talk over |
//! | [`leaks`] | what a container left behind |
//! | [`wait`] | waiting for what happens when the machine gets to it |
//!
//! Contract: nothing here installs software or starts services; what is missing
//! becomes a [`Skip`] with its reason. Every guard cleans up when dropped, also when
//! the test panics. Helpers panic with the whole story when the machine fails them:
//! this is code for tests.
//!
//! ```no_run
//! use carrack_testkit::{Bundle, Runtime, require};
//! use serde_json::json;
//!
//! // In a test of the runtime: env!("CARGO_BIN_EXE_carrack-runtime").
//! let mut bundle = require!(Bundle::busybox());
//! bundle.args(["hostname"]).set("/hostname", json!("testkit"));
//! let runtime = Runtime::new("carrack-runtime");
//! let container = runtime.container(&bundle);
//! container.run().ok().stdout_is("testkit\n");
//! container.assert_nothing_left();
//! ```

pub mod apparmor;
pub mod bundle;
mod config;
pub mod leaks;
pub mod pty;
pub mod registry;
pub mod runtime;
pub mod selinux;
pub mod skip;
pub mod temp;
pub mod user;
pub mod wait;

pub use apparmor::AppArmorProfile;
pub use bundle::Bundle;
pub use pty::{ConsoleSocket, Terminal};
pub use registry::DockerRegistry;
pub use runtime::{Container, Runtime};
pub use skip::Skip;
pub use temp::{TempDir, unique};
pub use user::User;
pub use wait::{wait_for, wait_until};
