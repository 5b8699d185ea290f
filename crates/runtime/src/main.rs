//! `carrack-runtime`: the OCI command line, a drop-in for runc.
//!
//! ```text
//! argv ─► args (grammar, tables) ─► context (global options, log) ─► commands/VERB
//!                                                                        │
//!            failure (text, exit code) ◄── carrack-container, carrack-cgroup
//! ```
//!
//! Contract: results go to standard output, records and errors to the log (and
//! errors to standard error too). The program keeps no state but that of
//! `carrack-container`. A failed command leaves nothing behind.

mod activation;
mod app;
mod args;
mod commands;
mod context;
mod failure;
mod foreground;
mod logging;
mod notify;
mod output;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(app::main(std::env::args_os()))
}
