//! Whether the pool has what its layers rely on, and how much room that takes.

use super::objects::{LIST, Pool, read_list};
use super::replay;
use super::unpack::digest_map;
use crate::driver::DriverError;
use crate::erofs::{Content, ObjectId};
use crate::store::StoreError;
use crate::tar::{Entry, Segment};
use crate::trees;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 256 << 10;

/// Calls `bad` for every layer of `layers` with each thing that is wrong with it. Every object is read once.
pub(super) fn check(
    pool: &Pool,
    layers: &[PathBuf],
    bad: &mut dyn FnMut(&Path, String),
) -> Result<(), DriverError> {
    let mut known: HashMap<ObjectId, Option<String>> = HashMap::new();
    for layer in layers {
        let listed: HashSet<ObjectId> = read_list(&layer.join(LIST))?.into_iter().collect();
        let replayed = replay::entries(layer, |entry, content| {
            let Content::Pooled { object, .. } = content else {
                return Ok(());
            };
            let path = String::from_utf8_lossy(&entry.path);
            if !listed.contains(&object) {
                bad(layer, format!("its list of objects lacks that of {path:?}"));
            }
            let found = known
                .entry(object)
                .or_insert_with(|| compare(&pool.path(&object), entry, &object).err());
            if let Some(what) = found {
                bad(layer, format!("{path:?}: {what}"));
            }
            Ok(())
        });
        match replayed {
            Ok(()) => {}
            Err(DriverError::Damaged { what, .. }) => bad(layer, what),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the file at `path` is the object that an entry needs.
fn compare(path: &Path, entry: &Entry, object: &ObjectId) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size != entry.size {
        return Err(format!(
            "{} has {size} bytes, not {}",
            path.display(),
            entry.size
        ));
    }
    let mut hash = Sha256::new();
    let whole = [Segment {
        offset: 0,
        length: entry.size,
    }];
    let segments = match &entry.sparse {
        None => &whole[..],
        Some(map) => {
            digest_map(&mut hash, entry.size, map);
            map
        }
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    for segment in segments {
        let (mut at, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let n = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..n], at).map_err(failed)?;
            hash.update(&buffer[..n]);
            at += n as u64;
            left -= n as u64;
        }
    }
    match hash.finalize()[..] == object.digest {
        true => Ok(()),
        false => Err(format!("{} does not have its digest", path.display())),
    }
}

/// Bytes on disk of layers with all that only they need: what would be free if all others stayed away.
pub(super) fn usage(store: &Path, pool: &Pool, layers: &[PathBuf]) -> Result<u64, DriverError> {
    let mut objects = HashSet::new();
    let mut bytes = 0;
    for layer in layers {
        objects.extend(read_list(&layer.join(LIST))?);
        bytes += directory(layer)?;
    }
    for (tree, needed) in trees::list(store, layers)? {
        if needed {
            bytes += directory(&tree)?;
        }
    }
    for object in objects {
        bytes += of(&pool.path(&object))?;
    }
    Ok(bytes)
}

/// A directory that has only files in it.
fn directory(path: &Path) -> Result<u64, StoreError> {
    let mut bytes = of(path)?;
    for entry in std::fs::read_dir(path).map_err(StoreError::io("list", path))? {
        bytes += of(&entry.map_err(StoreError::io("list", path))?.path())?;
    }
    Ok(bytes)
}

fn of(path: &Path) -> Result<u64, StoreError> {
    let metadata = path.symlink_metadata();
    Ok(metadata.map_err(StoreError::io("inspect", path))?.blocks() * 512)
}
