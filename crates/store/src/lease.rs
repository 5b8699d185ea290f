//! Leases: one for each running user of the store that makes things or relies on things.
//!
//! A lease is a file `leases/ID`, locked (flock) as long as its owner lives; what is unfinished has the names
//! `tmp/ID.N`. Its lines `layer HEX` and `blob HEX` keep these from being removed. Documents that its owner put
//! in the store, and that nothing came to need, go with it: the owner failed. Whoever finds a lease that
//! nobody has locked removes all of it in the same way: the owner was killed.
//!
//! One that protects nothing takes no room but a name, so that things can be removed from a full disk. So does
//! one that protects every layer: its name says so.

use crate::durable::remove_path;
use crate::store::{Store, StoreError, open_lock};
use carrack_spec::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How the name of a lease begins that protects every layer.
const EVERY_LAYER: &str = "layers-";
/// Times that a name is tried that a sweep took away in the moment it was made.
const TRIES_MAX: u32 = 100;

/// Leave to make things in the store, and protection for what it relies on; ended on drop.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    /// Locked.
    file: File,
    path: PathBuf,
    /// `tmp/ID`, to be followed by a number.
    scratch: PathBuf,
    counter: AtomicU64,
    /// Documents that came by this lease, and that no record names yet.
    unnamed: Mutex<BTreeSet<Digest>>,
}

impl Store {
    /// A new lease.
    ///
    /// # Errors
    /// The files cannot be made.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        self.lease_called("")
    }

    /// A new lease that protects every layer.
    pub(crate) fn lease_of_layers(&self) -> Result<Lease, StoreError> {
        let lease = self.lease_called(EVERY_LAYER)?;
        // Who removes something now may not have seen it.
        drop(self.committing()?);
        Ok(lease)
    }

    fn lease_called(&self, prefix: &str) -> Result<Lease, StoreError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let mut tries = 0;
        loop {
            // Process ids come again, and are not unique across PID namespaces: the time helps.
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            let id = format!(
                "{prefix}{}-{n}-{:x}{:08x}",
                std::process::id(),
                now.tv_sec,
                now.tv_nsec
            );
            let path = self.path("leases").join(&id);
            let made = File::options()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            tries += 1;
            let file = match made {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && tries < TRIES_MAX => {
                    continue;
                }
                Err(e) => return Err(StoreError::io("make", path)(e)),
            };
            // A sweep may have seen the file before it was locked.
            let locked = try_lock(&file, &path)?;
            if !locked || !is_at(&file, &path) {
                if tries < TRIES_MAX {
                    continue;
                }
                return Err(StoreError::io("lock", path)(Errno::AGAIN.into()));
            }
            return Ok(Lease {
                store: self.clone(),
                file,
                path,
                scratch: self.path("tmp").join(id),
                counter: AtomicU64::new(0),
                unnamed: Mutex::default(),
            });
        }
    }

    /// What living leases protect, as hexadecimal digits. Only for the holder of the removing lock.
    pub(crate) fn leased(
        &self,
        _held: &crate::store::Removing,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut found = BTreeSet::new();
        for path in self.lease_files()? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(EVERY_LAYER)) {
                found.extend(self.layer_ids()?.iter().map(|l| l.hex().to_owned()));
            }
            found.extend(protected(&path).into_iter().map(|(_, hex)| hex));
        }
        Ok(found)
    }

    /// Removes what dead owners left. Best effort: what cannot be removed is left for the next time.
    pub(crate) fn sweep(&self) {
        for path in self.lease_files().unwrap_or_default() {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if !matches!(try_lock(&file, &path), Ok(true)) || !is_at(&file, &path) {
                continue;
            }
            let id = path.file_name().unwrap_or_default();
            let left = self.unfinished().unwrap_or_default();
            let mut left = left.iter().filter(|(_, owner)| owner == id);
            let removed = left.try_for_each(|(path, _)| remove_path(path));
            let documents = protected(&path)
                .into_iter()
                .filter(|(kind, _)| kind == "blob");
            let documents = documents.filter_map(|(_, hex)| format!("sha256:{hex}").parse().ok());
            let documents: BTreeSet<Digest> = documents.collect();
            if let Err(error) = removed.and_then(|()| remove_path(&path)) {
                log::warn!("cannot remove the leftover {}: {error}", path.display());
            }
            self.forget(&documents);
        }
    }

    /// Removes those of these documents that nothing needs. Best effort, as a garbage collection does the same.
    fn forget(&self, documents: &BTreeSet<Digest>) {
        if documents.is_empty() {
            return;
        }
        if let Err(error) = self.remove_unneeded(documents) {
            log::warn!("cannot remove documents that nothing needs: {error}");
        }
    }

    /// What is unfinished, and the leases it belongs to.
    pub(crate) fn unfinished(&self) -> Result<Vec<(PathBuf, OsString)>, StoreError> {
        let directory = self.path("tmp");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        let owner = |path: &Path| path.file_stem().unwrap_or_default().to_owned();
        let paths = entries.flatten().map(|e| e.path());
        Ok(paths.map(|path| (path.clone(), owner(&path))).collect())
    }

    fn lease_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.path("leases");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        Ok(entries.flatten().map(|e| e.path()).collect())
    }
}

impl Lease {
    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps a layer from being removed as long as the lease lives; false when it is not there.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn protect_layer(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        Ok(self.protect_layers([diff_id])?.is_none())
    }

    /// Keeps layers from being removed as long as the lease lives, all under one hold of the lock. The
    /// first that is not there is given back, and then none is kept.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn protect_layers<'a>(
        &self,
        diff_ids: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<Option<&'a Digest>, StoreError> {
        self.protect("layer", diff_ids, |digest| self.store.has_layer(digest))
    }

    /// Keeps a blob from being removed as long as the lease lives; false when it is not there.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn protect_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.protect_blobs([digest])?.is_none())
    }

    /// As [`Lease::protect_layers`], of blobs.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn protect_blobs<'a>(
        &self,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<Option<&'a Digest>, StoreError> {
        self.protect("blob", digests, |digest| self.store.has_blob(digest))
    }

    /// A name for something unfinished, which goes away with the lease.
    pub fn temporary(&self) -> PathBuf {
        self.place(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A document came by this lease; unless a record comes to name it, it goes with the lease.
    pub(crate) fn put(&self, digest: &Digest) {
        self.unnamed().insert(digest.clone());
    }

    /// A record names these documents now.
    pub(crate) fn named(&self, digests: &[&Digest]) {
        self.unnamed().retain(|digest| !digests.contains(&digest));
    }

    fn unnamed(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, n: u64) -> PathBuf {
        self.scratch.with_extension(n.to_string())
    }

    /// The line is written before the thing is there, for one who puts it there under the same lock.
    pub(crate) fn announce(&self, kind: &str, digest: &Digest) -> Result<(), StoreError> {
        self.write(&line(kind, digest))
    }

    fn protect<'a>(
        &self,
        kind: &str,
        digests: impl IntoIterator<Item = &'a Digest>,
        exists: impl Fn(&Digest) -> bool,
    ) -> Result<Option<&'a Digest>, StoreError> {
        let _held = self.store.committing()?;
        let mut lines = String::new();
        for digest in digests {
            if !exists(digest) {
                return Ok(Some(digest));
            }
            lines += &line(kind, digest);
        }
        self.write(&lines)?;
        Ok(None)
    }

    fn write(&self, lines: &str) -> Result<(), StoreError> {
        (&self.file)
            .write_all(lines.as_bytes())
            .map_err(StoreError::io("write", &self.path))
    }
}

fn line(kind: &str, digest: &Digest) -> String {
    format!("{kind} {}\n", digest.hex())
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut given = 0..self.counter.load(Ordering::Relaxed);
        let removed = given.try_for_each(|n| remove_path(&self.place(n)));
        if let Err(error) = removed.and_then(|()| remove_path(&self.path)) {
            log::warn!("cannot remove what {} left: {error}", self.path.display());
        }
        let unnamed = std::mem::take(&mut *self.unnamed());
        self.store.forget(&unnamed);
    }
}

/// The lines of a lease: kind and hexadecimal digits.
fn protected(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let words = text.lines().filter_map(|line| line.split_once(' '));
    words
        .map(|(kind, hex)| (kind.to_owned(), hex.to_owned()))
        .collect()
}

/// A lock that one owner at a time has: who waits gets it when the owner lets go or dies.
#[derive(Debug)]
pub(crate) struct Turn {
    _file: File,
    path: PathBuf,
}

impl Turn {
    /// Takes the lock file at `path`; calls `waiting` when somebody has it.
    pub(crate) fn take(path: PathBuf, waiting: impl Fn()) -> Result<Self, StoreError> {
        loop {
            let file = open_lock(&path)?;
            if !try_lock(&file, &path)? {
                waiting();
                rustix::io::retry_on_intr(|| {
                    rustix::fs::flock(&file, FlockOperation::LockExclusive)
                })
                .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
            }
            // The owner before removes the file when it is done.
            if is_at(&file, &path) {
                return Ok(Self { _file: file, path });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(error) = remove_path(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    let operation = FlockOperation::NonBlockingLockExclusive;
    match rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(StoreError::io("lock", path)(error.into())),
    }
}

/// True when the open file still has the name `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let there = path.symlink_metadata();
    let open = file.metadata();
    matches!((there, open), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}
