//! Unpacks a layer's entries into `fs/`.
//!
//! Contract: nothing outside the directory is read or written, whatever the names and links in the
//! stream say (see the sibling `chain`). The entry itself is made relative to the descriptor of its
//! directory with calls that never follow a link at the end of the name. Hard links are made between
//! two such directories.
//!
//! `.wh.NAME` becomes a character device 0:0, `.wh..wh..opq` the attribute `trusted.overlay.opaque`
//! (in a user namespace `user.overlay.opaque`). They speak of lower layers only, so one that names
//! something of the same layer hides what is below and keeps the thing. A later entry replaces an
//! earlier one of the same name; a directory keeps its contents.
//!
//! In a user namespace devices cannot be made and are left out, as other engines do there.
//!
//! A file of root's takes four system calls: it is made with its mode (the umask is zero), written, given its
//! times and closed. Only other owners and special bits need more.

use super::Privilege;
use super::chain::{Chain, open_in_root, proc_path, time};
use super::implied::Log;
use super::kept::Keeper;
use crate::driver::{DriverError, Unpack};
use crate::store::StoreError;
use crate::tar::{Entry, Kind, TarError};
use crate::unpack::{ExtractError, Meaning, components, failed, lossy, meaning, wanted_xattrs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The bits that a change of the owner clears, or that making a file does not set.
const SPECIAL_BITS: u32 = 0o7000;

pub(super) struct Unpacker {
    at: PathBuf,
    chain: Chain,
    privilege: Privilege,
    /// Owner of what this process makes.
    own: (u32, u32),
    keeper: Option<Keeper>,
    keys: u64,
}

impl Unpacker {
    pub(super) fn new(at: &Path, privilege: Privilege) -> Result<Self, DriverError> {
        let files = at.join("fs");
        let io = |action| {
            let files = files.clone();
            move |e: Errno| StoreError::io(action, files)(e.into())
        };
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdir(&files, mode).map_err(io("make the directory"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty()).map_err(io("open"))?;
        let stat = rustix::fs::fstat(&root).map_err(io("inspect"))?;
        // The store's own directory must not decide what its layers look like.
        let _ = rustix::fs::fremovexattr(&root, "system.posix_acl_default");
        rustix::fs::fchmod(&root, mode).map_err(io("set the mode of"))?;
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Ok(Self {
            at: at.to_owned(),
            chain: Chain::new(root, stat.st_gid != own.1, privilege.opaque(), Log::new(at))?,
            privilege,
            own,
            keeper: None,
            keys: 0,
        })
    }

    fn thing(
        &mut self,
        name: &[u8],
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<Option<Vec<u8>>, DriverError> {
        match entry.kind {
            Kind::Regular => {
                self.regular(name, entry, content)?;
                if entry.stored() == 0 {
                    return Ok(None);
                }
                self.keys += 1;
                return Ok(Some(self.chain.path_of(name)));
            }
            Kind::Directory => self.directory(name, entry)?,
            Kind::Symlink => self.symlink(name, entry)?,
            Kind::HardLink => self.hard_link(name, entry)?,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(name, entry)?,
        }
        Ok(None)
    }

    fn regular(
        &mut self,
        name: &[u8],
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<(), DriverError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & !SPECIAL_BITS);
        let fd = self.replacing(name, entry, |parent| {
            rustix::fs::openat(parent, name, flags, mode)
        })?;
        let file = File::from(fd);
        write(&file, entry, content)?;
        self.dress(file.as_fd(), entry)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed("set the times of", entry))?;
        Ok(())
    }

    /// Owner, then mode, then attributes (a change of the owner clears special bits and capabilities).
    fn dress(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
        let foreign = self.chain.inherits() || (entry.uid, entry.gid) != self.own;
        if foreign {
            let (uid, gid) = owner(entry);
            rustix::fs::fchown(fd, Some(uid), Some(gid))
                .map_err(failed("set the owner of", entry))?;
        }
        if entry.mode & SPECIAL_BITS != 0 {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
                .map_err(failed("set the mode of", entry))?;
        }
        for (key, value) in wanted_xattrs(entry) {
            let set = rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty());
            tolerate(set, key, entry)?;
        }
        Ok(())
    }

    /// As `dress`, for what cannot be opened.
    fn dress_node(&self, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let parent = self.chain.last();
        if self.chain.inherits() || (entry.uid, entry.gid) != self.own {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed("set the owner of", entry))?;
        }
        let mut xattrs = wanted_xattrs(entry).peekable();
        let special = entry.kind != Kind::Symlink && entry.mode & SPECIAL_BITS != 0;
        if special || xattrs.peek().is_some() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())
                .map_err(failed("open", entry))?;
            let path = proc_path(fd.as_fd());
            if special {
                rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(entry.mode))
                    .map_err(failed("set the mode of", entry))?;
            }
            for (key, value) in xattrs {
                let set = rustix::fs::setxattr(path.as_str(), key, value, XattrFlags::empty());
                tolerate(set, key, entry)?;
            }
        }
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the times of", entry))
    }

    fn symlink(&mut self, name: &[u8], entry: &Entry) -> Result<(), DriverError> {
        self.replacing(name, entry, |parent| {
            rustix::fs::symlinkat(entry.link.as_slice(), parent, name)
        })?;
        Ok(self.dress_node(name, entry)?)
    }

    fn node(&mut self, name: &[u8], entry: &Entry) -> Result<(), DriverError> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if self.privilege == Privilege::UserNamespace && kind != FileType::Fifo {
            log::debug!("left out the device {:?}", lossy(&entry.path));
            return Ok(());
        }
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode & !SPECIAL_BITS);
        self.replacing(name, entry, |parent| {
            rustix::fs::mknodat(parent, name, kind, mode, device)
        })?;
        Ok(self.dress_node(name, entry)?)
    }

    fn hard_link(&mut self, name: &[u8], entry: &Entry) -> Result<(), DriverError> {
        let target = components(&entry.link)?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(ExtractError::Escapes(lossy(&entry.link)).into());
        };
        let missing = || failed("find the link target of", entry);
        let opened;
        let from = if self.chain.is_at(target_parents) {
            self.chain.last()
        } else {
            let path = target_parents.join(b"/".as_slice());
            opened = open_in_root(self.chain.root(), &path).map_err(missing())?;
            opened.as_fd()
        };
        let link = |parent: BorrowedFd<'_>| {
            rustix::fs::linkat(from, *target_name, parent, name, AtFlags::empty())
        };
        let parent = self.chain.last();
        match link(parent) {
            Ok(()) => {
                self.chain.touch();
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(missing()(error).into()),
        }
        let inode = |directory, name: &[u8]| {
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|s| (s.st_dev, s.st_ino))
        };
        // A link to itself would otherwise remove the only name.
        if inode(parent, name) == inode(from, target_name) {
            return Ok(());
        }
        // The target may be inside what is to be replaced: hold it.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held =
            rustix::fs::openat(from, *target_name, flags, Mode::empty()).map_err(missing())?;
        self.make_room(name, entry)?;
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(
            rustix::fs::CWD,
            proc_path(held.as_fd()),
            self.chain.last(),
            name,
            follow,
        )
        .map_err(failed("make", entry))?;
        self.chain.touch();
        Ok(())
    }

    /// Makes or keeps a directory and goes on in it.
    fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<(), DriverError> {
        let mode = Mode::from_raw_mode(entry.mode & !SPECIAL_BITS);
        let parent = self.chain.last();
        let mut new = true;
        let mut hides = false;
        match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("inspect", entry))?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                new = kind != FileType::Directory;
                if new {
                    hides = kind == FileType::CharacterDevice && stat.st_rdev == 0;
                    self.make_room(name, entry)?;
                    rustix::fs::mkdirat(self.chain.last(), name, mode)
                        .map_err(failed("make", entry))?;
                }
            }
            Err(error) => return Err(failed("make", entry)(error).into()),
        }
        if new {
            self.chain.touch();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.chain.last(), name, flags, Mode::empty())
            .map_err(failed("open", entry))?;
        if hides {
            self.set_opaque(fd.as_fd(), entry)?;
        }
        if new {
            self.dress_directory(fd.as_fd(), entry)?;
        } else {
            self.chain.mentioned(name, entry)?;
            redress(fd.as_fd(), entry)?;
        }
        let inherits = self.chain.inherits() || entry.mode & 0o2000 != 0;
        Ok(self
            .chain
            .push(name, fd, Some(time(entry)), true, inherits, entry)?)
    }

    /// A directory takes the set-group-id bit of its parent, so its mode is set after such a one.
    fn dress_directory(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
        self.dress(fd, entry)?;
        if self.chain.inherits() {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
                .map_err(failed("set the mode of", entry))?;
        }
        Ok(())
    }

    /// The entry `./` sets mode, owner and attributes of the layer's root.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), ExtractError> {
        if entry.kind != Kind::Directory {
            return Err(ExtractError::Escapes(lossy(&entry.path)));
        }
        redress(self.chain.root(), entry)?;
        self.chain.root_entry(time(entry), entry.mode & 0o2000 != 0);
        Ok(())
    }

    fn whiteout(&mut self, hidden: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let parent = self.chain.last();
        let kind = FileType::CharacterDevice;
        match rustix::fs::mknodat(parent, hidden, kind, Mode::empty(), 0) {
            Ok(()) => {
                self.chain.touch();
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("hide what is below", entry)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, hidden, flags, Mode::empty()) {
            Ok(fd) => {
                self.set_opaque(fd.as_fd(), entry)?;
                self.chain.mentioned(hidden, entry)
            }
            // A file hides what is below by itself.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(failed("open", entry)(error)),
        }
    }

    fn set_opaque(&self, directory: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
        let key = self.privilege.opaque();
        rustix::fs::fsetxattr(directory, key, b"y", XattrFlags::empty())
            .map_err(failed("hide what is below", entry))
    }

    /// Runs `make`; when the name is taken, takes what has it away and runs `make` again.
    fn replacing<T>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, DriverError> {
        self.chain.touch();
        match make(self.chain.last()) {
            Err(Errno::EXIST) => {}
            other => return Ok(other.map_err(failed("make", entry))?),
        }
        self.make_room(name, entry)?;
        Ok(make(self.chain.last()).map_err(failed("make", entry))?)
    }

    /// Takes away what has the name; what has bytes in it is kept aside.
    fn make_room(&mut self, name: &[u8], entry: &Entry) -> Result<(), DriverError> {
        self.chain.touch();
        let parent = self.chain.last();
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("inspect", entry))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let keep = match kind {
            FileType::Directory => true,
            FileType::RegularFile => stat.st_size > 0,
            _ => false,
        };
        if !keep {
            return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())
                .map_err(failed("replace", entry))?);
        }
        if kind == FileType::Directory {
            self.chain.replaced(name, entry)?;
        }
        let path = self.chain.path_of(name);
        if self.keeper.is_none() {
            self.keeper = Some(Keeper::new(&self.at)?);
        }
        let keeper = self.keeper.as_mut();
        let kept = keeper.map(|k| k.keep(self.chain.last(), name, &path, self.keys));
        kept.transpose().map_err(|source| ExtractError::Entry {
            action: "replace",
            path: lossy(&entry.path),
            source,
        })?;
        Ok(())
    }
}

impl Unpack for Unpacker {
    fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<Option<Vec<u8>>, DriverError> {
        let parts = components(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            self.root_entry(entry)?;
            return Ok(None);
        };
        self.chain.enter(parents, entry)?;
        match meaning(name, entry)? {
            Meaning::Thing(name) => return self.thing(name, entry, content),
            Meaning::Opaque => self.set_opaque(self.chain.last(), entry)?,
            Meaning::Whiteout(hidden) => self.whiteout(hidden, entry)?,
            Meaning::Nothing => {}
        }
        Ok(None)
    }

    fn finish(mut self: Box<Self>) -> Result<(), DriverError> {
        self.chain.finish()?;
        if let Some(keeper) = self.keeper.take() {
            let path = self.at.join("kept.log");
            keeper.finish().map_err(StoreError::io("write", path))?;
        }
        Ok(())
    }
}

/// Writes the bytes of a file, at their places when it is sparse.
fn write(file: &File, entry: &Entry, content: &mut dyn BufRead) -> Result<(), ExtractError> {
    let failed_io = |source| ExtractError::Entry {
        action: "write",
        path: lossy(&entry.path),
        source,
    };
    let mut run = |mut offset: u64, length: u64| -> Result<(), ExtractError> {
        let mut left = length;
        while left > 0 {
            let bytes = content.fill_buf().map_err(TarError::Read)?;
            let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(bytes) = bytes.get(..n).filter(|b| !b.is_empty()) else {
                return Err(TarError::Read(std::io::ErrorKind::UnexpectedEof.into()).into());
            };
            file.write_all_at(bytes, offset).map_err(failed_io)?;
            content.consume(n);
            offset += n as u64;
            left -= n as u64;
        }
        Ok(())
    };
    let Some(map) = &entry.sparse else {
        return run(0, entry.size);
    };
    for segment in map {
        run(segment.offset, segment.length)?;
    }
    file.set_len(entry.size).map_err(failed_io)
}

/// All attributes of something that was there before.
fn redress(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ExtractError> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(failed("set the owner of", entry))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
        .map_err(failed("set the mode of", entry))?;
    for (key, value) in wanted_xattrs(entry) {
        let set = rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty());
        tolerate(set, key, entry)?;
    }
    Ok(())
}

/// An attribute that this file system or this kind of file cannot have is left out, as other engines do.
fn tolerate(set: Result<(), Errno>, key: &[u8], entry: &Entry) -> Result<(), ExtractError> {
    match set {
        Err(Errno::OPNOTSUPP) => {}
        Err(Errno::PERM) if key.starts_with(b"user.") || key.starts_with(b"trusted.") => {}
        other => return other.map_err(failed("set an attribute of", entry)),
    }
    log::warn!(
        "left out the attribute {:?} of {:?}: not possible here",
        lossy(key),
        lossy(&entry.path)
    );
    Ok(())
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: time(entry),
        last_modification: time(entry),
    }
}
