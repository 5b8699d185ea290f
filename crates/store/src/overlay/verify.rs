//! Compares the files of a layer with the entries of its archive, read only.
//!
//! Each entry is looked up as the unpacking resolved it and compared when it comes; the last entry of a place
//! decides, so what is wrong with an earlier one is forgotten. Then a walk looks for files that no entry
//! made, and for directories that are wrongly recorded as mentioned or not. Of what is well only a
//! number is kept: a million entries take some 30 MiB.

use super::Privilege;
use super::chain::{open_in_root, proc_path};
use super::implied::{self, Paths};
use crate::driver::{DriverError, Verify};
use crate::store::StoreError;
use crate::tar::{Entry, Kind};
use crate::unpack::{Meaning, components, lossy, meaning, wanted_xattrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Problems told of one layer; one is enough to fetch it again.
const PROBLEMS_MAX: usize = 10;
/// What every file system with attributes lets a file have.
const CAPABILITY: &[u8] = b"security.capability";
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Verifier {
    files: PathBuf,
    implied: Paths,
    root: OwnedFd,
    privilege: Privilege,
    /// The root has an entry.
    mentioned: bool,
    hasher: RandomState,
    /// Places that an entry made.
    made: HashSet<Place>,
    /// What is wrong, by lexical path.
    wrong: BTreeMap<Vec<u8>, (Option<Place>, &'static str)>,
    /// The lexical paths of wrong places.
    paths: HashMap<Place, Vec<u8>>,
    /// The directory looked at last, and its lexical path.
    last: Option<(Vec<u8>, Arc<Directory>)>,
}

/// A hash of a directory's inode and a name in it. One in so many is wrong that no layer has as many.
type Place = u64;

struct Directory {
    fd: OwnedFd,
    inode: u64,
}

enum Expected<'a> {
    Thing(&'a Entry),
    /// As whatever it is a link to.
    Link(Vec<u8>),
    Whiteout,
}

impl Verifier {
    pub(super) fn new(at: &Path, privilege: Privilege) -> Result<Self, DriverError> {
        let files = at.join("fs");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty())
            .map_err(|e| StoreError::io("open", &files)(e.into()))?;
        Ok(Self {
            files,
            implied: implied::read(at)?,
            root,
            privilege,
            mentioned: false,
            hasher: RandomState::new(),
            made: HashSet::new(),
            wrong: BTreeMap::new(),
            paths: HashMap::new(),
            last: None,
        })
    }

    /// Compares what is at a place, and forgets what was said of it before.
    fn judge(&mut self, parent: &[u8], name: &[u8], expected: &Expected<'_>) {
        let path = joined(parent, name);
        let found = self.directory(parent).and_then(|directory| {
            let stat = look(&directory, name)?;
            let place = self.place(directory.inode, name);
            Some((place, self.compare(expected, &directory, name, &stat)))
        });
        let (place, problem) = match found {
            Some((place, problem)) => (Some(place), problem),
            None => (None, Some("is missing")),
        };
        if let Some(place) = place {
            let new = self.made.insert(place);
            // An earlier entry made what hides; it is compared.
            if !new && matches!(expected, Expected::Whiteout) {
                return;
            }
            let other = self.paths.remove(&place);
            let same = |path: &Vec<u8>| self.wrong.get(path).is_some_and(|w| w.0 == Some(place));
            if let Some(other) = other.filter(same) {
                self.wrong.remove(&other);
            }
        }
        match problem {
            None => {
                self.wrong.remove(&path);
            }
            Some(problem) => {
                if let Some(place) = place {
                    self.paths.insert(place, path.clone());
                }
                self.wrong.insert(path, (place, problem));
            }
        }
    }

    /// Forgets what was below a name that is no directory now.
    fn forget_below(&mut self, path: &[u8]) {
        let prefix = [path, b"/"].concat();
        let below = self.wrong.range(prefix.clone()..);
        let below = below.take_while(|(k, _)| k.starts_with(&prefix));
        for key in below.map(|(k, _)| k.clone()).collect::<Vec<_>>() {
            self.wrong.remove(&key);
        }
    }

    fn place(&self, inode: u64, name: &[u8]) -> Place {
        self.hasher.hash_one((inode, name))
    }

    /// Opens a directory as the unpacking resolved it; `None` when it is not there.
    fn directory(&mut self, path: &[u8]) -> Option<Arc<Directory>> {
        match &self.last {
            Some((last, directory)) if last == path => Some(directory.clone()),
            _ => {
                let directory = Arc::new(self.open(path)?);
                self.last = Some((path.to_vec(), directory.clone()));
                Some(directory)
            }
        }
    }

    fn open(&self, path: &[u8]) -> Option<Directory> {
        let fd = open_in_root(self.root.as_fd(), path).ok()?;
        let inode = rustix::fs::fstat(&fd).ok()?.st_ino;
        Some(Directory { fd, inode })
    }

    /// What differs, if anything.
    fn compare(
        &self,
        expected: &Expected<'_>,
        directory: &Directory,
        name: &[u8],
        stat: &Stat,
    ) -> Option<&'static str> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match expected {
            Expected::Whiteout => {
                let hides = kind != FileType::CharacterDevice || stat.st_rdev == 0;
                (!hides).then_some("does not hide what is below")
            }
            Expected::Link(target) => {
                let (parent, name) = split(target);
                match self.open(parent).and_then(|d| look(&d, name)) {
                    Some(of) if (of.st_dev, of.st_ino) == (stat.st_dev, stat.st_ino) => None,
                    // The target may have been replaced after the link was made.
                    _ => (stat.st_nlink < 1).then_some("is not linked"),
                }
            }
            Expected::Thing(entry) => {
                if kind != kind_of(entry) {
                    return Some("is of another kind");
                }
                if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
                    return Some("has another owner");
                }
                if kind != FileType::Symlink && stat.st_mode & 0o7777 != entry.mode {
                    return Some("has another mode");
                }
                let sized = kind == FileType::RegularFile;
                if sized && u64::try_from(stat.st_size) != Ok(entry.size) {
                    return Some("has another size");
                }
                if !same_time((stat.st_mtime, stat.st_mtime_nsec as u32), entry.mtime) {
                    return Some("has another time");
                }
                let mut attributes = wanted_xattrs(entry);
                let differs = attributes.any(|(k, v)| !directory.has_attribute(name, k, v));
                differs.then_some("has other attributes")
            }
        }
    }

    fn is_opaque(&self, path: &Path) -> bool {
        rustix::fs::getxattr(path, self.privilege.opaque(), &mut [0; 1][..]).is_ok()
    }

    /// A directory must hide what lower layers have in it.
    fn opaque(&mut self, path: &[u8]) {
        let directory = self.directory(path);
        let hides = directory.is_some_and(|d| self.is_opaque(&d.at(b".")));
        let key = joined(path, b".");
        match hides {
            true => self.wrong.remove(&key),
            false => self
                .wrong
                .insert(key, (None, "does not hide what is below")),
        };
    }

    /// Looks for files that no entry made, and compares the directories that no entry made with the record.
    fn walk(&self, problems: &mut Vec<String>) {
        let mut left = vec![self.files.clone()];
        while let Some(directory) = left.pop() {
            let Ok(inode) = directory.symlink_metadata().map(|m| m.ino()) else {
                continue;
            };
            let entries = std::fs::read_dir(&directory).into_iter().flatten();
            for entry in entries.flatten() {
                let path = entry.path();
                let place = self.place(inode, entry.file_name().as_bytes());
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                let shown = path.strip_prefix(&self.files).unwrap_or(&path);
                let made = self.made.contains(&place);
                let recorded = self.implied.contains(shown.as_os_str().as_bytes());
                let problem = match (kind.is_dir(), made) {
                    (true, made) if made == recorded => "is wrongly recorded",
                    (false, false) => "was made by no entry",
                    _ => "",
                };
                if !problem.is_empty() && problems.len() < PROBLEMS_MAX {
                    problems.push(format!("{shown:?} {problem}"));
                }
                if kind.is_dir() {
                    left.push(path);
                }
            }
        }
    }
}

impl Verify for Verifier {
    fn entry(&mut self, entry: &Entry) -> Result<(), DriverError> {
        let parts = components(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            self.mentioned = true;
            self.judge(b"", b".", &Expected::Thing(entry));
            return Ok(());
        };
        let parent = parents.join(&b"/"[..]);
        match meaning(name, entry)? {
            Meaning::Nothing => {}
            Meaning::Opaque => self.opaque(&parent),
            Meaning::Whiteout(hidden) => {
                self.judge(&parent, hidden, &Expected::Whiteout);
                let there = self.directory(&parent).and_then(|d| look(&d, hidden));
                let kind = there.map(|stat| FileType::from_raw_mode(stat.st_mode));
                // Whatever else is said of a directory.
                if kind == Some(FileType::Directory) {
                    self.opaque(&joined(&parent, hidden));
                }
            }
            Meaning::Thing(name) => {
                let device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
                if device && self.privilege == Privilege::UserNamespace {
                    return Ok(());
                }
                if entry.kind != Kind::Directory {
                    self.forget_below(&joined(&parent, name));
                }
                if entry.kind != Kind::HardLink {
                    self.judge(&parent, name, &Expected::Thing(entry));
                    return Ok(());
                }
                let target = components(&entry.link)?.join(&b"/"[..]);
                if target != joined(&parent, name) {
                    self.judge(&parent, name, &Expected::Link(target));
                }
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>, DriverError> {
        let wrong = self.wrong.iter().take(PROBLEMS_MAX);
        let mut problems: Vec<String> = wrong
            .map(|(path, (_, problem))| format!("{:?} {problem}", lossy(path)))
            .collect();
        if self.implied.contains(&b""[..]) == self.mentioned {
            problems.push("the root is wrongly recorded".into());
        }
        self.walk(&mut problems);
        Ok(problems)
    }
}

impl Directory {
    /// A path to a name in it that nothing can redirect.
    fn at(&self, name: &[u8]) -> PathBuf {
        Path::new(&proc_path(self.fd.as_fd())).join(OsStr::from_bytes(name))
    }

    /// False when a file lost or changed an attribute that it can have here.
    fn has_attribute(&self, name: &[u8], key: &[u8], value: &[u8]) -> bool {
        let mut found = vec![0; XATTR_VALUE_BYTES_MAX];
        match rustix::fs::lgetxattr(self.at(name), key, &mut found[..]) {
            Ok(used) => found.get(..used) == Some(value),
            // Others are left out where a file system or a kind of file cannot have them.
            Err(Errno::NODATA) => key != CAPABILITY,
            Err(_) => true,
        }
    }
}

fn look(directory: &Directory, name: &[u8]) -> Option<Stat> {
    rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        parent => [parent, name].join(&b'/'),
    }
}

/// File systems keep times in some range, and some only whole seconds.
fn same_time(found: (i64, u32), wanted: (i64, u32)) -> bool {
    const KEPT: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
    !KEPT.contains(&wanted.0) || (found.0 == wanted.0 && (found.1 == wanted.1 || found.1 == 0))
}

fn kind_of(entry: &Entry) -> FileType {
    match entry.kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Regular | Kind::HardLink => FileType::RegularFile,
    }
}
