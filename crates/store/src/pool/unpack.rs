//! Takes a layer's entries: what is large goes into the pool, the rest stays in the recipe.

use super::layer::LayerTree;
use super::objects::{Adder, Pool, to_bytes};
use crate::driver::{DriverError, Unpack};
use crate::erofs::{Content, ObjectId};
use crate::store::StoreError;
use crate::tar::{Entry, Kind, Segment, TarError};
use crate::unpack::{ExtractError, lossy};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The largest file that has no object of its own: its bytes stand in the recipe and in the images.
pub(super) const INLINE_BYTES_MAX: u64 = 512;
/// A file up to this size is digested before it is written: one that is in the pool is not written at all.
const MEMORY_BYTES_MAX: u64 = 256 << 10;

/// A file whose bytes are in the pool.
pub(super) fn is_pooled(entry: &Entry) -> bool {
    entry.kind == Kind::Regular && (entry.sparse.is_some() || entry.size > INLINE_BYTES_MAX)
}

pub(super) struct Unpacker {
    adder: Adder,
    /// Only to refuse here what could not be mounted.
    tree: LayerTree,
    buffer: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new(pool: &Pool, at: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            adder: Adder::new(pool, at)?,
            tree: LayerTree::new(),
            buffer: Vec::new(),
        })
    }

    fn object(
        &mut self,
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<ObjectId, DriverError> {
        if entry.sparse.is_none() && entry.size <= MEMORY_BYTES_MAX {
            self.buffer.clear();
            let mut hash = Sha256::new();
            pass(content, entry.size, |bytes| {
                hash.update(bytes);
                self.buffer.extend_from_slice(bytes);
                Ok(())
            })?;
            let id = ObjectId {
                digest: hash.finalize().into(),
                sparse: false,
            };
            self.adder.bytes(id, &self.buffer)?;
            return Ok(id);
        }
        let file = self.adder.begin()?;
        let digest = write(&file, entry, content)?;
        let id = ObjectId {
            digest,
            sparse: entry.sparse.is_some(),
        };
        self.adder.file(file, id)?;
        Ok(id)
    }
}

impl Unpack for Unpacker {
    fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn BufRead,
    ) -> Result<Option<Vec<u8>>, DriverError> {
        let object = match is_pooled(entry) {
            true => Some(self.object(entry, content)?),
            false => None,
        };
        self.tree.apply(entry, Content::Inline([].into()))?;
        Ok(object.map(|id| to_bytes(&id).to_vec()))
    }

    fn finish(self: Box<Self>) -> Result<(), DriverError> {
        Ok(self.adder.finish()?)
    }
}

/// Writes a large or sparse file and digests it: all of its bytes, or its size, map and the bytes in it.
fn write(file: &File, entry: &Entry, content: &mut dyn BufRead) -> Result<[u8; 32], DriverError> {
    let mut hash = Sha256::new();
    let mut at = 0;
    let mut run = |hash: &mut Sha256, offset: u64, length: u64| {
        at = offset;
        pass(content, length, |bytes| {
            hash.update(bytes);
            file.write_all_at(bytes, at)
                .map_err(|source| ExtractError::Entry {
                    action: "write",
                    path: lossy(&entry.path),
                    source,
                })?;
            at += bytes.len() as u64;
            Ok(())
        })
    };
    let Some(map) = &entry.sparse else {
        run(&mut hash, 0, entry.size)?;
        return Ok(hash.finalize().into());
    };
    digest_map(&mut hash, entry.size, map);
    for segment in map {
        run(&mut hash, segment.offset, segment.length)?;
    }
    file.set_len(entry.size)
        .map_err(|source| ExtractError::Entry {
            action: "write",
            path: lossy(&entry.path),
            source,
        })?;
    Ok(hash.finalize().into())
}

/// What a sparse file's digest begins with.
pub(super) fn digest_map(hash: &mut Sha256, size: u64, map: &[Segment]) {
    hash.update(size.to_le_bytes());
    hash.update((map.len() as u64).to_le_bytes());
    for segment in map {
        hash.update(segment.offset.to_le_bytes());
        hash.update(segment.length.to_le_bytes());
    }
}

/// Hands `length` bytes on, a buffer at a time.
pub(super) fn pass(
    content: &mut dyn BufRead,
    length: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), ExtractError>,
) -> Result<(), ExtractError> {
    let mut left = length;
    while left > 0 {
        let bytes = content.fill_buf().map_err(TarError::Read)?;
        let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(bytes) = bytes.get(..n).filter(|b| !b.is_empty()) else {
            return Err(TarError::Read(std::io::ErrorKind::UnexpectedEof.into()).into());
        };
        each(bytes)?;
        content.consume(n);
        left -= n as u64;
    }
    Ok(())
}
