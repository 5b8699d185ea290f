//! User namespaces: id maps, and a namespace that only carries maps.
//!
//! Maps are written by the parent, through its checked procfs handle. Without
//! privilege a single mapping of the caller's own id is written directly, and
//! everything else goes through newuidmap(1) and newgidmap(1), which check the
//! caller's subordinate ids.

use crate::error::Error;
use crate::procfs;
use carrack_spec::runtime::{IdMapping, Linux};
use carrack_sys::clone::{self, Cloned, Parentage, ns};
use carrack_sys::{cred, pidfd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

/// Which way the maps of a container are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// By us: we have the right to every id.
    Direct,
    /// A single id, our own: allowed to everybody, but setgroups must be denied.
    Single,
    /// By newuidmap and newgidmap.
    Helpers,
}

/// Decides how maps can be written by this caller.
pub fn mapping(uids: &[IdMapping], gids: &[IdMapping], own_caps: u64) -> Mapping {
    let may = own_caps & (1 << CAP_SETUID) != 0 && own_caps & (1 << CAP_SETGID) != 0;
    let single =
        |maps: &[IdMapping], own: u32| matches!(maps, [one] if one.size == 1 && one.host_id == own);
    if may {
        Mapping::Direct
    } else if single(uids, rustix::process::geteuid().as_raw())
        && single(gids, rustix::process::getegid().as_raw())
    {
        Mapping::Single
    } else {
        Mapping::Helpers
    }
}

/// Checks maps before anything is made.
pub fn validate(maps: &[IdMapping], field: &str) -> Result<(), Error> {
    for (index, map) in maps.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if map.size == 0 {
            return Err(Error::invalid(field, "size is 0"));
        }
        let end = |first: u32| first.checked_add(map.size - 1);
        if end(map.container_id).is_none() || end(map.host_id).is_none() {
            return Err(Error::invalid(field, "the range goes past the largest id"));
        }
        let overlaps = |other: &IdMapping| {
            let meet =
                |a: u32, b: u32| a < b.saturating_add(other.size) && b < a.saturating_add(map.size);
            meet(map.container_id, other.container_id) || meet(map.host_id, other.host_id)
        };
        if maps.iter().take(index).any(overlaps) {
            return Err(Error::invalid(field, "the range overlaps an earlier one"));
        }
    }
    Ok(())
}

/// Writes both maps of process `pid`.
pub fn write_maps(
    proc: BorrowedFd<'_>,
    pid: i32,
    uids: &[IdMapping],
    gids: &[IdMapping],
    mapping: Mapping,
) -> Result<(), Error> {
    match mapping {
        Mapping::Helpers => {
            run_helper("newuidmap", pid, uids)?;
            run_helper("newgidmap", pid, gids)
        }
        Mapping::Direct | Mapping::Single => {
            if mapping == Mapping::Single {
                write(proc, &format!("{pid}/setgroups"), "deny")?;
            }
            write(proc, &format!("{pid}/gid_map"), &lines(gids))?;
            write(proc, &format!("{pid}/uid_map"), &lines(uids))
        }
    }
}

fn write(proc: BorrowedFd<'_>, path: &str, text: &str) -> Result<(), Error> {
    procfs::write(proc, path, text.as_bytes()).map_err(|e| {
        let text = text.trim_end().replace('\n', "; ");
        Error::system(format!("cannot write {text:?} to /proc/{path}"), e)
    })
}

fn lines(maps: &[IdMapping]) -> String {
    maps.iter()
        .map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size))
        .collect()
}

fn run_helper(program: &str, pid: i32, maps: &[IdMapping]) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container_id, map.host_id, map.size].map(|n| n.to_string()));
    }
    let output = command.output().map_err(|e| {
        let hint = "the package uidmap has it; without it only one id can be mapped";
        Error::system(format!("cannot run {program} ({hint})"), e)
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Helper {
        program: program.to_owned(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// A user namespace with these maps and no process in it, for idmapped mounts.
///
/// Needs the right to write the maps. A helper process holds the namespace
/// open until its descriptor is taken.
pub fn namespace_with(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Error> {
    validate(uids, "uidMappings")?;
    validate(gids, "gidMappings")?;
    let failed = |e| Error::system("cannot make a user namespace for an idmapped mount", e);
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let (pid, child) =
        match clone::clone_process(ns::USER, Parentage::Child, None).map_err(failed)? {
            Cloned::Child => {
                let _ = cred::parent_death_signal(9);
                // The parent closes its end when it is done: end of file, or any error, ends us.
                let mut byte = [0u8; 1];
                drop(ours);
                let _ = rustix::io::retry_on_intr(|| rustix::io::read(&theirs, &mut byte));
                clone::exit(0)
            }
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
        };
    drop(theirs);
    let proc = procfs::open()?;
    let result = write_maps(
        proc.as_fd(),
        pid,
        uids,
        gids,
        mapping(uids, gids, own_caps()),
    )
    .and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&proc, format!("{pid}/ns/user"), flags, Mode::empty()).map_err(failed)
    });
    drop(ours);
    let _ = pidfd::wait(child.as_fd(), true);
    result
}

/// Refuses mappings that are not those of the user namespace at `path`, which is joined and keeps
/// its own. Engines name both.
pub fn check_joined(linux: &Linux, path: &str) -> Result<(), Error> {
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(());
    }
    let [uids, gids] = maps_at(path)
        .map_err(|e| Error::system(format!("cannot look into the user namespace {path}"), e))?;
    for (field, wanted, there) in [
        ("linux.uidMappings", &linux.uid_mappings, uids),
        ("linux.gidMappings", &linux.gid_mappings, gids),
    ] {
        let sorted = |mut maps: Vec<IdMapping>| {
            maps.sort_by_key(|map| map.container_id);
            maps
        };
        if sorted(wanted.clone()) != sorted(parse_map(&there)) {
            let there = there.split_whitespace().collect::<Vec<_>>().join(" ");
            let reason =
                format!("{path}, which is joined, has the mappings {there:?}; leave them out");
            return Err(Error::invalid(field, reason));
        }
    }
    Ok(())
}

/// The maps of a user namespace as we see them, from a process that we send there.
fn maps_at(path: &str) -> std::io::Result<[String; 2]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(path, flags, Mode::empty())?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut byte = [0u8; 1];
    let (pid, child) = match clone::clone_process(0, Parentage::Child, None)? {
        Cloned::Child => {
            let _ = cred::parent_death_signal(9);
            drop(ours);
            if let Err(errno) = clone::setns(namespace.as_fd(), ns::USER) {
                clone::exit(errno.raw_os_error().min(255));
            }
            let _ = rustix::io::write(&theirs, &byte);
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&theirs, &mut byte));
            clone::exit(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let proc = procfs::open().map_err(std::io::Error::other)?;
    let arrived = rustix::io::retry_on_intr(|| rustix::io::read(&ours, &mut byte));
    let read = |name| procfs::read(proc.as_fd(), &format!("{pid}/{name}"));
    let maps = match arrived {
        Ok(1) => read("uid_map").and_then(|uids| Ok([uids, read("gid_map")?])),
        Ok(_) => Err(rustix::io::Errno::INVAL.into()),
        Err(error) => Err(error.into()),
    };
    drop(ours);
    match pidfd::wait(child.as_fd(), true)? {
        Some(pidfd::Exit::Code(code)) if code != 0 => Err(std::io::Error::from_raw_os_error(code)),
        _ => maps,
    }
}

fn parse_map(text: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some(IdMapping {
            container_id: numbers.next()?.ok()?,
            host_id: numbers.next()?.ok()?,
            size: numbers.next()?.ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Whether the caller is in another user namespace than the machine's first,
/// the only one in which every id is mapped to itself.
pub fn is_inside_one(proc: BorrowedFd<'_>) -> bool {
    let map = procfs::read(proc, "self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The caller's effective capabilities.
pub fn own_caps() -> u64 {
    cred::capget().map_or(0, |sets| sets.effective)
}

/// Whether the capabilities are an administrator's.
pub fn is_admin(caps: u64) -> bool {
    caps & (1 << CAP_SYS_ADMIN) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_refused_by_index() {
        assert!(validate(&[map(0, 1000, 1), map(1, 100_000, 65536)], "m").is_ok());
        for bad in [
            vec![map(0, 1000, 0)],
            vec![map(u32::MAX, 0, 2)],
            vec![map(0, 0, 10), map(5, 100, 10)],
            vec![map(0, 0, 10), map(100, 5, 10)],
        ] {
            assert!(validate(&bad, "m").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines_are_the_kernels_form() {
        let maps = [map(0, 1000, 1), map(1, 5, 6)];
        assert_eq!(lines(&maps), "0 1000 1\n1 5 6\n");
        assert_eq!(parse_map("         0       1000          1\n1 5 6\n"), maps);
    }
}
