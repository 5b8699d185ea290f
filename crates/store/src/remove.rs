//! Removes a tree and counts what that frees, in one walk.
//!
//! Every name is relative to the descriptor of its directory and no link is followed. A file counts
//! with its blocks when its last name goes, so one that has a name elsewhere counts nothing. Trees of
//! any depth are removed with few open directories: what lies deeper is moved to the top of the tree first.
//! What is gone already is no error.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories open at a time.
const OPEN_MAX: usize = 64;
/// Names read at once, in bytes.
const NAMES_BYTES: usize = 8 << 10;
/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Removes a file or a tree; how many bytes that freed, in the file system's own count.
pub(crate) fn remove(path: &Path) -> std::io::Result<u64> {
    let mut removal = Removal::default();
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
        Ok(stat) => {
            gone_is_fine(rustix::fs::unlinkat(CWD, path, AtFlags::empty()))?;
            removal.count(&stat);
            return Ok(removal.freed);
        }
        Err(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let top = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
    removal.count_directory(top.as_fd())?;
    loop {
        removal.empty(top.as_fd(), top.as_fd(), 1)?;
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            // Something was moved to the top when its end had been passed already.
            Err(Errno::NOTEMPTY) => {
                rustix::fs::seek(&top, rustix::fs::SeekFrom::Start(0))?;
            }
            other => {
                gone_is_fine(other)?;
                return Ok(removal.freed);
            }
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

#[derive(Default)]
struct Removal {
    freed: u64,
    /// Directories moved to the top.
    moved: u64,
}

impl Removal {
    /// Removes what is in a directory; `depth` directories of the tree are open with it.
    fn empty(
        &mut self,
        top: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        depth: usize,
    ) -> Result<(), Errno> {
        let mut buffer = Vec::with_capacity(NAMES_BYTES);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let kind = entry.file_type();
            if kind != FileType::Directory {
                let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                // Not every file system says the kind with the name.
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    gone_is_fine(rustix::fs::unlinkat(directory, name, AtFlags::empty()))?;
                    self.count(&stat);
                    continue;
                }
            }
            self.directory(top, directory, name, depth)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        top: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> Result<(), Errno> {
        if depth >= OPEN_MAX {
            return self.move_up(top, parent, name);
        }
        let opened: OwnedFd = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        self.count_directory(opened.as_fd())?;
        self.empty(top, opened.as_fd(), depth + 1)?;
        gone_is_fine(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
    }

    fn move_up(
        &mut self,
        top: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let to = format!("moved-{}", self.moved);
            match rustix::fs::renameat_with(parent, name, top, to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }

    fn count_directory(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(directory)?;
        self.freed += blocks(&stat) * BLOCK_BYTES;
        Ok(())
    }

    /// Counts a file that is no directory and lost a name.
    fn count(&mut self, stat: &Stat) {
        if stat.st_nlink <= 1 {
            self.freed += blocks(stat) * BLOCK_BYTES;
        }
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0)
}

fn gone_is_fine(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Measure;

    #[test]
    fn what_is_removed_is_counted_and_links_elsewhere_count_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/one"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(tree.join("a/one"), tree.join("a/b/two")).unwrap();
        std::os::unix::fs::symlink("/", tree.join("a/root")).unwrap();
        let whole = Measure::default().tree(&tree);
        let outside = directory.path().join("outside");
        std::fs::write(tree.join("kept"), vec![1; 200_000]).unwrap();
        std::fs::hard_link(tree.join("kept"), &outside).unwrap();
        assert_eq!(remove(&tree).unwrap(), whole);
        assert!(!tree.exists() && outside.exists());
        assert!(remove(&outside).unwrap() >= 200_000);
        assert_eq!(remove(&outside).unwrap(), 0);
    }

    #[test]
    fn trees_deeper_than_open_files_allow_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut at = rustix::fs::openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        for n in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            // Names that the move must not stumble over.
            let taken = format!("moved-{n}");
            rustix::fs::mkdirat(&at, taken, Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
