//! A file outside the store that appears whole, or not at all.
//!
//! It has no name until it is complete (`O_TMPFILE`), so that nothing is left of it whatever ends the process.
//! A file system without such files (NFS, FAT), and one that is replaced, for a moment, have it as
//! `.NAME.carrack-PID-N` until then, locked (flock). What a killed process left there goes when the next file of
//! that name is written.

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An unfinished file; without [`NewFile::commit`] nothing is left of it.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// Its name until then, where it has one.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// An empty file that will be at `path`.
    ///
    /// # Errors
    /// The file cannot be made in that directory.
    pub fn create(path: &Path) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(directory(path), flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => Ok(Self {
                file: file.into(),
                path: path.to_owned(),
                temporary: None,
            }),
            // Older kernels, and file systems without such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Self::named(path),
            Err(error) => Err(error.into()),
        }
    }

    fn named(path: &Path) -> Result<Self> {
        sweep(path);
        loop {
            let temporary = unique(path);
            let mut options = File::options();
            let file = options
                .read(true)
                .write(true)
                .create_new(true)
                .open(&temporary)?;
            lock(&file);
            // Who sweeps may have seen it before it was locked.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self {
                    file,
                    path: path.to_owned(),
                    temporary: Some(temporary),
                });
            }
        }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts the file in its place; one that is there is replaced.
    ///
    /// # Errors
    /// What was at the path is there as before then.
    pub fn commit(self) -> Result<()> {
        let path = self.path.clone();
        self.commit_at(&path)
    }

    /// As [`NewFile::commit`], at another path of that file system.
    ///
    /// # Errors
    /// As [`NewFile::commit`].
    pub fn commit_at(mut self, path: &Path) -> Result<()> {
        if self.temporary.is_none() {
            match self.link(path) {
                Err(Errno::EXIST) => {}
                linked => return Ok(linked?),
            }
            sweep(path);
            lock(&self.file);
            let temporary = unique(path);
            self.link(&temporary)?;
            self.temporary = Some(temporary);
        }
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, path)?;
            self.temporary = None;
        }
        Ok(())
    }

    fn link(&self, path: &Path) -> rustix::io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn directory(path: &Path) -> &Path {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// How names of unfinished files for `path` begin.
fn prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".carrack-");
    name
}

/// A name beside `path` that nobody else uses.
fn unique(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = prefix(path);
    name.push(format!("{}-{n}", std::process::id()));
    path.with_file_name(name)
}

/// Best effort: without locks, what is left stays.
fn lock(file: &File) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Removes what killed writers of `path` left.
fn sweep(path: &Path) {
    let prefix = prefix(path);
    let entries = std::fs::read_dir(directory(path)).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            continue;
        }
        let opened = File::options().write(true).open(entry.path());
        if opened.is_ok_and(|file| lock(&file)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(at: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(at).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_in_place_of_another_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.tar");
        for (n, make) in [NewFile::create, NewFile::named].into_iter().enumerate() {
            for text in ["one", "two"] {
                let text = format!("{text} {n}");
                let mut file = make(&path).unwrap();
                file.write_all(text.as_bytes()).unwrap();
                file.commit().unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
            let mut dropped = make(&path).unwrap();
            dropped.write_all(b"three").unwrap();
            drop(dropped);
            let other = make(&path).unwrap();
            other.commit_at(&temp.path().join("b.tar")).unwrap();
            assert_eq!(names(temp.path()), ["a.tar", "b.tar"]);
        }
    }

    #[test]
    fn what_a_killed_writer_left_goes_and_that_of_a_living_one_stays() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.tar");
        let living = NewFile::named(&path).unwrap();
        let dead = temp.path().join(".a.tar.carrack-1-0");
        std::fs::write(&dead, "half").unwrap();
        std::fs::write(temp.path().join(".a.tar.1"), "somebody's").unwrap();
        drop(NewFile::named(&path).unwrap());
        assert!(!dead.exists());
        assert_eq!(names(temp.path()).len(), 2);
        living.commit().unwrap();
        assert_eq!(names(temp.path()), [".a.tar.1", "a.tar"]);
    }
}
