//! The commands, one module each. A module owns its flags and its table entry;
//! what it prints or changes is decided there, how is up to `carrack-container`.

mod checkpoint;
mod create;
mod events;
mod exec;
mod features;
mod inspect;
mod lifecycle;
mod monitor;
mod ps;
mod spec;
mod update;

use crate::args::Command;

/// Every command, in the order of the help.
pub static COMMANDS: &[&Command] = &[
    &create::CREATE,
    &lifecycle::START,
    &create::RUN,
    &exec::COMMAND,
    &lifecycle::KILL,
    &lifecycle::DELETE,
    &inspect::STATE,
    &inspect::LIST,
    &ps::COMMAND,
    &events::COMMAND,
    &update::COMMAND,
    &lifecycle::PAUSE,
    &lifecycle::RESUME,
    &checkpoint::CHECKPOINT,
    &checkpoint::RESTORE,
    &spec::COMMAND,
    &features::COMMAND,
    &monitor::COMMAND,
];
