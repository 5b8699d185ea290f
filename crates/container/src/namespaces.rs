//! How a child comes into the namespaces that a configuration lists.
//!
//! The order matters, because joining needs rights over the joined namespace
//! and making needs rights over the current user namespace:
//!
//! - no user namespace: clone3 makes the new ones, the child joins the others;
//! - a new user namespace: the parent (thread) joins the others first, with its
//!   own rights, and comes back after the clone; clone3 makes the user namespace
//!   and with it the new ones, which it then owns;
//! - a joined user namespace: the child joins the others and then the user
//!   namespace (without privilege: the user namespace first, for its rights),
//!   makes the new ones there, and clones once more if there is a pid namespace.
//!
//! Pid namespaces count for children only, so the parent joins one for its
//! next child, or the child joins it and clones once more when the parent
//! could not come back. Cgroup and time namespaces are made by the child itself: the
//! first once it is in its cgroup, the second once it can write the offsets.

use crate::error::{Error, Names};
use crate::plan::Birth;
use crate::procfs;
use carrack_spec::runtime::{Linux, NamespaceKind};
use carrack_sys::clone::{self, Cloned, Parentage, ns};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Name for people, clone flag, file below `/proc/PID/ns`, and runc's name in the record.
pub const KINDS: [(NamespaceKind, &str, u64, &str, &str); 8] = [
    (NamespaceKind::User, "user", ns::USER, "user", "NEWUSER"),
    (NamespaceKind::Pid, "pid", ns::PID, "pid", "NEWPID"),
    (NamespaceKind::Mount, "mount", ns::MOUNT, "mnt", "NEWNS"),
    (NamespaceKind::Network, "network", ns::NET, "net", "NEWNET"),
    (NamespaceKind::Ipc, "ipc", ns::IPC, "ipc", "NEWIPC"),
    (NamespaceKind::Uts, "uts", ns::UTS, "uts", "NEWUTS"),
    (
        NamespaceKind::Cgroup,
        "cgroup",
        ns::CGROUP,
        "cgroup",
        "NEWCGROUP",
    ),
    (NamespaceKind::Time, "time", ns::TIME, "time", "NEWTIME"),
];

fn kind_of(kind: NamespaceKind) -> (&'static str, u64) {
    KINDS
        .iter()
        .find(|row| row.0 == kind)
        .map_or(("", 0), |row| (row.1, row.2))
}

/// The namespace part of a birth, and all flags that the container does not share with the caller.
pub fn plan(linux: &Linux, privileged: bool, names: &mut Names) -> Result<(Birth, u64), Error> {
    let mut fresh = 0;
    let mut joins: Vec<(OwnedFd, u64, &str)> = Vec::new();
    for namespace in &linux.namespaces {
        let (name, flag) = kind_of(namespace.kind);
        if namespace.path.is_empty() {
            fresh |= flag;
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(namespace.path.as_str(), flags, Mode::empty()).map_err(|e| {
                Error::system(
                    format!("cannot open the {name} namespace {}", namespace.path),
                    e,
                )
            })?;
        joins.push((file, flag, name));
    }
    let all = joins.iter().fold(fresh, |flags, join| flags | join.1);
    let mut birth = Birth {
        session: true,
        clocks: fresh & ns::TIME != 0,
        become_root: all & ns::USER != 0,
        ..Birth::default()
    };
    let joins_user = joins.iter().any(|join| join.1 == ns::USER);
    if joins_user {
        let first = |flag: u64| (flag == ns::USER) != privileged;
        joins.sort_by_key(|join| !first(join.1));
        birth.unshare = fresh & !ns::TIME;
        birth.second = fresh & ns::PID != 0;
        birth.hidden = joins.iter().any(|join| join.1 == ns::PID);
    } else {
        birth.clone_flags = fresh & !(ns::CGROUP | ns::TIME);
        birth.unshare = fresh & ns::CGROUP;
    }
    let returns = !joins.iter().any(|join| join.1 == ns::PID) || can_return();
    for (file, flag, name) in joins {
        let by_parent = if joins_user {
            flag == ns::PID && privileged && returns
        } else if fresh & ns::USER != 0 {
            flag != ns::MOUNT
        } else {
            flag == ns::PID && returns
        };
        if by_parent {
            birth.parent_joins.push((file, flag));
        } else {
            birth.second |= flag == ns::PID;
            names.joins.push(name.to_owned());
            birth.joins.push((file, flag));
        }
    }
    Ok((birth, all))
}

/// Whether a thread that visits another pid namespace could come back: that takes rights over its
/// own one, which root of a user namespace (as rootless engines have it) lacks.
pub fn can_return() -> bool {
    let proc = procfs::open();
    proc.is_ok_and(|proc| procfs::in_first_user_namespace(proc.as_fd()))
}

/// Clones a child as its birth wants it. Returns twice, as clone does.
pub fn give_birth(birth: &Birth, proc: BorrowedFd<'_>) -> Result<Cloned, Error> {
    let failed = |e| {
        let hint = match e {
            rustix::io::Errno::PERM => {
                " (without privileges a user namespace is needed; \
                                        are user namespaces enabled?)"
            }
            rustix::io::Errno::NOSPC => " (a limit of /proc/sys/user is reached)",
            _ => "",
        };
        Error::system(format!("cannot make the container's process{hint}"), e)
    };
    if birth.parent_joins.is_empty() {
        let cgroup = birth.cgroup.as_ref().map(AsFd::as_fd);
        return clone::clone_process(birth.clone_flags, Parentage::Child, cgroup).map_err(failed);
    }
    let visit = Visit::enter(birth, proc)?;
    let cgroup = birth.cgroup.as_ref().map(AsFd::as_fd);
    let cloned = clone::clone_process(birth.clone_flags, Parentage::Child, cgroup);
    if !matches!(cloned, Ok(Cloned::Child)) {
        visit.leave()?;
    }
    cloned.map_err(failed)
}

/// The calling thread in other namespaces, with the way back.
struct Visit {
    own: Vec<(OwnedFd, u64)>,
}

impl Visit {
    fn enter(birth: &Birth, proc: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut visit = Self { own: Vec::new() };
        for (file, flag) in &birth.parent_joins {
            let Some((_, name, _, link, _)) = KINDS.iter().find(|row| row.2 == *flag) else {
                continue;
            };
            let failed = |e| Error::system(format!("cannot join the {name} namespace"), e);
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            // A magic link of our own thread: its target is what we are in.
            let own =
                rustix::fs::openat(proc, format!("thread-self/ns/{link}"), flags, Mode::empty())
                    .map_err(failed)?;
            if let Err(error) = clone::setns(file.as_fd(), *flag) {
                visit.leave()?;
                return Err(failed(error));
            }
            visit.own.push((own, *flag));
        }
        Ok(visit)
    }

    fn leave(self) -> Result<(), Error> {
        for (own, flag) in self.own.iter().rev() {
            clone::setns(own.as_fd(), *flag)
                .map_err(|e| Error::system("cannot return to the runtime's own namespaces", e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, privileged: bool) -> (Birth, u64) {
        let linux: Linux = serde_json::from_str(json).unwrap();
        plan(&linux, privileged, &mut Names::default()).unwrap()
    }

    #[test]
    fn new_namespaces_come_with_the_clone() {
        let (birth, all) = of(
            r#"{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"cgroup"}]}"#,
            true,
        );
        assert_eq!(birth.clone_flags, ns::PID | ns::MOUNT);
        assert_eq!(birth.unshare, ns::CGROUP);
        assert_eq!(all, ns::PID | ns::MOUNT | ns::CGROUP);
        assert!(!birth.second && !birth.become_root);
    }

    #[test]
    fn with_a_new_user_namespace_the_parent_joins_the_others() {
        let (birth, _) = of(
            r#"{"namespaces":[{"type":"user"},{"type":"mount"},{"type":"network","path":"/proc/self/ns/net"}]}"#,
            true,
        );
        assert_eq!(birth.clone_flags, ns::USER | ns::MOUNT);
        assert_eq!(birth.parent_joins.len(), 1);
        assert!(birth.joins.is_empty() && birth.become_root);
    }

    #[test]
    fn a_joined_user_namespace_comes_last_with_privilege_and_first_without() {
        let json = r#"{"namespaces":[{"type":"user","path":"/proc/self/ns/user"},{"type":"pid"},
            {"type":"mount"},{"type":"ipc","path":"/proc/self/ns/ipc"}]}"#;
        for privileged in [true, false] {
            let (birth, _) = of(json, privileged);
            let flags: Vec<u64> = birth.joins.iter().map(|join| join.1).collect();
            let wanted = if privileged {
                [ns::IPC, ns::USER]
            } else {
                [ns::USER, ns::IPC]
            };
            assert_eq!(flags, wanted);
            assert_eq!((birth.clone_flags, birth.unshare), (0, ns::PID | ns::MOUNT));
            assert!(birth.second);
        }
    }
}
