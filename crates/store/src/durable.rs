//! Writing so that a crash leaves the old state or the new one.

use crate::store::StoreError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

/// Writes `bytes` at `path` by way of `temporary`: fsync, rename, fsync of the directory.
pub(crate) fn write(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    prepare(temporary, bytes)?;
    std::fs::rename(temporary, path).map_err(StoreError::io("put in place", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// The first half of [`write`]: the bytes are durable, but nowhere yet.
pub(crate) fn prepare(temporary: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary)
        .map_err(StoreError::io("make", temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io("write", temporary))
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(|fd| rustix::fs::fsync(&fd))
        .map_err(|e| StoreError::io("flush the directory", path)(e.into()))
}

/// Removes a file or a tree, without following links. What is gone already is no error.
pub(crate) fn remove_path(path: &Path) -> std::io::Result<()> {
    crate::remove::remove(path).map(|_| ())
}

/// syncfs(2) for several threads at once: who comes while one runs waits for the next, and one call
/// serves all who wait.
#[derive(Debug, Default)]
pub(crate) struct Syncer {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    running: bool,
    /// The last round that failed, and how.
    failed: Option<(u64, Errno)>,
}

impl Syncer {
    /// Makes everything durable that was written to the file system of `path` before the call.
    pub(crate) fn sync(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |e: Errno| StoreError::io("flush", path)(e.into());
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = rounds.begun + 1;
        while rounds.ended < mine {
            if rounds.running {
                rounds = self
                    .ended
                    .wait(rounds)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            drop(rounds);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let outcome = rustix::fs::open(path, flags, Mode::empty()).and_then(rustix::fs::syncfs);
            rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.running = false;
            rounds.ended = rounds.begun;
            if let Err(error) = outcome {
                rounds.failed = Some((rounds.ended, error));
            }
            self.ended.notify_all();
        }
        match rounds.failed {
            Some((round, error)) if round >= mine => Err(failed(error)),
            _ => Ok(()),
        }
    }
}
