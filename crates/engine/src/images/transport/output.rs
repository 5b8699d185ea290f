//! Files by name, written: into a directory, each by rename, or into a tar file, which appears by one rename at
//! the end. What is not finished goes away.

use crate::images::ImagesError;
use carrack_spec::Digest;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Digesting, Store};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const BUFFER_BYTES: usize = 256 << 10;

/// Where files go.
pub(super) enum Output {
    Directory(PathBuf),
    Tar(Box<Tar>),
}

/// A tar file in the making.
pub(super) struct Tar {
    store: Store,
    path: PathBuf,
    /// The unfinished file; none when it is written in place, as a pipe is.
    temporary: Option<PathBuf>,
    /// Who writes; the bytes of several blobs cannot mix.
    turn: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    writer: Option<Writer<BufWriter<File>>>,
    names: BTreeSet<String>,
}

impl Output {
    /// A directory, made when it is missing.
    pub(super) fn directory(path: &Path) -> Result<Self, ImagesError> {
        std::fs::create_dir_all(path).map_err(ImagesError::write(path))?;
        Ok(Self::Directory(path.to_owned()))
    }

    /// A tar file, which must not be there.
    pub(super) fn tar(store: &Store, path: &Path) -> Result<Self, ImagesError> {
        let (file, temporary) = match path.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let temporary = unique(path);
                let file = File::create_new(&temporary).map_err(ImagesError::write(&temporary))?;
                (file, Some(temporary))
            }
            Ok(_) if !path.is_file() => {
                let opened = File::options().write(true).open(path);
                (opened.map_err(ImagesError::write(path))?, None)
            }
            _ => return Err(ImagesError::FileExists(path.to_owned())),
        };
        Ok(Self::Tar(Box::new(Tar {
            store: store.clone(),
            path: path.to_owned(),
            temporary,
            turn: Mutex::new(()),
            state: Mutex::new(State {
                writer: Some(Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file))),
                names: BTreeSet::new(),
            }),
        })))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).is_file(),
            Self::Tar(tar) => tar.lock().names.contains(name),
        }
    }

    /// Waits until nobody else writes, where one at a time can: whoever opens a connection for the bytes
    /// does so after this.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self {
            Self::Directory(_) => None,
            Self::Tar(tar) => Some(tar.turn.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Writes a file of `size` bytes; `content` says at its end whether it was right.
    pub(super) fn put(
        &self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), ImagesError> {
        match self {
            Self::Directory(path) => {
                let to = path.join(name);
                let failed = ImagesError::write(&to);
                let temporary = unfinished(&to, content).map_err(failed)?;
                put_in_place(&temporary, &to)
            }
            Self::Tar(tar) => tar.put(name, size, content),
        }
    }

    /// Writes a file that is named after its digest, which `content` has at its end.
    pub(super) fn put_stream(
        &self,
        name: impl Fn(&Digest) -> String,
        content: &mut dyn Read,
    ) -> Result<(Digest, u64), ImagesError> {
        let mut digesting = Digesting::new(content);
        match self {
            Self::Directory(path) => {
                let to = path.join("stream");
                let temporary = unfinished(&to, &mut digesting).map_err(ImagesError::write(&to))?;
                let (digest, size) = digesting.finish();
                put_in_place(&temporary, &path.join(name(&digest)))?;
                Ok((digest, size))
            }
            Self::Tar(tar) => {
                // A tar file has the size before the bytes.
                let mut spool = tar.store.unnamed_file()?;
                let spooled =
                    std::io::copy(&mut digesting, &mut spool).and_then(|_| spool.rewind());
                spooled.map_err(ImagesError::write(&tar.path))?;
                let (digest, size) = digesting.finish();
                tar.put(&name(&digest), size, &mut spool)?;
                Ok((digest, size))
            }
        }
    }

    /// Ends a tar file and puts it in its place.
    pub(super) fn finish(self) -> Result<(), ImagesError> {
        let Self::Tar(mut tar) = self else {
            return Ok(());
        };
        let writer = tar.lock().writer.take();
        let failed = ImagesError::write(&tar.path);
        let Some(writer) = writer else {
            return Ok(());
        };
        let file = writer.finish().and_then(|buffer| {
            buffer
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)
        });
        let Some(temporary) = tar.temporary.take() else {
            return file.map(drop).map_err(failed);
        };
        let done = file
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&temporary, &tar.path));
        done.map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            failed(source)
        })
    }
}

impl Tar {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, size: u64, mut content: &mut dyn Read) -> Result<(), ImagesError> {
        let mut state = self.lock();
        if state.names.contains(name) {
            return Ok(());
        }
        let entry = Entry {
            size,
            ..Entry::new(Kind::Regular, name)
        };
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        writer
            .append(&entry, &mut content)
            // The end of the content says whether it was right.
            .and_then(|()| match content.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(std::io::Error::other(format!(
                    "{name} is longer than {size} bytes"
                ))),
            })
            .map_err(ImagesError::write(&self.path))?;
        state.names.insert(name.to_owned());
        Ok(())
    }
}

impl Drop for Tar {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// A name beside `path` that nobody else uses.
fn unique(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{n}", std::process::id()));
    path.with_file_name(name)
}

/// Writes to a temporary file beside `path`.
fn unfinished(path: &Path, content: &mut dyn Read) -> std::io::Result<PathBuf> {
    let temporary = unique(path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::create_new(&temporary)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut copy = || -> std::io::Result<()> {
        loop {
            match content.read(&mut buffer)? {
                0 => return file.sync_all(),
                got => file.write_all(buffer.get(..got).unwrap_or_default())?,
            }
        }
    };
    match copy() {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn put_in_place(temporary: &Path, path: &Path) -> Result<(), ImagesError> {
    let made = match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    };
    made.and_then(|()| std::fs::rename(temporary, path))
        .map_err(|source| {
            let _ = std::fs::remove_file(temporary);
            ImagesError::write(path)(source)
        })
}
