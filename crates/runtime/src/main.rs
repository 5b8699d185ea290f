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

#![cfg_attr(not(test), no_main)]

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

#[cfg(not(test))]
carrack_sys::entry!(start);
// The test program has a main of its own.
#[cfg(test)]
const _: fn() -> u8 = start;

fn start() -> u8 {
    app::main(std::env::args_os())
}
