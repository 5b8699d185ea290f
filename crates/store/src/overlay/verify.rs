//! Compares the files of a layer with the entries of its archive, read only.
//!
//! The last entry of a name decides, as when unpacking. At the end every name is looked up as the
//! unpacking resolved it and compared; then a walk looks for files that no entry made, and for directories
//! that are wrongly recorded as mentioned or not.

use super::Privilege;
use super::chain::open_in_root;
use super::implied::{self, Paths};
use crate::driver::{DriverError, Verify};
use crate::store::StoreError;
use crate::tar::{Entry, Kind};
use crate::unpack::{Meaning, components, lossy, meaning};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Problems told of one layer; one is enough to fetch it again.
const PROBLEMS_MAX: usize = 10;

pub(super) struct Verifier {
    files: PathBuf,
    implied: Paths,
    root: OwnedFd,
    privilege: Privilege,
    /// By lexical path.
    expected: BTreeMap<Vec<u8>, Expected>,
}

enum Expected {
    Thing {
        kind: FileType,
        mode: u32,
        owner: (u32, u32),
        mtime: (i64, u32),
        size: Option<u64>,
    },
    /// As whatever it is a link to.
    Link(Vec<u8>),
    Whiteout,
}

impl Verifier {
    pub(super) fn new(at: &Path, privilege: Privilege) -> Result<Self, DriverError> {
        let files = at.join("fs");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty())
            .map_err(|e| StoreError::io("open", &files)(e.into()))?;
        Ok(Self {
            files,
            implied: implied::read(at)?,
            root,
            privilege,
            expected: BTreeMap::new(),
        })
    }

    /// Forgets what was below a name that is no directory now.
    fn forget_below(&mut self, path: &[u8]) {
        let prefix = [path, b"/"].concat();
        let below: Vec<Vec<u8>> = self
            .expected
            .range(prefix.clone()..)
            .take_while(|(k, _)| k.starts_with(&prefix))
            .map(|(k, _)| k.clone())
            .collect();
        for key in below {
            self.expected.remove(&key);
        }
    }

    /// Directory and name, looked up; `None` when it is not there.
    fn look_up(&self, path: &[u8]) -> Option<((u64, Vec<u8>), Stat)> {
        let (parent, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (path.get(..at)?, path.get(at + 1..)?),
            None => (b"".as_slice(), path),
        };
        let directory = open_in_root(self.root.as_fd(), parent).ok()?;
        let inode = rustix::fs::fstat(&directory).ok()?.st_ino;
        let name_or_dot = if name.is_empty() { b"." } else { name };
        let stat = rustix::fs::statat(&directory, name_or_dot, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(((inode, name.to_vec()), stat))
    }

    /// What differs, if anything.
    fn compare(&self, expected: &Expected, stat: &Stat) -> Option<&'static str> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match expected {
            Expected::Whiteout => {
                let hides = kind != FileType::CharacterDevice || stat.st_rdev == 0;
                (!hides).then_some("does not hide what is below")
            }
            Expected::Link(target) => match self.look_up(target) {
                Some((_, of)) if (of.st_dev, of.st_ino) == (stat.st_dev, stat.st_ino) => None,
                // The target may have been replaced after the link was made.
                _ => (stat.st_nlink < 1).then_some("is not linked"),
            },
            Expected::Thing {
                kind: wanted,
                mode,
                owner,
                mtime,
                size,
            } => {
                if kind != *wanted {
                    return Some("is of another kind");
                }
                if (stat.st_uid, stat.st_gid) != *owner {
                    return Some("has another owner");
                }
                if kind != FileType::Symlink && stat.st_mode & 0o7777 != *mode {
                    return Some("has another mode");
                }
                if size.is_some_and(|s| u64::try_from(stat.st_size) != Ok(s)) {
                    return Some("has another size");
                }
                if !same_time((stat.st_mtime, stat.st_mtime_nsec as u32), *mtime) {
                    return Some("has another time");
                }
                None
            }
        }
    }

    /// Looks for files that no entry made, and compares the directories that no entry made with the record.
    fn walk(&self, visited: &HashSet<(u64, Vec<u8>)>, problems: &mut Vec<String>) {
        let mut left = vec![self.files.clone()];
        while let Some(directory) = left.pop() {
            let Ok(inode) = directory.symlink_metadata().map(|m| m.ino()) else {
                continue;
            };
            let entries = std::fs::read_dir(&directory).into_iter().flatten();
            for entry in entries.flatten() {
                let path = entry.path();
                let place = (inode, entry.file_name().as_bytes().to_vec());
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                let shown = path.strip_prefix(&self.files).unwrap_or(&path);
                let made = visited.contains(&place);
                let recorded = self.implied.contains(shown.as_os_str().as_bytes());
                let problem = match (kind.is_dir(), made) {
                    (true, made) if made == recorded => "is wrongly recorded",
                    (false, false) => "was made by no entry",
                    _ => "",
                };
                if !problem.is_empty() && problems.len() < PROBLEMS_MAX {
                    problems.push(format!("{shown:?} {problem}"));
                }
                if kind.is_dir() {
                    left.push(path);
                }
            }
        }
    }
}

impl Verify for Verifier {
    fn entry(&mut self, entry: &Entry) -> Result<(), DriverError> {
        let parts = components(&entry.path)?;
        let join = |parts: &[&[u8]]| parts.join(b"/".as_slice());
        let Some((name, parents)) = parts.split_last() else {
            self.expected.insert(Vec::new(), thing(entry));
            return Ok(());
        };
        let path = |name: &[u8]| {
            let mut path = join(parents);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            path
        };
        match meaning(name, entry)? {
            Meaning::Nothing | Meaning::Opaque => {}
            Meaning::Whiteout(hidden) => {
                self.expected
                    .entry(path(hidden))
                    .or_insert(Expected::Whiteout);
            }
            Meaning::Thing(name) => {
                let device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
                if device && self.privilege == Privilege::UserNamespace {
                    return Ok(());
                }
                let path = path(name);
                if entry.kind != Kind::Directory {
                    self.forget_below(&path);
                }
                let expected = match entry.kind {
                    Kind::HardLink => {
                        let target = join(&components(&entry.link)?);
                        if target == path {
                            return Ok(());
                        }
                        Expected::Link(target)
                    }
                    _ => thing(entry),
                };
                self.expected.insert(path, expected);
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>, DriverError> {
        let mut problems = Vec::new();
        let mut visited = HashSet::new();
        for (path, expected) in &self.expected {
            let problem = match self.look_up(path) {
                None => Some("is missing"),
                Some((place, stat)) => {
                    // Of two names for one place the later entry counts, and which that is, is lost.
                    let first = visited.insert(place);
                    self.compare(expected, &stat).filter(|_| first)
                }
            };
            if let Some(problem) = problem.filter(|_| problems.len() < PROBLEMS_MAX) {
                problems.push(format!("{:?} {problem}", lossy(path)));
            }
        }
        if self.implied.contains(&b""[..]) == self.expected.contains_key(&b""[..]) {
            problems.push("the root is wrongly recorded".into());
        }
        self.walk(&visited, &mut problems);
        Ok(problems)
    }
}

/// File systems keep times in some range, and some only whole seconds.
fn same_time(found: (i64, u32), wanted: (i64, u32)) -> bool {
    const KEPT: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
    !KEPT.contains(&wanted.0) || (found.0 == wanted.0 && (found.1 == wanted.1 || found.1 == 0))
}

fn thing(entry: &Entry) -> Expected {
    let kind = match entry.kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Regular | Kind::HardLink => FileType::RegularFile,
    };
    Expected::Thing {
        kind,
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        mtime: entry.mtime,
        size: (entry.kind == Kind::Regular).then_some(entry.size),
    }
}
