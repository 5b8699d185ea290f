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

/// Facts of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: i32,
    /// Start time in clock ticks since boot; with the pid it names a process for good.
    pub start: u64,
    /// The signals below 32 that the process ignores, signal n as bit n - 1.
    pub ignored: u32,
}

/// The process' facts. `None` for one that is gone or only waits to be reaped.
pub fn stat(proc: BorrowedFd<'_>, pid: i32) -> Option<Stat> {
    let file = open_below(proc, &format!("{pid}/stat")).ok()?;
    // The line is made in one piece; the fields that count are well within the first kilobyte.
    let mut line = [0; 1024];
    let length = rustix::io::read(&file, &mut line).ok()?;
    let (state, stat) = parse_stat(pid, &String::from_utf8_lossy(line.get(..length)?))?;
    (!matches!(state, b'Z' | b'X' | b'x')).then_some(stat)
}

/// Our own facts.
pub fn own_stat(proc: BorrowedFd<'_>) -> Option<Stat> {
    stat(proc, std::process::id() as i32)
}

/// The start time of [`stat`].
pub fn start_time(proc: BorrowedFd<'_>, pid: i32) -> Option<u64> {
    stat(proc, pid).map(|stat| stat.start)
}

/// The signals to give their default action in a child of the process with these facts: those
/// that it ignores, or all that can be ignored when nothing is known.
pub fn ignored(stat: Option<&Stat>) -> u32 {
    const SIGKILL_AND_SIGSTOP: u32 = 1 << 8 | 1 << 18;
    const SIGNALS: u32 = u32::MAX >> 1;
    stat.map_or(SIGNALS, |stat| stat.ignored) & !SIGKILL_AND_SIGSTOP
}

/// State letter and facts of a stat line. The command may contain anything, so count from its end.
fn parse_stat(pid: i32, stat: &str) -> Option<(u8, Stat)> {
    let after = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = after.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // Fields 22 and 33 of proc(5); the state is the third.
    let start = fields.nth(18)?.parse().ok()?;
    let ignored = fields.nth(10)?.parse().ok()?;
    Some((
        state,
        Stat {
            pid,
            start,
            ignored,
        },
    ))
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
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 \
                    23 24 25 26 27 28 29 30 0 0 4096 65536";
        let stat = Stat {
            pid: 7,
            start: 4242,
            ignored: 4096,
        };
        assert_eq!(parse_stat(7, line), Some((b'S', stat)));
        assert_eq!(parse_stat(7, "7 (a"), None);
    }

    #[test]
    fn ignored_signals_are_those_of_the_kernel() {
        let proc = open().unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' HUP USR1; exec sleep 100"])
            .spawn()
            .unwrap();
        let wanted = 1 << 0 | 1 << 9;
        let pid = i32::try_from(child.id()).unwrap();
        let seen = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            ignored(stat(proc.as_fd(), pid).as_ref()) & wanted == wanted
        });
        let _ = child.kill();
        let _ = child.wait();
        assert!(seen);
        assert_eq!(ignored(None) & (1 << 8 | 1 << 18 | 1 << 31), 0);
    }

    #[test]
    fn a_magic_link_is_not_followed() {
        let proc = open().unwrap();
        assert!(read(proc.as_fd(), "self/root/etc/hostname").is_err());
        assert!(write(proc.as_fd(), "self/cwd/x", b"x").is_err());
    }
}
