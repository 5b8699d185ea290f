//! Files by name, written: into a directory, or into a tar file. Each file of a directory, and the tar file as a
//! whole, appears when it is complete; of what is not finished nothing is left.

use crate::images::ImagesError;
use carrack_spec::Digest;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Digesting, NewFile, Store};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
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
    unfinished: Option<NewFile>,
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
        let (file, unfinished) = match path.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let new = NewFile::create(path).map_err(ImagesError::write(path))?;
                let file = new.file().try_clone().map_err(ImagesError::write(path))?;
                (file, Some(new))
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
            unfinished,
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
                let done = unfinished(&to, content).and_then(NewFile::commit);
                done.map_err(ImagesError::write(&to))
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
                let file = unfinished(&to, &mut digesting).map_err(ImagesError::write(&to))?;
                let (digest, size) = digesting.finish();
                let to = path.join(name(&digest));
                let done = make_parent(&to).and_then(|()| file.commit_at(&to));
                done.map_err(ImagesError::write(&to))?;
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
        let Some(unfinished) = tar.unfinished.take() else {
            return file.map(drop).map_err(failed);
        };
        file.and_then(|file| file.sync_all())
            .and_then(|()| unfinished.commit())
            .map_err(failed)
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

/// Writes to an unfinished file beside `path`.
fn unfinished(path: &Path, content: &mut dyn Read) -> std::io::Result<NewFile> {
    make_parent(path)?;
    let mut file = NewFile::create(path)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            got => file.write_all(buffer.get(..got).unwrap_or_default())?,
        }
    }
    file.file().sync_all()?;
    Ok(file)
}

fn make_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}
