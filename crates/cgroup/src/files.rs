//! Reading and writing the small files a cgroup is made of.
//!
//! One `open`, one `write` (or the reads up to the end), one `close`: nothing
//! is stat-ed, nothing is read back. Paths given here are built from a mount
//! point and checked components only (see `path`). On failure the error names
//! file and value; nothing is retried except an interrupted call.
//!
//! Where many files are written one after the other, [`close_together`] closes
//! them with one call at the end.

use crate::error::{Error, Result};
use carrack_sys::late::Batch;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The most that is read of one control file, in bytes; `memory.stat` and
/// `cgroup.procs` of the largest groups seen stay far below.
pub(crate) const FILE_BYTES_MAX: usize = 16 << 20;

/// Files that [`close_together`] keeps open at most.
const TOGETHER_MAX: usize = 16;

thread_local! {
    /// Where this thread's files go instead of being closed, between [`close_together`] and the
    /// end of its guard.
    static TOGETHER: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

/// Files of this thread stay open until the guard is dropped, which closes them with one call.
pub(crate) fn close_together() -> Together {
    TOGETHER.with_borrow_mut(|batch| *batch = Some(Batch::default()));
    Together(())
}

/// See [`close_together`].
pub(crate) struct Together(());

impl Drop for Together {
    fn drop(&mut self) {
        TOGETHER.take();
    }
}

fn close(fd: OwnedFd) {
    TOGETHER.with_borrow_mut(|batch| match batch {
        Some(batch) if batch.iter().len() < TOGETHER_MAX => batch.push(fd),
        _ => drop(fd),
    });
}

pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| {
        rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    })
}

pub(crate) fn open_write(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::WRONLY).map_err(|e| Error::io("open", path, e))
}

pub(crate) fn write_fd(fd: impl AsFd, value: &[u8]) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value)).map(drop)
}

/// Opens, writes and closes; the bare errno for callers that explain it.
pub(crate) fn try_write(path: &Path, value: &str) -> Result<(), Errno> {
    let fd = open(path, OFlags::WRONLY)?;
    let written = write_fd(&fd, value.as_bytes());
    close(fd);
    written
}

/// Opens, writes and closes.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).map_err(|e| write_error(path, value, e))
}

/// A refused write with what its errno means for this file.
pub(crate) fn write_error(path: &Path, value: &str, errno: Errno) -> Error {
    Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        hint: crate::hint::of_write(path, errno),
        source: errno.into(),
    }
}

/// The whole file as text; the bare errno for callers that explain it.
pub(crate) fn try_read(path: &Path) -> Result<String, Errno> {
    let fd = open(path, OFlags::RDONLY)?;
    let mut text = Vec::with_capacity(4096);
    loop {
        if text.len() >= FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        text.reserve(4096);
        let n = rustix::io::retry_on_intr(|| {
            rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut text))
        })?;
        if n == 0 {
            break;
        }
    }
    String::from_utf8(text).map_err(|_| Errno::ILSEQ)
}

/// The whole of a file that the kernel produces in one piece (`/proc/self/cgroup`, `cpuset.cpus`):
/// a read that leaves room in the buffer was the last one, which saves asking for the end.
pub(crate) fn read_single(path: &Path) -> Result<String> {
    let one = || -> Result<Option<String>, Errno> {
        let fd = open(path, OFlags::RDONLY)?;
        let mut text = Vec::with_capacity(4096);
        let n = rustix::io::retry_on_intr(|| {
            rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut text))
        })?;
        close(fd);
        if n >= 4096 {
            return Ok(None);
        }
        String::from_utf8(text).map(Some).map_err(|_| Errno::ILSEQ)
    };
    match one().map_err(|e| Error::io("read", path, e))? {
        Some(text) => Ok(text),
        None => read(path),
    }
}

/// The whole file as text.
pub(crate) fn read(path: &Path) -> Result<String> {
    try_read(path).map_err(|e| Error::io("read", path, e))
}

/// The file as text, or `None` when it (or its cgroup) is not there.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match try_read(path) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

pub(crate) fn mkdir(path: &Path) -> Result<(), Errno> {
    rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755))
}

pub(crate) fn rmdir(path: &Path) -> Result<(), Errno> {
    rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR)
}

/// Names of the sub-directories (child cgroups) of a cgroup; empty when it is gone.
pub(crate) fn children(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if e.raw_os_error() == Some(crate::error::libc_errno::ENODEV) => break,
            Err(e) => return Err(Error::io("list", dir, e)),
        };
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}
