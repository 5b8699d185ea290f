//! `state` and `list`: containers as JSON and as a table.

use crate::args::{Arity, Command, Flag};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Table};
use carrack_container::Container;
use carrack_spec::runtime::Status;
use serde::Serialize;
use std::collections::BTreeMap;

/// `state`.
pub static STATE: Command = Command {
    name: "state",
    summary: "print a container's state as JSON",
    arguments: "CONTAINER",
    description:
        "   The state of the specification, and when the container was made and where its root file
   system lies.",
    flags: &[],
    arity: Arity::Exactly(1),
    hidden: false,
    run: state,
};

static FORMAT: Flag = Flag::text("format", "FORMAT", "table (the default) or json").short('f');
static QUIET: Flag = Flag::switch("quiet", "print the identifiers only").short('q');

/// `list`.
pub static LIST: Command = Command {
    name: "list",
    summary: "list the containers below the state root",
    arguments: "",
    description: "   Lists every container whose state is below --root, whoever made it.",
    flags: &[&FORMAT, &QUIET],
    arity: Arity::Exactly(0),
    hidden: false,
    run: list,
};

/// A container as both commands print it, in the order of runc's fields.
#[derive(Serialize)]
struct Entry {
    #[serde(rename = "ociVersion")]
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl Entry {
    fn new(container: &Container, owner: String) -> Result<Self, Failure> {
        let state = container.state()?;
        let record = container.record();
        Ok(Self {
            oci_version: state.oci_version,
            id: state.id,
            pid: state.pid,
            status: state.status,
            bundle: state.bundle,
            rootfs: record.rootfs().display().to_string(),
            created: output::short_fraction(&record.created),
            annotations: state.annotations,
            owner,
        })
    }
}

fn state(context: &Context) -> Result<u8, Failure> {
    // The owner is empty here, as with runc.
    let entry = Entry::new(&context.container()?, String::new())?;
    output::print(&output::json_pretty(&entry, "  ")?)?;
    Ok(0)
}

fn list(context: &Context) -> Result<u8, Failure> {
    let format = output::Format::new(context.matches.text(&FORMAT))?;
    let containers = match &context.global.root {
        Some(root) if !root.exists() => {
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(Failure::file("open", root, error));
        }
        _ => context.runtime().list()?,
    };
    let users = Users::read();
    let mut entries = Vec::new();
    for container in &containers {
        let owner = users.name(container.record().carrack.owner);
        match Entry::new(container, owner) {
            Ok(entry) => entries.push(entry),
            // It went away, or is broken: the others are still of interest.
            Err(failure) => log::warn!("state of {}: {}", container.id(), failure.message()),
        }
    }
    let text = if context.matches.on(&QUIET) {
        entries
            .iter()
            .map(|entry| format!("{}\n", entry.id))
            .collect()
    } else if format == output::Format::Table {
        table(&entries)
    } else if entries.is_empty() {
        "null\n".to_owned()
    } else {
        output::json_line(&entries)?
    };
    output::print(&text)?;
    Ok(0)
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for entry in entries {
        table.push([
            entry.id.clone(),
            entry.pid.to_string(),
            entry.status.to_string(),
            entry.bundle.clone(),
            entry.created.clone(),
            entry.owner.clone(),
        ]);
    }
    table.render()
}

/// User names, from the file alone: a static program has no name service.
struct Users(String);

impl Users {
    fn read() -> Self {
        Self(std::fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    /// The user's name, or `#1000` when it has none.
    fn name(&self, uid: u32) -> String {
        let found = self.0.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        });
        found.map_or_else(|| format!("#{uid}"), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_without_a_name_are_numbers() {
        let users = Users("root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/:/bin/sh\n".into());
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(1000), "ann");
        assert_eq!(users.name(7), "#7");
    }
}
