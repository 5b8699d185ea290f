//! `linux.intelRdt`: cache and memory bandwidth groups of resctrl.
//!
//! A group is a directory of the resctrl file system (`Documentation/filesystems/resctrl.rst`).
//! `closID` names an existing or new group; without one the container's id
//! does, and the group is removed with the container.

use crate::error::Error;
use carrack_spec::ContainerId;
use carrack_spec::runtime::{IntelRdt, Linux};
use std::fs;
use std::path::{Path, PathBuf};

/// Where resctrl is mounted.
const ROOT: &str = "/sys/fs/resctrl";

/// A group to put a container in.
pub struct Closid<'a> {
    settings: &'a IntelRdt,
    name: String,
}

/// What the configuration asks for.
///
/// # Errors
/// When the kernel has no resctrl file system mounted, or `closID` is no name.
pub fn plan<'a>(linux: &'a Linux, id: &ContainerId) -> Result<Option<Closid<'a>>, Error> {
    let Some(settings) = &linux.intel_rdt else {
        return Ok(None);
    };
    let name = match settings.clos_id.as_str() {
        "" => id.as_str().to_owned(),
        "." | ".." => return Err(Error::invalid("linux.intelRdt.closID", "is no name")),
        name if name.contains(['/', '\n']) => {
            return Err(Error::invalid(
                "linux.intelRdt.closID",
                format!("{name:?} is no name"),
            ));
        }
        name => name.to_owned(),
    };
    if !Path::new(ROOT).join("schemata").exists() {
        let reason = format!("the kernel has no resource control mounted at {ROOT}");
        return Err(Error::invalid("linux.intelRdt", reason));
    }
    Ok(Some(Closid { settings, name }))
}

/// Makes the group when it is missing, writes the schemata and moves `pid` in.
/// Returns the group, and whether it was made here and is the container's own.
pub fn apply(closid: &Closid<'_>, pid: i32) -> Result<(PathBuf, bool), Error> {
    let path = Path::new(ROOT).join(&closid.name);
    let made = match fs::create_dir(&path) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(e) => {
            return Err(Error::path(
                "cannot make the resource control group",
                &path,
                e,
            ));
        }
    };
    let result = write_schemata(&path, closid.settings)
        .and_then(|()| write(&path.join("tasks"), &pid.to_string()))
        .and_then(|()| monitor(&path, closid, pid));
    if let Err(error) = result {
        if made {
            remove(&path);
        }
        return Err(error);
    }
    Ok((path, made && closid.settings.clos_id.is_empty()))
}

/// Writes the schemata of an update.
pub fn update(path: &Path, settings: &IntelRdt) -> Result<(), Error> {
    write_schemata(path, settings)
}

fn monitor(path: &Path, closid: &Closid<'_>, pid: i32) -> Result<(), Error> {
    if !closid.settings.enable_monitoring {
        return Ok(());
    }
    let group = path.join("mon_groups").join(&closid.name);
    match fs::create_dir(&group) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::path("cannot make the monitoring group", &group, e));
        }
        _ => {}
    }
    write(&group.join("tasks"), &pid.to_string())
}

fn write_schemata(path: &Path, settings: &IntelRdt) -> Result<(), Error> {
    let lines = [&settings.l3_cache_schema, &settings.mem_bw_schema];
    let lines = lines
        .into_iter()
        .filter(|line| !line.is_empty())
        .chain(&settings.schemata);
    for line in lines {
        write(&path.join("schemata"), &format!("{line}\n"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| {
        let why = fs::read_to_string(Path::new(ROOT).join("info/last_cmd_status"));
        let why = why.unwrap_or_default();
        Error::system(
            format!(
                "cannot write {:?} to {}: {}",
                text.trim(),
                path.display(),
                why.trim()
            ),
            e,
        )
    })
}

/// Removes a group; a group that is gone is fine.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!(
            "cannot remove the resource control group {}: {error}",
            path.display()
        );
    }
}
