//! The open directories from a layer's root to where entries are being made.
//!
//! Contract: every directory is opened from the one before by a single name that is no symbolic link
//! (`O_NOFOLLOW`), so nothing outside the root is ever reached, and the names are the true path. Where
//! a layer's own symbolic link stands in a path, openat2(2) resolves it under `RESOLVE_IN_ROOT`, and
//! the chain goes on with the true path of what was found.
//!
//! Making a file changes the time of its directory: when the chain leaves a directory it sets the time
//! that the archive gave it, or that it had before. A directory without an entry has the time of the entry
//! that needed it, the root that of the epoch.

use super::implied;
use crate::tar::Entry;
use crate::unpack::{ExtractError, failed, lossy};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Directories kept open at a time; of deeper paths only the last.
const OPEN_MAX: usize = 64;
/// Longest true path, so that it can still be opened from the store's root.
const TRUE_PATH_BYTES_MAX: usize = 3500;
/// openat2 reports EAGAIN when the tree changes elsewhere during a walk with `..`; tries before giving up.
const RESOLVE_TRIES_MAX: u32 = 64;
const EPOCH: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// How a directory is opened in the chain.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The open directories, the root first.
pub(super) struct Chain {
    root: OwnedFd,
    /// What `/proc/self/fd` says of the root, to be taken off true paths.
    root_path: Vec<u8>,
    opaque: &'static str,
    levels: Vec<Level>,
    /// Sum of the names' lengths and slashes.
    length: usize,
    root_level: Level,
    /// The root has an entry.
    mentioned: bool,
    implied: implied::Log,
}

struct Level {
    name: Vec<u8>,
    fd: Option<OwnedFd>,
    /// Time to set when the chain leaves it.
    time: Option<Timespec>,
    /// It has another time by now.
    touched: bool,
    /// New files get the group of the directory.
    inherits: bool,
}

impl Chain {
    pub(super) fn new(
        root: OwnedFd,
        inherits: bool,
        opaque: &'static str,
        implied: implied::Log,
    ) -> Result<Self, ExtractError> {
        let broken = |e: Errno| ExtractError::Entry {
            action: "open",
            path: "/".into(),
            source: e.into(),
        };
        let root_path = rustix::fs::readlink(proc_path(root.as_fd()), Vec::new())
            .map_err(broken)?
            .into_bytes();
        Ok(Self {
            root_level: Level {
                name: Vec::new(),
                fd: Some(root.try_clone().map_err(|e| ExtractError::Entry {
                    action: "open",
                    path: "/".into(),
                    source: e,
                })?),
                time: Some(EPOCH),
                touched: true,
                inherits,
            },
            mentioned: false,
            implied,
            root,
            root_path,
            opaque,
            levels: Vec::new(),
            length: 0,
        })
    }

    /// Makes the directory with these names the last of the chain; what is missing is made, mode 0755.
    pub(super) fn enter(&mut self, parts: &[&[u8]], entry: &Entry) -> Result<(), ExtractError> {
        let common = self
            .levels
            .iter()
            .zip(parts)
            .take_while(|(level, part)| level.name == **part)
            .count();
        self.leave_to(common, entry)?;
        for (i, name) in parts.iter().enumerate().skip(common) {
            if self.step(name, entry)? {
                continue;
            }
            // A link of the layer's own.
            let truth = self.truth(&self.path_of(name), entry)?;
            let rest = parts.get(i + 1..).unwrap_or_default();
            let whole: Vec<&[u8]> = truth
                .split(|&b| b == b'/')
                .filter(|p| !p.is_empty())
                .chain(rest.iter().copied())
                .collect();
            return self.enter(&whole, entry);
        }
        Ok(())
    }

    /// The last directory.
    pub(super) fn last(&self) -> BorrowedFd<'_> {
        let level = self.levels.last().unwrap_or(&self.root_level);
        level.fd.as_ref().unwrap_or(&self.root).as_fd()
    }

    /// New files in the last directory get its group, whoever makes them.
    pub(super) fn inherits(&self) -> bool {
        self.levels.last().unwrap_or(&self.root_level).inherits
    }

    /// The layer's root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The true path of the last directory, without a slash at either end.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.length + 64);
        for level in &self.levels {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&level.name);
        }
        path
    }

    /// True when the last directory has this path.
    pub(super) fn is_at(&self, parts: &[&[u8]]) -> bool {
        self.levels.len() == parts.len() && self.levels.iter().zip(parts).all(|(l, p)| l.name == *p)
    }

    /// Something was made or removed in the last directory.
    pub(super) fn touch(&mut self) {
        self.levels
            .last_mut()
            .unwrap_or(&mut self.root_level)
            .touched = true;
    }

    /// The root has an entry of its own.
    pub(super) fn root_entry(&mut self, time: Timespec, inherits: bool) {
        self.mentioned = true;
        self.root_level.time = Some(time);
        self.root_level.inherits |= inherits;
    }

    /// Goes on in a directory of the last one, which is to have this time in the end.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        fd: OwnedFd,
        time: Option<Timespec>,
        touched: bool,
        inherits: bool,
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        self.length += name.len() + 1;
        if self.length > TRUE_PATH_BYTES_MAX {
            return Err(failed("reach", entry)(Errno::NAMETOOLONG));
        }
        let depth = self.levels.len();
        if let Some(level) = depth
            .checked_sub(1)
            .filter(|_| depth > OPEN_MAX)
            .and_then(|i| self.levels.get_mut(i))
        {
            // Its time is set when the chain comes back to it or leaves it.
            level.fd = None;
        }
        self.levels.push(Level {
            name: name.to_owned(),
            fd: Some(fd),
            time,
            touched,
            inherits,
        });
        Ok(())
    }

    /// Leaves every directory.
    pub(super) fn finish(mut self) -> Result<(), ExtractError> {
        let entry = Entry::new(crate::tar::Kind::Directory, "/");
        self.leave_to(0, &entry)?;
        set_time(&self.root_level).map_err(failed("set the times of", &entry))?;
        if !self.mentioned {
            self.implied.made(b"").map_err(unrecorded(&entry))?;
        }
        self.implied.finish().map_err(unrecorded(&entry))
    }

    /// The directory `name` of the last one, which was there, has an entry or is hidden by one.
    pub(super) fn mentioned(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let path = self.path_of(name);
        self.implied.mentioned(&path).map_err(unrecorded(entry))
    }

    /// The directory `name` of the last one is gone with all below it.
    pub(super) fn replaced(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let path = self.path_of(name);
        self.implied.replaced(&path).map_err(unrecorded(entry))
    }

    /// The true path of `name` in the last directory.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn leave_to(&mut self, depth: usize, entry: &Entry) -> Result<(), ExtractError> {
        while self.levels.len() > depth {
            if self.levels.last().is_some_and(|l| l.fd.is_none()) {
                self.reopen(entry)?;
            }
            let Some(level) = self.levels.pop() else {
                break;
            };
            self.length -= level.name.len() + 1;
            set_time(&level).map_err(failed("set the times of the parent of", entry))?;
        }
        if self.levels.last().is_some_and(|l| l.fd.is_none()) {
            self.reopen(entry)?;
        }
        Ok(())
    }

    fn reopen(&mut self, entry: &Entry) -> Result<(), ExtractError> {
        let path = self.path();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let fd = rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve)
            .map_err(failed("open the parent of", entry))?;
        if let Some(level) = self.levels.last_mut() {
            level.fd = Some(fd);
        }
        Ok(())
    }

    /// Goes one directory down; false when the name is a symbolic link.
    fn step(&mut self, name: &[u8], entry: &Entry) -> Result<bool, ExtractError> {
        let open =
            |parent: BorrowedFd<'_>| rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        let parent = self.last();
        match open(parent) {
            Ok(fd) => {
                let stat =
                    rustix::fs::fstat(&fd).map_err(failed("inspect the parent of", entry))?;
                let time = Timespec {
                    tv_sec: stat.st_mtime,
                    tv_nsec: stat.st_mtime_nsec as _,
                };
                let inherits = self.root_level.inherits || stat.st_mode & 0o2000 != 0;
                self.push(name, fd, Some(time), false, inherits, entry)?;
                return Ok(true);
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("inspect the parent of", entry))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => return Ok(false),
                    FileType::CharacterDevice if stat.st_rdev == 0 => {
                        // A whiteout, and now a directory: it hides what is below all the same.
                        rustix::fs::unlinkat(parent, name, AtFlags::empty())
                            .map_err(failed("replace the parent of", entry))?;
                        self.make(name, true, entry)?;
                        return Ok(true);
                    }
                    _ => return Err(failed("open the parent of", entry)(Errno::NOTDIR)),
                }
            }
            Err(error) => return Err(failed("open the parent of", entry)(error)),
        }
        self.make(name, false, entry)?;
        Ok(true)
    }

    /// Makes a directory that has no entry (yet). One that is opaque replaces what is below: nothing there
    /// says what it looks like.
    fn make(&mut self, name: &[u8], opaque: bool, entry: &Entry) -> Result<(), ExtractError> {
        self.touch();
        let mode = Mode::from_raw_mode(0o755);
        let parent = self.last();
        rustix::fs::mkdirat(parent, name, mode).map_err(failed("make the parent of", entry))?;
        let fd = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
            .map_err(failed("open the parent of", entry))?;
        let inherits = self.inherits();
        if inherits {
            // Not the group and the bits of the directory above.
            let own = rustix::process::getegid();
            rustix::fs::fchown(&fd, None, Some(own))
                .and_then(|()| rustix::fs::fchmod(&fd, mode))
                .map_err(failed("set the owner of the parent of", entry))?;
        }
        if opaque {
            rustix::fs::fsetxattr(&fd, self.opaque, b"y", XattrFlags::empty())
                .map_err(failed("mark the parent of", entry))?;
        } else {
            let path = self.path_of(name);
            self.implied.made(&path).map_err(unrecorded(entry))?;
        }
        self.push(name, fd, Some(time(entry)), true, inherits, entry)
    }

    /// The true path of a directory named with symbolic links.
    fn truth(&self, path: &[u8], entry: &Entry) -> Result<Vec<u8>, ExtractError> {
        let fd = open_in_root(self.root(), path).map_err(failed("open the parent of", entry))?;
        let truth = rustix::fs::readlink(proc_path(fd.as_fd()), Vec::new())
            .map_err(failed("find the parent of", entry))?
            .into_bytes();
        match truth.strip_prefix(self.root_path.as_slice()) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => Ok(rest.to_vec()),
            // The kernel resolves inside the root: this cannot be.
            _ => Err(ExtractError::Escapes(lossy(&entry.path))),
        }
    }
}

/// Opens a directory below `root`; links in it resolve as if `root` were `/`.
pub(super) fn open_in_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut tries = 0;
    loop {
        let path = std::ffi::OsStr::from_bytes(path);
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

fn unrecorded(entry: &Entry) -> impl FnOnce(std::io::Error) -> ExtractError {
    let path = lossy(&entry.path);
    move |source| ExtractError::Entry {
        action: "record the parent of",
        path,
        source,
    }
}

pub(super) fn time(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    }
}

pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn set_time(level: &Level) -> Result<(), Errno> {
    match (&level.fd, level.time) {
        (Some(fd), Some(time)) if level.touched => {
            let stamps = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::futimens(fd, &stamps)
        }
        _ => Ok(()),
    }
}
