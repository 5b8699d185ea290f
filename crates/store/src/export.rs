//! A layer's tar stream, made again bit for bit from its recipe and its files.

use crate::driver::{Contents, DriverError};
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::recipe::{Recipe, Step};
use crate::store::{Store, StoreError};
use crate::tar::Segment;
use carrack_spec::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;

/// The uncompressed tar stream of a layer. Reading ends with an error, not with the end of the stream, when
/// the bytes turned out not to have the layer's diff id.
pub struct LayerReader {
    diff_id: Digest,
    stream: Stream,
    hash: Sha256,
}

/// The same, not yet compared with the diff id.
struct Stream {
    recipe: Recipe<File>,
    contents: Box<dyn Contents>,
    /// Keys met so far.
    keys: u64,
    current: Current,
    ended: bool,
}

enum Current {
    Literal(Vec<u8>, usize),
    Content {
        file: File,
        segments: std::vec::IntoIter<Segment>,
        at: u64,
        left: u64,
    },
}

impl std::fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerReader({})", self.diff_id)
    }
}

impl Store {
    /// Opens the uncompressed tar stream of a layer, which `lease` protects from now on.
    ///
    /// # Errors
    /// [`LayerError::Missing`], and damage.
    pub fn open_layer(&self, lease: &Lease, diff_id: &Digest) -> Result<LayerReader, LayerError> {
        if !lease.protect_layer(diff_id)? {
            return Err(LayerError::Missing(diff_id.clone()));
        }
        LayerReader::new(self, diff_id)
    }

    /// Writes the uncompressed tar stream of a layer; gives its size.
    ///
    /// # Errors
    /// [`LayerError::Export`] also when the bytes do not have the diff id; they are useless then.
    pub fn export_layer(
        &self,
        lease: &Lease,
        diff_id: &Digest,
        mut output: impl Write,
    ) -> Result<u64, LayerError> {
        let reader = self.open_layer(lease, diff_id)?;
        let failed = |e| LayerError::Export(diff_id.clone(), e);
        let mut hash = Sha256::new();
        // Reading many files takes about as long as digesting and writing.
        let bytes = crate::copy::ahead(reader.stream, |part| {
            hash.update(part);
            output.write_all(part)
        });
        let bytes = bytes.map_err(failed)?;
        compare(diff_id, hash).map_err(failed)?;
        output.flush().map_err(failed)?;
        Ok(bytes)
    }
}

impl LayerReader {
    pub(crate) fn new(store: &Store, diff_id: &Digest) -> Result<Self, LayerError> {
        let at = store.layer_path(diff_id);
        let recipe = at.join("recipe");
        let file = File::open(&recipe).map_err(StoreError::io("open", recipe))?;
        let stream = Stream {
            recipe: Recipe::new(file).map_err(|e| LayerError::Export(diff_id.clone(), e))?,
            contents: store
                .driver()
                .contents(&at)
                .map_err(|e| LayerError::Unpack(diff_id.to_string(), e))?,
            keys: 0,
            current: Current::Literal(Vec::new(), 0),
            ended: false,
        };
        Ok(Self {
            diff_id: diff_id.clone(),
            stream,
            hash: Sha256::new(),
        })
    }
}

fn compare(diff_id: &Digest, hash: Sha256) -> std::io::Result<()> {
    let found = Digest::from_sha256(hash.finalize().into());
    match found == *diff_id {
        true => Ok(()),
        false => {
            let text = format!("its files changed: the digest is now {found}");
            Err(Error::new(ErrorKind::InvalidData, text))
        }
    }
}

impl Stream {
    /// Takes the next step of the recipe.
    fn advance(&mut self) -> std::io::Result<()> {
        match self.recipe.step()? {
            Some(Step::Literal(bytes)) => self.current = Current::Literal(bytes, 0),
            Some(Step::Content { key, segments }) => {
                let opened = self.contents.open(&key, self.keys);
                let file = opened.map_err(|e: DriverError| Error::other(e))?;
                self.keys += 1;
                self.current = Current::Content {
                    file,
                    segments: segments.into_iter(),
                    at: 0,
                    left: 0,
                };
            }
            None => self.ended = true,
        }
        Ok(())
    }

    /// Bytes of the current step; none when it is used up.
    fn take(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.current {
            Current::Literal(bytes, at) => {
                let rest = bytes.get(*at..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                if let Some((to, from)) = buf.get_mut(..n).zip(rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                *at += n;
                Ok(n)
            }
            Current::Content {
                file,
                segments,
                at,
                left,
            } => {
                while *left == 0 {
                    let Some(segment) = segments.next() else {
                        return Ok(0);
                    };
                    (*at, *left) = (segment.offset, segment.length);
                }
                let want = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let got = file.read_at(buf.get_mut(..want).unwrap_or_default(), *at)?;
                if got == 0 {
                    let text = "a file of the layer is shorter than it was";
                    return Err(Error::new(ErrorKind::InvalidData, text));
                }
                *at += got as u64;
                *left -= got as u64;
                Ok(got)
            }
        }
    }
}

impl Read for Stream {
    /// Fills the buffer as far as the stream goes.
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while !self.ended {
            let Some(rest) = buf.get_mut(filled..).filter(|r| !r.is_empty()) else {
                break;
            };
            match self.take(rest)? {
                0 => self.advance()?,
                got => filled += got,
            }
        }
        Ok(filled)
    }
}

impl Read for LayerReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let got = self.stream.read(buf)?;
        self.hash.update(buf.get(..got).unwrap_or_default());
        // The end may have been met while the buffer was filled: nobody asks again then.
        if got < buf.len() {
            compare(&self.diff_id, self.hash.clone())?;
        }
        Ok(got)
    }
}
