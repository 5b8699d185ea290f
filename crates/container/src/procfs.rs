//! The one procfs handle that the runtime trusts: the host's `/proc`, opened by
//! the parent and known to be the root of a procfs.
//!
//! Files are opened beneath the handle without crossing mounts or following
//! magic links, so nothing that somebody mounted over or linked into procfs can
//! redirect a write (CVE-2025-52881 and its like).

use crate::error::Error;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Inode of every procfs' root.
const PROC_ROOT_INO: u64 = 1;
/// Longest procfs file read here, in bytes.
const PROC_BYTES_MAX: u64 = 1 << 20;

/// Opens and checks the host's `/proc`.
pub fn open() -> Result<OwnedFd, Error> {
    let failed = |e| Error::system("cannot open /proc", e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(failed)?;
    let kind = rustix::fs::fstatfs(&proc).map_err(failed)?.f_type as u64;
    let inode = rustix::fs::fstat(&proc).map_err(failed)?.st_ino;
    if kind != PROC_SUPER_MAGIC || inode != PROC_ROOT_INO {
        return Err(Error::system(
            "what is mounted at /proc is no procfs",
            std::io::ErrorKind::Unsupported,
        ));
    }
    Ok(proc)
}

/// Writes a file of procfs in one write(2).
pub fn write(proc: BorrowedFd<'_>, path: &str, value: &[u8]) -> carrack_sys::Result<()> {
    let path = CString::new(path).map_err(|_| carrack_sys::Errno::INVAL)?;
    crate::init::write_proc(proc, &path, value)
}

/// Reads a file of procfs.
pub fn read(proc: BorrowedFd<'_>, path: &str) -> std::io::Result<String> {
    let file = open_below(proc, path)?;
    let mut text = String::new();
    std::fs::File::from(file)
        .take(PROC_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn open_below(proc: BorrowedFd<'_>, path: &str) -> carrack_sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)
}

/// Start time of a process in clock ticks since boot, field 22 of
/// `/proc/PID/stat`; with the pid it names a process for good. `None` for a
/// process that is gone or only waits to be reaped.
pub fn start_time(proc: BorrowedFd<'_>, pid: i32) -> Option<u64> {
    let file = open_below(proc, &format!("{pid}/stat")).ok()?;
    // The line is made in one piece; the 22nd field is well within the first kilobyte.
    let mut line = [0; 1024];
    let length = rustix::io::read(&file, &mut line).ok()?;
    let (state, start) = parse_stat(&String::from_utf8_lossy(line.get(..length)?))?;
    (!matches!(state, b'Z' | b'X' | b'x')).then_some(start)
}

/// State letter and start time of a stat line. The command may contain anything, so count from its end.
fn parse_stat(stat: &str) -> Option<(u8, u64)> {
    let after = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = after.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Inode of the user namespace that the kernel starts with (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

/// Whether this process is in the machine's first user namespace, where root has every right.
pub fn in_first_user_namespace(proc: BorrowedFd<'_>) -> bool {
    let stat = rustix::fs::statat(proc, c"self/ns/user", rustix::fs::AtFlags::empty());
    stat.is_ok_and(|stat| stat.st_ino == FIRST_USER_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn our_own_start_time_is_there() {
        let proc = open().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(proc.as_fd(), own).unwrap() > 0);
        assert_eq!(start_time(proc.as_fd(), i32::MAX), None);
    }

    #[test]
    fn a_command_with_parentheses_does_not_confuse_the_fields() {
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(line), Some((b'S', 4242)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_magic_link_is_not_followed() {
        let proc = open().unwrap();
        assert!(read(proc.as_fd(), "self/root/etc/hostname").is_err());
        assert!(write(proc.as_fd(), "self/cwd/x", b"x").is_err());
    }
}
