//! Unpacks one layer's tar stream into a directory of its own.
//!
//! Contract: nothing outside the directory is read or written, whatever the names and links in the
//! stream say. A name is split into components; `..` may not climb above the root; the parent is then
//! opened with openat2(2) under `RESOLVE_IN_ROOT`, so a symbolic link of the layer can lead only to
//! places inside the layer; and the entry itself is made relative to that descriptor with calls that
//! never follow a link at the end of the name. Hard links are made between two such descriptors.
//!
//! Whiteouts (image specification, `layer.md`) become what overlayfs understands: `.wh.NAME` a
//! character device 0:0, `.wh..wh..opq` the attribute `trusted.overlay.opaque`. They speak of lower
//! layers only, so one that names something of the same layer hides what is below and keeps the thing.
//!
//! A later entry replaces an earlier one of the same name, a directory keeps its contents. Times of
//! directories are set at the end, as filling a directory changes them.
//!
//! On failure the directory holds part of the layer; the caller removes it.

use crate::tar::{Entry, Kind, Reader, TarError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Marks a directory that hides what lower layers have at its place.
const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BUFFER_BYTES: usize = 128 << 10;
/// openat2 reports EAGAIN when the tree changes elsewhere during a walk with `..`; tries before giving up.
const RESOLVE_TRIES_MAX: u32 = 64;

/// A layer that could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The stream is not a tar archive that can be read.
    #[error("bad layer archive")]
    Tar(#[from] TarError),
    /// A name climbs above the layer's root.
    #[error("entry {0:?} points outside its layer")]
    Escapes(String),
    /// A whiteout without a name to hide.
    #[error("entry {0:?} is a whiteout of nothing")]
    Whiteout(String),
    /// A system call failed for an entry.
    #[error("cannot {action} {path:?}")]
    Entry {
        /// What was tried.
        action: &'static str,
        /// Name of the entry.
        path: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// Unpacks the tar stream `input` into the empty directory `root`.
///
/// Needs the right to set owners and to make devices (root).
///
/// # Errors
/// [`ExtractError`] names the entry.
pub fn extract<R: Read>(input: R, root: OwnedFd) -> Result<(R, Extracted), ExtractError> {
    let mut reader = Reader::new(input);
    let mut layer = Layer {
        root,
        parent: None,
        directories: Vec::new(),
        buffer: vec![0; COPY_BUFFER_BYTES],
        done: Extracted::default(),
    };
    while let Some(entry) = reader.next_entry()? {
        layer.done.entries += 1;
        layer.entry(&entry, &mut reader)?;
    }
    layer.finish()?;
    Ok((reader.into_inner(), layer.done))
}

struct Layer {
    root: OwnedFd,
    /// The parent of the entry before, by its joined path. Dropped whenever a link or a removal could change what the path means.
    parent: Option<(Vec<u8>, OwnedFd)>,
    directories: Vec<(Vec<u8>, Timespec)>,
    buffer: Vec<u8>,
    done: Extracted,
}

impl Layer {
    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        let parts = components(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            return self.root_entry(entry);
        };
        let joined = parents.join(b"/".as_slice());
        let parent = match self.parent.take() {
            Some((path, fd)) if path == joined => fd,
            _ => self.make_parents(parents, entry)?,
        };
        if name.starts_with(WHITEOUT_PREFIX) {
            whiteout(parent.as_fd(), name, entry)?;
            self.parent = Some((joined, parent));
            return Ok(());
        }
        let changes_paths = self.make(parent.as_fd(), name, entry, reader)?;
        if !changes_paths {
            self.parent = Some((joined, parent));
        }
        if entry.kind == Kind::Directory {
            self.directories
                .push((parts.join(b"/".as_slice()), time(entry)));
        }
        Ok(())
    }

    /// The entry `./` sets mode, owner and attributes of the layer's root.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), ExtractError> {
        if entry.kind != Kind::Directory {
            return Err(ExtractError::Escapes(lossy(&entry.path)));
        }
        dress(self.root.as_fd(), entry)?;
        self.directories.push((b".".to_vec(), time(entry)));
        Ok(())
    }

    /// Makes the entry; true when paths may now mean something else.
    fn make<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<bool, ExtractError> {
        match entry.kind {
            Kind::Regular => {
                let (fd, replaced) = replace(parent, name, entry, || {
                    let flags = OFlags::WRONLY
                        | OFlags::CREATE
                        | OFlags::EXCL
                        | OFlags::NOFOLLOW
                        | OFlags::CLOEXEC;
                    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
                })?;
                self.fill(fd, entry, reader)?;
                Ok(replaced)
            }
            Kind::Directory => directory(parent, name, entry),
            Kind::Symlink => {
                replace(parent, name, entry, || {
                    rustix::fs::symlinkat(&entry.link[..], parent, name)
                })?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let (uid, gid) = owner(entry);
                rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
                    .map_err(failed("set the owner of", entry))?;
                rustix::fs::utimensat(parent, name, &times(entry), flags)
                    .map_err(failed("set the times of", entry))?;
                Ok(true)
            }
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let (_, replaced) = replace(parent, name, entry, || {
                    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
                })?;
                let fd = open_node(parent, name).map_err(failed("open", entry))?;
                dress_by_path(fd.as_fd(), entry)?;
                Ok(replaced)
            }
        }
    }

    fn fill<R: Read>(
        &mut self,
        fd: OwnedFd,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        let mut file = std::fs::File::from(fd);
        loop {
            let got = reader.read(&mut self.buffer).map_err(TarError::Read)?;
            let Some(chunk) = self.buffer.get(..got).filter(|c| !c.is_empty()) else {
                break;
            };
            file.write_all(chunk).map_err(failed_io("write", entry))?;
            self.done.bytes += got as u64;
        }
        dress(file.as_fd(), entry)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed("set the times of", entry))
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<bool, ExtractError> {
        let target = components(&entry.link)?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(ExtractError::Escapes(lossy(&entry.link)));
        };
        let path = target_parents.join(b"/".as_slice());
        let from = open_beneath(self.root.as_fd(), &path)
            .map_err(failed("find the link target of", entry))?;
        let target_name = *target_name;
        let same = |a: &rustix::fs::Stat, b: &rustix::fs::Stat| {
            a.st_dev == b.st_dev && a.st_ino == b.st_ino
        };
        let of = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("find the link target of", entry))?;
        // A link to itself would otherwise remove the only name.
        if rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| same(&s, &of))
        {
            return Ok(false);
        }
        replace(parent, name, entry, || {
            rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())
        })?;
        // Another name of a symbolic link is one too.
        Ok(true)
    }

    /// Opens the directory `parents`, and makes what is missing of it with mode 0755.
    fn make_parents(&self, parents: &[&[u8]], entry: &Entry) -> Result<OwnedFd, ExtractError> {
        let root = self.root.as_fd();
        match open_beneath(root, &parents.join(b"/".as_slice())) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return other.map_err(failed("open the parent of", entry)),
        }
        let mut at = open_beneath(root, b"").map_err(failed("open the parent of", entry))?;
        for (i, name) in parents.iter().enumerate() {
            let prefix = parents.get(..=i).unwrap_or(parents).join(b"/".as_slice());
            at = match open_beneath(root, &prefix) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let hides = is_whiteout(at.as_fd(), name);
                    if hides {
                        rustix::fs::unlinkat(&at, *name, AtFlags::empty())
                            .map_err(failed("replace the parent of", entry))?;
                    }
                    rustix::fs::mkdirat(&at, *name, Mode::from_raw_mode(0o755))
                        .map_err(failed("make the parent of", entry))?;
                    let fd =
                        open_beneath(root, &prefix).map_err(failed("open the parent of", entry))?;
                    if hides {
                        set_opaque(fd.as_fd()).map_err(failed("mark the parent of", entry))?;
                    }
                    fd
                }
                Err(error) => return Err(failed("open the parent of", entry)(error)),
            };
        }
        Ok(at)
    }

    fn finish(&mut self) -> Result<(), ExtractError> {
        for (path, time) in self.directories.drain(..).rev() {
            let stamps = Timestamps {
                last_access: time,
                last_modification: time,
            };
            // A later entry may have replaced the directory.
            let Ok(fd) = open_beneath(self.root.as_fd(), &path) else {
                continue;
            };
            rustix::fs::utimensat(
                rustix::fs::CWD,
                proc_path(fd.as_fd()),
                &stamps,
                AtFlags::empty(),
            )
            .map_err(|e| ExtractError::Entry {
                action: "set the times of",
                path: lossy(&path),
                source: e.into(),
            })?;
        }
        Ok(())
    }
}

/// Splits a name lexically; `.` and empty parts vanish, `..` takes one part back.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, ExtractError> {
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(ExtractError::Escapes(lossy(path)));
                }
            }
            name => parts.push(name),
        }
    }
    Ok(parts)
}

/// Opens a directory below `root`; links in it resolve as if `root` were `/`.
fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

fn open_node(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Runs `make`; when the name is taken, removes what has it and runs `make` again. Also tells whether
/// something was removed.
fn replace<T>(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    make: impl Fn() -> Result<T, Errno>,
) -> Result<(T, bool), ExtractError> {
    match make() {
        Err(Errno::EXIST) => {}
        other => return other.map(|t| (t, false)).map_err(failed("make", entry)),
    }
    remove(parent, name, entry)?;
    make().map(|t| (t, true)).map_err(failed("make", entry))
}

fn remove(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            let path = proc_path(parent) + "/";
            let path = std::path::PathBuf::from(path).join(os(name));
            std::fs::remove_dir_all(path).map_err(failed_io("replace", entry))
        }
        other => other.map_err(failed("replace", entry)),
    }
}

/// Makes or keeps a directory; true when something else had the name.
fn directory(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<bool, ExtractError> {
    let mode = Mode::from_raw_mode(0o700);
    let mut replaced = false;
    let mut hides = false;
    if let Err(error) = rustix::fs::mkdirat(parent, name, mode) {
        if error != Errno::EXIST {
            return Err(failed("make", entry)(error));
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("inspect", entry))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            hides = is_whiteout(parent, name);
            replaced = true;
            remove(parent, name, entry)?;
            rustix::fs::mkdirat(parent, name, mode).map_err(failed("make", entry))?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", entry))?;
    if hides {
        set_opaque(fd.as_fd()).map_err(failed("mark", entry))?;
    }
    dress(fd.as_fd(), entry)?;
    Ok(replaced)
}

fn whiteout(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
    if name == WHITEOUT_OPAQUE {
        return set_opaque(parent).map_err(failed("mark the parent of", entry));
    }
    let hidden = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or(name);
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(ExtractError::Whiteout(lossy(&entry.path)));
    }
    if hidden.starts_with(WHITEOUT_PREFIX) {
        // Book-keeping of the aufs driver (`.wh..wh.plnk`, `.wh..wh.aufs`), no content.
        return Ok(());
    }
    match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => {}
        other => return other.map_err(failed("hide what is below", entry)),
    }
    let stat = rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("inspect", entry))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, hidden, flags, Mode::empty())
            .map_err(failed("open", entry))?;
        set_opaque(fd.as_fd()).map_err(failed("mark", entry))?;
    }
    Ok(())
}

fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| {
        FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == 0
    })
}

fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::setxattr(proc_path(directory), OPAQUE, b"y", XattrFlags::empty())
}

/// Owner, then mode (a change of owner clears set-user-id), then attributes of an open file.
fn dress(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(failed("set the owner of", entry))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
        .map_err(failed("set the mode of", entry))?;
    for (key, value) in wanted_xattrs(entry) {
        rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())
            .map_err(failed("set an attribute of", entry))?;
    }
    Ok(())
}

/// As [`dress`], for what cannot be opened: devices and pipes.
fn dress_by_path(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
    let path = proc_path(fd);
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(failed("set the owner of", entry))?;
    rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(entry.mode))
        .map_err(failed("set the mode of", entry))?;
    for (key, value) in wanted_xattrs(entry) {
        rustix::fs::setxattr(path.as_str(), key, value, XattrFlags::empty())
            .map_err(failed("set an attribute of", entry))?;
    }
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path.as_str(),
        &times(entry),
        AtFlags::empty(),
    )
    .map_err(failed("set the times of", entry))
}

/// Attributes that belong to the content. Those of overlayfs would let a layer forge whiteouts and
/// redirects; labels of security modules belong to the host.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(k, v)| (k.as_slice(), v.as_slice()))
        .filter(|(key, _)| {
            let host = [
                b"trusted.overlay.".as_slice(),
                b"user.overlay.",
                b"security.selinux",
                b"security.apparmor",
                b"security.SMACK64",
                b"security.ima",
                b"security.evm",
            ];
            !host.iter().any(|p| key.starts_with(p)) && !key.contains(&0)
        })
}

fn owner(entry: &Entry) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (
        rustix::fs::Uid::from_raw(entry.uid),
        rustix::fs::Gid::from_raw(entry.gid),
    )
}

fn time(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    }
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: time(entry),
        last_modification: time(entry),
    }
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn failed(action: &'static str, entry: &Entry) -> impl FnOnce(Errno) -> ExtractError {
    let path = lossy(&entry.path);
    move |errno| ExtractError::Entry {
        action,
        path,
        source: errno.into(),
    }
}

fn failed_io(action: &'static str, entry: &Entry) -> impl FnOnce(std::io::Error) -> ExtractError {
    let path = lossy(&entry.path);
    move |source| ExtractError::Entry {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
