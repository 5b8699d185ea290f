//! Home directories from a root file system's `/etc/passwd`.
//!
//! The file belongs to the container: it is opened inside the root, must be a
//! regular file, and only its first megabyte counts.

use crate::init::inroot;
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// How much of the file is read, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

/// The home directory of a user, when the root's passwd file has one.
pub fn home(root: BorrowedFd<'_>, uid: u32) -> Option<String> {
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

fn find(passwd: &str, uid: u32) -> Option<&str> {
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
