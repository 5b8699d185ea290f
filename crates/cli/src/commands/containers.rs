//! `ps`, `rm`.

use crate::args::{PsFlags, RmFlags};
use crate::table;
use carrack_engine::{ContainerStatus, Engine};
use std::io::Write;

/// Longest command line in a listing.
const COMMAND_CHARS_MAX: usize = 40;

/// `carrack ps`.
///
/// # Errors
/// The run-time state cannot be read.
pub fn list(engine: &Engine, flags: &PsFlags) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for (record, status) in engine.containers()?.into_iter().rev() {
        if !flags.all && status != ContainerStatus::Running {
            continue;
        }
        // A random id is shown by its start, a chosen name in full.
        let random = record.id.len() == 64 && record.id.bytes().all(|b| b.is_ascii_hexdigit());
        let id = if random {
            record.id.chars().take(12).collect()
        } else {
            record.id
        };
        if flags.quiet {
            writeln!(std::io::stdout(), "{id}")?;
            continue;
        }
        let status = match status {
            ContainerStatus::Running => "running".to_owned(),
            ContainerStatus::Exited(exit) => format!("exited ({})", exit.code),
            ContainerStatus::Unknown => "unknown".to_owned(),
        };
        let command: String = record
            .command
            .join(" ")
            .chars()
            .take(COMMAND_CHARS_MAX)
            .collect();
        rows.push(vec![
            id,
            record.image,
            command,
            table::ago(record.created),
            status,
        ]);
    }
    if !flags.quiet {
        table::print(
            &["CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS"],
            &rows,
        );
    }
    Ok(0)
}

/// `carrack rm`.
///
/// # Errors
/// None; each failure is printed.
pub fn remove(engine: &Engine, flags: &RmFlags) -> anyhow::Result<u8> {
    Ok(super::each(&flags.containers, |name| {
        Ok(engine.remove(name, flags.force)?)
    }))
}
