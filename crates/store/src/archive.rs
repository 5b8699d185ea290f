//! Where images are loaded from: a directory, or a tar file (gzip or zstd around it, from a file or a
//! pipe), both seen as named files.
//!
//! A tar file is indexed once by its headers and then read at any place by several threads. What
//! cannot be read at any place (compressed or a pipe) is first written to a file without a name in the
//! store's `tmp/`. Names that a directory holds are resolved inside it (`RESOLVE_IN_ROOT`).

use crate::store::{Store, StoreError};
use crate::tar::{Kind, Reader, TarError};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most members of an archive; each costs some memory in the index.
const MEMBERS_MAX: usize = 100_000;
/// Links from name to name followed inside an archive (docker once wrote layers so).
const LINKS_MAX: u32 = 8;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive cannot be opened or read.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a tar file.
    #[error("{path} is no image archive")]
    Tar {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// Too many members.
    #[error("{0} has more than {MEMBERS_MAX} members; an image archive has a few")]
    TooManyMembers(PathBuf),
    /// The archive lacks a file that it names.
    #[error("the archive has no file {0:?}")]
    Missing(String),
    /// A document is larger than any may be.
    #[error("{name:?} in the archive has {bytes} bytes; at most {max} are read")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The temporary copy cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An open archive: files by their names.
pub struct Archive {
    path: PathBuf,
    form: Form,
}

enum Form {
    Directory(OwnedFd),
    Tar {
        file: File,
        members: HashMap<String, Member>,
    },
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Archive {
    /// Opens `path`, or standard input when it is `None`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(store: &Store, path: Option<&Path>) -> Result<Self, ArchiveError> {
        let shown = path.unwrap_or(Path::new("standard input")).to_owned();
        let io = |action| {
            let path = shown.clone();
            move |source| ArchiveError::Io {
                action,
                path,
                source,
            }
        };
        let mut file = match path {
            Some(path) => File::open(path).map_err(io("open"))?,
            None => std::io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map(File::from)
                .map_err(io("open"))?,
        };
        let kind = file.metadata().map_err(io("inspect"))?.file_type();
        if kind.is_dir() {
            return Ok(Self {
                path: shown,
                form: Form::Directory(file.into()),
            });
        }
        let mut magic = [0; 4];
        let seekable = kind.is_file() && file.read_at(&mut magic, 0).is_ok();
        let compressed = matches!(magic, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]);
        if !seekable || compressed {
            file = plain_copy(store, file).map_err(|e| match e {
                CopyError::Read(e) => io("read")(e),
                CopyError::Store(e) => e.into(),
            })?;
        }
        let members = index(&file, &shown)?;
        Ok(Self {
            path: shown,
            form: Form::Tar { file, members },
        })
    }

    /// Where the archive came from, for messages and names.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when the archive has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.open_file(name).is_ok()
    }

    /// A whole small document of at most `max` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, ArchiveError> {
        let (reader, bytes) = self.open_file(name)?;
        if bytes > max {
            return Err(ArchiveError::TooLarge {
                name: name.to_owned(),
                bytes,
                max,
            });
        }
        let mut content = Vec::new();
        reader
            .take(max)
            .read_to_end(&mut content)
            .map_err(|source| ArchiveError::Io {
                action: "read",
                path: self.path.join(name),
                source,
            })?;
        Ok(content)
    }

    /// A stream over one file, and its size.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open_file(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), ArchiveError> {
        let missing = || ArchiveError::Missing(name.to_owned());
        match &self.form {
            Form::Directory(root) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let io = |source| ArchiveError::Io {
                    action: "open",
                    path: self.path.join(name),
                    source,
                };
                let file = match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
                    Ok(fd) => File::from(fd),
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                        return Err(missing());
                    }
                    Err(error) => return Err(io(error.into())),
                };
                let metadata = file.metadata().map_err(io)?;
                match metadata.is_file() {
                    true => Ok((Box::new(file), metadata.len())),
                    false => Err(missing()),
                }
            }
            Form::Tar { file, members } => {
                let mut at = clean(name);
                for _ in 0..LINKS_MAX {
                    match members.get(&at) {
                        Some(Member::File { offset, size }) => {
                            return Ok((
                                Box::new(Slice {
                                    file,
                                    offset: *offset,
                                    left: *size,
                                }),
                                *size,
                            ));
                        }
                        Some(Member::Link(to)) => at.clone_from(to),
                        None => return Err(missing()),
                    }
                }
                Err(missing())
            }
        }
    }
}

/// A part of a file, read without moving the file's own position.
struct Slice<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(part) = buf.get_mut(..want).filter(|p| !p.is_empty()) else {
            return Ok(0);
        };
        let got = self.file.read_at(part, self.offset)?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

fn index(file: &File, path: &Path) -> Result<HashMap<String, Member>, ArchiveError> {
    let tar = |source| ArchiveError::Tar {
        path: path.to_owned(),
        source,
    };
    let mut input = file;
    input
        .seek(SeekFrom::Start(0))
        .map_err(|e| tar(TarError::Read(e)))?;
    let length = file.metadata().map_err(|e| tar(TarError::Read(e)))?.len();
    let mut reader = Reader::new(input);
    let mut members = HashMap::new();
    let skip = |input: &mut &File, n: u64| -> std::io::Result<u64> {
        let at = input.stream_position()?;
        let to = at.saturating_add(n).min(length);
        input.seek(SeekFrom::Start(to))?;
        Ok(to - at)
    };
    while let Some(entry) = reader.next_entry_with(skip).map_err(tar)? {
        if members.len() >= MEMBERS_MAX {
            return Err(ArchiveError::TooManyMembers(path.to_owned()));
        }
        // Documents name members in UTF-8 only; others cannot be asked for.
        let Ok(name) = String::from_utf8(entry.path) else {
            continue;
        };
        let name = clean(&name);
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        match entry.kind {
            Kind::Regular => {
                let offset = reader.offset();
                members.insert(
                    name,
                    Member::File {
                        offset,
                        size: entry.size,
                    },
                );
            }
            Kind::HardLink => {
                members.insert(name, Member::Link(clean(&link)));
            }
            Kind::Symlink => {
                let base = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let to = if link.starts_with('/') {
                    clean(&link)
                } else {
                    clean(&format!("{base}/{link}"))
                };
                members.insert(name, Member::Link(to));
            }
            _ => {}
        }
    }
    Ok(members)
}

/// A name without `.`, `..` and doubled slashes; `..` stops at the top.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

enum CopyError {
    Read(std::io::Error),
    Store(StoreError),
}

/// Copies, and decompresses, to a file that has no name and goes away with its descriptor.
fn plain_copy(store: &Store, mut from: File) -> Result<File, CopyError> {
    let mut to = store.unnamed_file().map_err(CopyError::Store)?;
    let mut magic = Vec::new();
    (&mut from)
        .take(4)
        .read_to_end(&mut magic)
        .map_err(CopyError::Read)?;
    let mut input = BufReader::with_capacity(128 << 10, magic.as_slice().chain(from));
    let copied = match magic.as_slice() {
        [0x1f, 0x8b, ..] => {
            std::io::copy(&mut flate2::bufread::MultiGzDecoder::new(input), &mut to)
        }
        [0x28, 0xb5, 0x2f, 0xfd] => zstd::stream::read::Decoder::with_buffer(input)
            .and_then(|mut decoder| std::io::copy(&mut decoder, &mut to)),
        _ => std::io::copy(&mut input, &mut to),
    };
    copied.map_err(CopyError::Read)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_paths() {
        for (name, cleaned) in [
            ("./a/b", "a/b"),
            ("a//b/", "a/b"),
            ("a/../b", "b"),
            ("../../x", "x"),
            ("/a", "a"),
        ] {
            assert_eq!(clean(name), cleaned);
        }
    }
}
