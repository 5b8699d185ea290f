//! Home directories from a root file system's `/etc/passwd`.
//!
//! The file belongs to the container: it is opened inside the root, must be a
//! regular file, and only its first megabyte counts.

use crate::init::inroot;
use carrack_spec::runtime::Process;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// How much of the file is read, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

/// `HOME` from the root file system's `/etc/passwd`, when the environment has none or an empty one.
pub fn home_of(process: &Process, root: Option<BorrowedFd<'_>>) -> Option<String> {
    if process
        .env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("HOME="))
        .is_some_and(|home| !home.is_empty())
    {
        return None;
    }
    let home = root.and_then(|root| home_in(root, process.user.uid));
    Some(home.unwrap_or_else(|| "/".to_owned()))
}

/// [`home_of`] with the root file system at a path.
pub fn home_below(process: &Process, root: &Path) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok();
    home_of(process, root.as_ref().map(AsFd::as_fd))
}

/// The home directory of a user, when the root's passwd file has one.
fn home_in(root: BorrowedFd<'_>, uid: u32) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = inroot::open(root, c"etc/passwd", flags).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(PASSWD_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    find(&String::from_utf8_lossy(&bytes), uid).map(str::to_owned)
}

pub(crate) fn find(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (id == uid && home.starts_with('/')).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_field_is_the_home() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\nnone:x:5:5::\n";
        assert_eq!(find(passwd, 33), Some("/var/www"));
        assert_eq!(find(passwd, 5), None);
        assert_eq!(find(passwd, 7), None);
    }
}
