//! The commands, one module each. A module owns its flags and its table entry;
//! what it prints or changes is decided there, how is up to `carrack-container`.

mod monitor;
mod spec;

use crate::args::Command;

/// Every command, in the order of the help.
pub static COMMANDS: &[&Command] = &[&spec::COMMAND, &monitor::COMMAND];
