//! `tmpcopyup`: what the image has at a mount's destination, copied into the
//! new tmpfs.
//!
//! Works on descriptors and names only; symbolic links are copied, never
//! followed. Owners and modes come along; what the caller may not set (owners,
//! without privilege) stays as it is.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Deepest directory that is copied.
const DEPTH_MAX: u32 = 256;

/// Copies what is in the directory `from` (which may be an `O_PATH` descriptor)
/// into `to`, whose own mode and owner are for the mount's options to say.
pub fn copy(from: OwnedFd, to: OwnedFd) -> std::io::Result<()> {
    copy_contents(from.as_fd(), to.as_fd(), 0).map(drop)
}

/// Copies the entries; returns the source, readable.
fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> std::io::Result<OwnedFd> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    let readable = open_directory(from, c".")?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(readable.as_fd(), to, name, depth)?;
    }
    Ok(readable)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> std::io::Result<()> {
    let readable = copy_contents(from, to, depth)?;
    let stat = rustix::fs::fstat(&readable)?;
    let target = open_directory(to, c".")?;
    ignore_rights(rustix::fs::fchown(
        &target,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    ))?;
    ignore_rights(rustix::fs::fchmod(
        &target,
        Mode::from_raw_mode(stat.st_mode),
    ))
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    depth: u32,
) -> std::io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let (source, target) = (open_directory(from, name)?, open_directory(to, name)?);
            return copy_directory(source.as_fd(), target.as_fd(), depth + 1);
        }
        FileType::RegularFile => return copy_file(from, to, name, &stat),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        kind => ignore_rights(rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev))?,
    }
    let owner = (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    );
    ignore_missing(rustix::fs::chownat(
        to,
        name,
        owner.0,
        owner.1,
        AtFlags::SYMLINK_NOFOLLOW,
    ))?;
    if kind != FileType::Symlink {
        ignore_missing(rustix::fs::chmodat(to, name, mode, AtFlags::empty()))?;
    }
    Ok(())
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &rustix::fs::Stat,
) -> std::io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
    let mut target = File::from(rustix::fs::openat(
        to,
        name,
        write,
        Mode::from_raw_mode(0o600),
    )?);
    std::io::copy(&mut source, &mut target)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    ignore_rights(rustix::fs::fchown(&target, Some(owner.0), Some(owner.1)))?;
    ignore_rights(rustix::fs::fchmod(
        &target,
        Mode::from_raw_mode(stat.st_mode),
    ))
}

/// Owners and device nodes may be beyond an unprivileged caller.
fn ignore_rights(result: rustix::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// As [`ignore_rights`], for a node that could not be made.
fn ignore_missing(result: rustix::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => ignore_rights(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn copies_files_directories_and_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "text").unwrap();
        std::fs::set_permissions(from.path().join("d/f"), PermissionsExt::from_mode(0o4750))
            .unwrap();
        symlink("/etc/passwd", from.path().join("l")).unwrap();
        let open =
            |path| open_directory(rustix::fs::CWD, &std::ffi::CString::new(path).unwrap()).unwrap();
        let text = |dir: &tempfile::TempDir| dir.path().to_str().unwrap().to_owned();
        copy(open(text(&from)), open(text(&to))).unwrap();
        assert_eq!(
            std::fs::read_to_string(to.path().join("d/f")).unwrap(),
            "text"
        );
        let mode = std::fs::metadata(to.path().join("d/f"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o4750);
        assert_eq!(
            std::fs::read_link(to.path().join("l")).unwrap().to_str(),
            Some("/etc/passwd")
        );
    }
}
