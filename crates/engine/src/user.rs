//! Looks up users and groups in the image's own files.
//!
//! The files are opened below a descriptor of the root file system (`RESOLVE_IN_ROOT`), so a link of the
//! image leads only to places in the image. Malformed lines are passed over, as the C library does.

use carrack_spec::runtime::User;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// Largest `passwd` or `group` that is read, in bytes.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// A user as a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Ids for the runtime.
    pub user: User,
    /// Home directory, `/` when unknown.
    pub home: String,
}

/// A user that cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("user {0:?} is neither a number nor in the image's /etc/passwd")]
    NoUser(String),
    /// No such group.
    #[error("group {0:?} is neither a number nor in the image's /etc/group")]
    NoGroup(String),
    /// The file cannot be read.
    #[error("cannot read {0} of the image")]
    Read(&'static str, #[source] std::io::Error),
}

/// The image's databases as text.
#[derive(Debug, Clone, Default)]
pub struct Databases {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

impl Databases {
    /// Reads both files below `root`; one that is missing is empty.
    ///
    /// # Errors
    /// [`UserError::Read`].
    pub fn read(root: BorrowedFd<'_>) -> Result<Self, UserError> {
        Ok(Self {
            passwd: read(root, "etc/passwd")?,
            group: read(root, "etc/group")?,
        })
    }
}

fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String, UserError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(UserError::Read(path, error.into())),
    };
    let failed = |e| UserError::Read(path, e);
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(DATABASE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Resolves `USER[:GROUP]` and supplementary groups; empty is root.
///
/// A number needs no entry. Without a group, it is the user's own by `/etc/passwd`, and the groups that
/// list the user are supplementary.
///
/// # Errors
/// [`UserError::NoUser`], [`UserError::NoGroup`].
pub fn identity(wanted: &str, extra: &[String], files: &Databases) -> Result<Identity, UserError> {
    let (name, group) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = files.passwd.lines().find_map(|line| {
        let parts: Vec<&str> = line.split(':').collect();
        let (login, uid, gid) = (
            *parts.first()?,
            parts.get(2)?.parse().ok()?,
            parts.get(3)?.parse().ok()?,
        );
        let home = parts.get(5).copied().unwrap_or_default();
        (login == name || number == Some(uid)).then_some((login, uid, gid, home))
    });
    let (login, uid, own, home): (_, u32, u32, _) = match (entry, number) {
        (Some((login, uid, gid, home)), _) => (Some(login), uid, gid, home),
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => return Err(UserError::NoUser(name.to_owned())),
    };
    let gid = group.map_or(Ok(own), |g| group_id(g, files))?;
    let mut additional = Vec::new();
    if let (None, Some(login)) = (group, login) {
        additional.extend(groups_of(login, files));
    }
    for group in extra {
        additional.push(group_id(group, files)?);
    }
    additional.retain(|g| *g != gid);
    let mut seen = std::collections::BTreeSet::new();
    additional.retain(|g| seen.insert(*g));
    let home = if home.starts_with('/') { home } else { "/" };
    let user = User {
        uid,
        gid,
        additional_gids: additional,
        ..User::default()
    };
    Ok(Identity {
        user,
        home: home.to_owned(),
    })
}

fn group_id(wanted: &str, files: &Databases) -> Result<u32, UserError> {
    let by_name = files.group.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next()? == wanted).then(|| parts.nth(1)?.parse().ok())?
    });
    by_name
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
}

fn groups_of<'a>(login: &'a str, files: &'a Databases) -> impl Iterator<Item = u32> + 'a {
    files.group.lines().filter_map(move |line| {
        let parts: Vec<&str> = line.split(':').collect();
        let member = parts.get(3)?.split(',').any(|m| m.trim() == login);
        member.then(|| parts.get(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Databases {
        Databases {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n7:x:9:9::/nine:\n".into(),
            group: "root:x:0:\nwheel:x:10:app,other\nappgroup:x:1001:\ndocker:x:20: app\n".into(),
        }
    }

    #[test]
    fn names_and_numbers() {
        let table: [(&str, u32, u32, &[u32], &str); 8] = [
            ("", 0, 0, &[], "/root"),
            ("root", 0, 0, &[], "/root"),
            ("app", 1000, 1001, &[10, 20], "/home/app"),
            ("1000", 1000, 1001, &[10, 20], "/home/app"),
            ("app:wheel", 1000, 10, &[], "/home/app"),
            ("app:5", 1000, 5, &[], "/home/app"),
            ("4242", 4242, 0, &[], "/"),
            ("7", 9, 9, &[], "/nine"),
        ];
        for (wanted, uid, gid, additional, home) in table {
            let id = identity(wanted, &[], &files()).unwrap();
            assert_eq!(
                (id.user.uid, id.user.gid, id.home.as_str()),
                (uid, gid, home),
                "{wanted:?}"
            );
            assert_eq!(id.user.additional_gids, additional, "{wanted:?}");
        }
        let id = identity("app", &["wheel".into(), "77".into()], &files()).unwrap();
        assert_eq!(id.user.additional_gids, [10, 20, 77]);
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(matches!(
            identity("nobody", &[], &files()),
            Err(UserError::NoUser(_))
        ));
        assert!(matches!(
            identity("0:nogroup", &[], &files()),
            Err(UserError::NoGroup(_))
        ));
        assert!(matches!(
            identity("0", &["x".into()], &files()),
            Err(UserError::NoGroup(_))
        ));
        assert!(identity("4294967296", &[], &files()).is_err());
    }
}
