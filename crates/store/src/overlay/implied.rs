//! The directories of a layer that its archive does not mention: an entry `etc/passwd` without one `etc/`.
//!
//! They are on the disk as any other, but what they look like is for the layers below to say (see the
//! sibling `mended`). The file `implied` of the layer, which is there when there are such directories,
//! has one record a change, in the order of the unpacking: `+` (made without an entry), `-` (an entry came
//! for it) or `!` (replaced, with all below it), then the true path and a zero byte. The root has the
//! empty path.

use crate::driver::DriverError;
use crate::store::StoreError;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "implied";
const MADE: u8 = b'+';
const MENTIONED: u8 = b'-';
const REPLACED: u8 = b'!';

/// True paths of directories.
pub(super) type Paths = BTreeSet<Vec<u8>>;

/// Writes the file while a layer is unpacked.
pub(super) struct Log {
    path: PathBuf,
    /// From the first directory on.
    file: Option<BufWriter<File>>,
}

impl Log {
    pub(super) fn new(layer: &Path) -> Self {
        Self {
            path: layer.join(FILE),
            file: None,
        }
    }

    /// A directory was made that has no entry, so far.
    pub(super) fn made(&mut self, path: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(BufWriter::new(File::create_new(&self.path)?));
        }
        self.write(MADE, path)
    }

    /// A directory that was there has an entry.
    pub(super) fn mentioned(&mut self, path: &[u8]) -> std::io::Result<()> {
        self.write(MENTIONED, path)
    }

    /// A directory is gone with all below it.
    pub(super) fn replaced(&mut self, path: &[u8]) -> std::io::Result<()> {
        self.write(REPLACED, path)
    }

    pub(super) fn finish(mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }

    fn write(&mut self, what: u8, path: &[u8]) -> std::io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(&[what])?;
        file.write_all(path)?;
        file.write_all(&[0])
    }
}

/// True when the layer has such directories, or had for a while.
pub(super) fn any(layer: &Path) -> bool {
    layer.join(FILE).is_file()
}

/// Reads the file of a layer.
pub(super) fn read(layer: &Path) -> Result<Paths, DriverError> {
    let path = layer.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Paths::new()),
        Err(e) => return Err(StoreError::io("read", path)(e).into()),
    };
    replay(&text).ok_or_else(|| DriverError::Damaged {
        path: layer.to_owned(),
        what: format!("{FILE} cannot be read"),
    })
}

fn replay(text: &[u8]) -> Option<Paths> {
    let mut paths = Paths::new();
    if text.is_empty() {
        return Some(paths);
    }
    for record in text.strip_suffix(&[0])?.split(|b| *b == 0) {
        let (what, path) = record.split_first()?;
        match *what {
            MADE => {
                paths.insert(path.to_vec());
            }
            MENTIONED => {
                paths.remove(path);
            }
            REPLACED => {
                paths.remove(path);
                let prefix = [path, b"/"].concat();
                let below = paths.range(prefix.clone()..);
                let below = below.take_while(|p| p.starts_with(&prefix));
                for gone in below.cloned().collect::<Vec<_>>() {
                    paths.remove(&gone);
                }
            }
            _ => return None,
        }
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_a_directory_counts() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = Log::new(temp.path());
        log.mentioned(b"early").unwrap();
        assert!(!any(temp.path()));
        for path in ["a", "a/b", "a/b/c", "ab", "d"] {
            log.made(path.as_bytes()).unwrap();
        }
        log.replaced(b"a/b").unwrap();
        log.mentioned(b"d").unwrap();
        log.made(b"").unwrap();
        log.finish().unwrap();
        assert!(any(temp.path()));
        let paths: Vec<_> = read(temp.path()).unwrap().into_iter().collect();
        assert_eq!(paths, [&b""[..], b"a", b"ab"]);
        for bad in [&b"+a"[..], b"?a\0", b"\0"] {
            assert_eq!(replay(bad), None, "{bad:?}");
        }
    }
}
