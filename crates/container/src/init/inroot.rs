//! Paths inside a root file system that the container can write to.
//!
//! Every look-up goes through openat2(2) with `RESOLVE_IN_ROOT` from the root's
//! descriptor, so whatever the links and names say, and whoever swaps them
//! meanwhile, the result is inside the root. Missing destinations are made the
//! same way, one component at a time; a dangling symbolic link is followed as
//! the container would follow it.
//!
//! May run between clone and exec: paths live in fixed buffers.

use carrack_sys::{Errno, Result};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest path in bytes, with its terminator (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;
/// Most symbolic links followed by hand (the kernel's own limit).
const LINKS_MAX: u32 = 40;

/// What a destination must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory.
    Directory,
    /// Anything that is no directory; a missing one becomes an empty file.
    File,
}

/// Opens `path` inside `root`.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT)
}

/// Opens `path` inside `root`; a symbolic link anywhere in it is `ELOOP`.
pub fn open_no_links(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    open_with(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    loop {
        // EAGAIN: a rename or mount raced with the look-up of a `..`; the kernel asks for another try.
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the destination (as `O_PATH`), and makes what is missing of it.
pub fn ensure(root: BorrowedFd<'_>, path: &CStr, want: Want) -> Result<OwnedFd> {
    let flags = match want {
        Want::Directory => OFlags::PATH | OFlags::DIRECTORY,
        Want::File => OFlags::PATH,
    };
    let path = if path.is_empty() { c"." } else { path };
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut buffer = PathBuffer::new(path.to_bytes())?;
    if let Some(made) = ensure_last(root, &mut buffer, want) {
        return Ok(made);
    }
    for _ in 0..LINKS_MAX {
        match make_one_pass(root, &mut buffer, want)? {
            Pass::Done => return open(root, buffer.whole(), flags),
            Pass::FollowedLink => {}
        }
    }
    Err(Errno::LOOP)
}

/// The usual case: only the last component is missing. `None` sends the caller
/// on to the walk, which also finds the right error.
fn ensure_last(root: BorrowedFd<'_>, buffer: &mut PathBuffer, want: Want) -> Option<OwnedFd> {
    let (begin, end) = buffer.last_component()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = buffer.with_prefix(begin, |parent| {
        open(root, if parent.is_empty() { c"." } else { parent }, flags)
    });
    let parent = parent.ok()?;
    buffer.with_name(begin, end, |name| {
        make(parent.as_fd(), name, want == Want::File).ok()?;
        // Just made, so no link; had somebody put one there meanwhile, this refuses it.
        open_no_links(parent.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW).ok()
    })
}

enum Pass {
    Done,
    FollowedLink,
}

/// Walks the path once and makes each missing component. Stops when it meets a
/// dangling link, with the link's target put into the buffer in its place.
fn make_one_pass(root: BorrowedFd<'_>, buffer: &mut PathBuffer, want: Want) -> Result<Pass> {
    let mut start = 0;
    while let Some((begin, end)) = buffer.component(start) {
        let last = buffer.component(end).is_none();
        let found = buffer.with_prefix(end, |prefix| open(root, prefix, OFlags::PATH));
        match found {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let parent = buffer.with_prefix(begin, |prefix| {
                    let prefix = if prefix.is_empty() { c"." } else { prefix };
                    open(root, prefix, OFlags::PATH | OFlags::DIRECTORY)
                })?;
                let file = last && want == Want::File;
                match buffer.with_name(begin, end, |name| make(parent.as_fd(), name, file)) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        let mut target = [0u8; PATH_BYTES_MAX];
                        let length = buffer.with_name(begin, end, |name| {
                            rustix::fs::readlinkat_raw(parent.as_fd(), name, &mut target[..])
                        });
                        match length {
                            Ok(length) => {
                                buffer.replace(begin, end, &target[..length])?;
                                return Ok(Pass::FollowedLink);
                            }
                            // Not a link: somebody made it between our two looks. Look again.
                            Err(Errno::INVAL | Errno::NOENT) => return Ok(Pass::FollowedLink),
                            Err(error) => return Err(error),
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        start = end;
    }
    Ok(Pass::Done)
}

fn make(parent: BorrowedFd<'_>, name: &CStr, file: bool) -> Result<()> {
    if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(
            parent,
            name,
            flags | OFlags::NOFOLLOW,
            Mode::from_raw_mode(0o755),
        )
        .map(drop)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}

/// A path in place, of which prefixes and names can be borrowed as C strings.
struct PathBuffer {
    bytes: [u8; PATH_BYTES_MAX],
    length: usize,
}

impl PathBuffer {
    fn new(path: &[u8]) -> Result<Self> {
        if path.len() >= PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut bytes = [0; PATH_BYTES_MAX];
        bytes[..path.len()].copy_from_slice(path);
        Ok(Self {
            bytes,
            length: path.len(),
        })
    }

    /// Begin and end of the component at or after `from`.
    fn component(&self, from: usize) -> Option<(usize, usize)> {
        let rest = &self.bytes[from..self.length];
        let begin = from + rest.iter().position(|&b| b != b'/')?;
        let tail = &self.bytes[begin..self.length];
        let end = begin + tail.iter().position(|&b| b == b'/').unwrap_or(tail.len());
        Some((begin, end))
    }

    /// Begin and end of the last component.
    fn last_component(&self) -> Option<(usize, usize)> {
        let mut last = None;
        let mut at = 0;
        while let Some((begin, end)) = self.component(at) {
            last = Some((begin, end));
            at = end;
        }
        last
    }

    fn whole(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    fn with_prefix<T>(&mut self, end: usize, f: impl FnOnce(&CStr) -> T) -> T {
        self.with_name(0, end, f)
    }

    /// Calls `f` with the bytes from `begin` to `end` as a C string.
    fn with_name<T>(&mut self, begin: usize, end: usize, f: impl FnOnce(&CStr) -> T) -> T {
        let kept = std::mem::replace(&mut self.bytes[end], 0);
        let result = f(CStr::from_bytes_until_nul(&self.bytes[begin..]).unwrap_or(c""));
        self.bytes[end] = kept;
        result
    }

    /// Puts a link's target in the place of the component `begin..end`.
    fn replace(&mut self, begin: usize, end: usize, target: &[u8]) -> Result<()> {
        let head = if target.first() == Some(&b'/') {
            0
        } else {
            begin
        };
        let rest = self.length - end;
        let length = head + target.len() + rest;
        if length >= PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut bytes = [0; PATH_BYTES_MAX];
        bytes[..head].copy_from_slice(&self.bytes[..head]);
        bytes[head..head + target.len()].copy_from_slice(target);
        bytes[head + target.len()..length].copy_from_slice(&self.bytes[end..self.length]);
        self.bytes = bytes;
        self.length = length;
        Ok(())
    }
}

/// Makes a symbolic link at `path` inside `root`, and the directories above it;
/// what exists there already stays.
pub fn make_symlink(root: BorrowedFd<'_>, path: &CStr, target: &CStr) -> Result<()> {
    let mut buffer = PathBuffer::new(path.to_bytes())?;
    let mut last = None;
    let mut at = 0;
    while let Some((begin, end)) = buffer.component(at) {
        last = Some((begin, end));
        at = end;
    }
    let Some((begin, end)) = last else {
        return Err(Errno::EXIST);
    };
    let parent = buffer.with_prefix(begin, |parent| ensure(root, parent, Want::Directory))?;
    match buffer.with_name(begin, end, |name| {
        rustix::fs::symlinkat(target, &parent, name)
    }) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory's worth of an `O_PATH` descriptor usable as the working directory.
pub fn enter(directory: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(directory)
}

/// Whether the descriptor is a directory.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

/// The descriptor's device number when it is a character device.
pub fn character_device(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    let character =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice;
    Ok(character.then_some(stat.st_rdev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn root(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn ensure_at(dir: &Path, path: &str, want: Want) -> Result<OwnedFd> {
        ensure(root(dir).as_fd(), &CString::new(path).unwrap(), want)
    }

    #[test]
    fn makes_missing_directories_and_files() {
        let dir = tempfile::tempdir().unwrap();
        ensure_at(dir.path(), "a/b/c", Want::Directory).unwrap();
        ensure_at(dir.path(), "a/b/file", Want::File).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert!(dir.path().join("a/b/file").is_file());
        ensure_at(dir.path(), "/", Want::Directory).unwrap();
    }

    #[test]
    fn a_dangling_link_is_followed_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("../run/resolve/stub", dir.path().join("etc/resolv.conf")).unwrap();
        ensure_at(dir.path(), "etc/resolv.conf", Want::File).unwrap();
        assert!(dir.path().join("run/resolve/stub").is_file());

        symlink("/outside/of/all", dir.path().join("abs")).unwrap();
        ensure_at(dir.path(), "abs/here", Want::Directory).unwrap();
        assert!(dir.path().join("outside/of/all/here").is_dir());

        symlink("../../../../../../up", dir.path().join("up-link")).unwrap();
        ensure_at(dir.path(), "up-link", Want::Directory).unwrap();
        assert!(dir.path().join("up").is_dir());
    }

    #[test]
    fn a_loop_and_a_file_in_the_way_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(
            ensure_at(dir.path(), "a/x", Want::Directory).unwrap_err(),
            Errno::LOOP
        );
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(
            ensure_at(dir.path(), "file/x", Want::Directory).unwrap_err(),
            Errno::NOTDIR
        );
        assert_eq!(
            ensure_at(dir.path(), "file", Want::Directory).unwrap_err(),
            Errno::NOTDIR
        );
    }

    #[test]
    fn too_long_paths_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x/".repeat(3000);
        assert_eq!(
            ensure_at(dir.path(), &long, Want::Directory).unwrap_err(),
            Errno::NAMETOOLONG
        );
    }
}
