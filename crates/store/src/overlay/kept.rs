//! What a layer replaces of itself. Its bytes are still part of the layer's archive, so it is moved
//! to `kept/N` instead of being removed, and `kept.log` says what was moved when.
//!
//! The log has one record a move, in order: how many keys had been given before (u64), length of the
//! true path (u32), both little-endian, and the path. The bytes of key `n` are then where the first
//! later move of its path, or of a directory above it, took them; without one at their own path.

use crate::driver::{Contents, DriverError};
use crate::store::StoreError;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The place for replaced things, while a layer is unpacked.
pub(super) struct Keeper {
    directory: OwnedFd,
    log: BufWriter<File>,
    count: u64,
}

impl Keeper {
    pub(super) fn new(at: &Path) -> Result<Self, StoreError> {
        let path = at.join("kept");
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))
            .map_err(|e| StoreError::io("make the directory", &path)(e.into()))?;
        let directory = rustix::fs::open(&path, DIRECTORY, Mode::empty())
            .map_err(|e| StoreError::io("open", &path)(e.into()))?;
        let log = at.join("kept.log");
        let file = File::create_new(&log).map_err(StoreError::io("make", &log))?;
        Ok(Self {
            directory,
            log: BufWriter::new(file),
            count: 0,
        })
    }

    /// Moves `name` in `parent`, whose true path is `path`, away; `keys` were given before.
    pub(super) fn keep(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        keys: u64,
    ) -> std::io::Result<()> {
        let to = self.count.to_string();
        rustix::fs::renameat(parent, name, &self.directory, to.as_str())?;
        self.count += 1;
        self.log.write_all(&keys.to_le_bytes())?;
        let length = u32::try_from(path.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        self.log.write_all(&length.to_le_bytes())?;
        self.log.write_all(path)
    }

    pub(super) fn finish(mut self) -> std::io::Result<()> {
        self.log.flush()
    }
}

/// The files of a finished layer by their keys.
pub(super) struct Files {
    at: PathBuf,
    files: OwnedFd,
    kept: Option<OwnedFd>,
    /// By path: when it was moved, and to which number.
    moves: HashMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Files {
    pub(super) fn new(at: &Path) -> Result<Self, DriverError> {
        let open = |name: &str| {
            let path = at.join(name);
            rustix::fs::open(&path, DIRECTORY, Mode::empty())
                .map_err(|e| StoreError::io("open", path)(e.into()))
        };
        let mut moves = HashMap::<_, Vec<_>>::new();
        let log = at.join("kept.log");
        let kept = match std::fs::read(&log) {
            Ok(text) => {
                let mut text = text.as_slice();
                for to in 0.. {
                    let Some((keys, path, rest)) = record(text) else {
                        break;
                    };
                    moves.entry(path.to_vec()).or_default().push((keys, to));
                    text = rest;
                }
                if !text.is_empty() {
                    return Err(DriverError::Damaged {
                        path: at.to_owned(),
                        what: "kept.log is cut off".into(),
                    });
                }
                Some(open("kept")?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(StoreError::io("read", log)(e).into()),
        };
        Ok(Self {
            at: at.to_owned(),
            files: open("fs")?,
            kept,
            moves,
        })
    }

    /// Where the bytes of key `n` are: below `kept/` and its path there, or the path below `fs/`.
    fn place(&self, key: &[u8], n: u64) -> (bool, Vec<u8>) {
        let ends = key
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(i, _)| i)
            .chain([key.len()]);
        let moved = ends
            .filter_map(|end| {
                let (prefix, rest) = key.split_at_checked(end)?;
                let moves = self.moves.get(prefix)?;
                let at = moves.partition_point(|(keys, _)| *keys <= n);
                let (_, to) = moves.get(at)?;
                Some((*to, rest))
            })
            .min_by_key(|(to, _)| *to);
        match moved {
            Some((to, rest)) => (true, [to.to_string().as_bytes(), rest].concat()),
            None => (false, key.to_vec()),
        }
    }
}

impl Contents for Files {
    fn open(&mut self, key: &[u8], n: u64) -> Result<File, DriverError> {
        let (is_kept, path) = match self.moves.is_empty() {
            true => (false, key.to_vec()),
            false => self.place(key, n),
        };
        let root = match &self.kept {
            Some(kept) if is_kept => kept.as_fd(),
            _ => self.files.as_fd(),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = rustix::io::retry_on_intr(|| {
            rustix::fs::openat2(root, path.as_slice(), flags, Mode::empty(), resolve)
        });
        match opened {
            Ok(fd) => Ok(fd.into()),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Err(DriverError::Damaged {
                path: self.at.clone(),
                what: format!("the file {:?} is missing", String::from_utf8_lossy(key)),
            }),
            Err(error) => {
                let path = self.at.join("fs").join(crate::unpack::lossy(key));
                Err(StoreError::io("open", path)(error.into()).into())
            }
        }
    }
}

fn record(text: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (keys, text) = text.split_first_chunk::<8>()?;
    let (length, text) = text.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (path, text) = text.split_at_checked(length)?;
    Some((u64::from_le_bytes(*keys), path, text))
}
