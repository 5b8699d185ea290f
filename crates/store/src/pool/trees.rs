//! The images of chains of layers: the file `erofs` of a chain's directory (see `crate::trees`).

use super::merge::{alone, merge, nothing};
use super::mount::mount;
use super::objects::Pool;
use super::replay;
use crate::driver::DriverError;
use crate::durable::sync_directory;
use crate::erofs::{Content, InodeId, Options, Tree, WriteError, write};
use crate::lease::Lease;
use crate::store::StoreError;
use crate::trees;
use carrack_spec::Digest;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 256 << 10;

/// The image of the layers, written if it is not there.
pub(super) fn image(
    store: &Path,
    pool: &Pool,
    lease: &Lease,
    layers: &[Digest],
) -> Result<PathBuf, DriverError> {
    let image = trees::place(store, layers).join("erofs");
    if image.is_file() {
        return Ok(image);
    }
    let tree = tree(store, pool, layers)?;
    trees::make(store, lease, layers, |at| {
        let new = at.join("erofs");
        let file = File::create_new(&new).map_err(StoreError::io("make", &new))?;
        let options = Options {
            long_prefixes: true,
        };
        let out = BufWriter::with_capacity(BUFFER_BYTES, &file);
        write(&tree, options, out).map_err(|e| match e {
            WriteError::Output(source) => StoreError::io("write", &new)(source).into(),
            WriteError::Tree(error) => DriverError::Damaged {
                path: image.clone(),
                what: error.to_string(),
            },
        })?;
        // The kernel trusts what it mounts: no half of it may be there after a crash.
        file.sync_all().map_err(StoreError::io("flush", &new))?;
        Ok(sync_directory(at)?)
    })?;
    // What this kernel does not mount is told when an image comes in, not when it is to run.
    mount(&image, None)?;
    Ok(image)
}

/// The tree of the layers, lowest first.
pub(super) fn tree(store: &Path, pool: &Pool, layers: &[Digest]) -> Result<Tree, DriverError> {
    let mut layers = layers.iter().map(|layer| {
        let path = store.join("layers").join(layer.hex());
        replay::tree(&path)
    });
    let lowest = layers.next().transpose()?;
    let mut tree = lowest.map_or_else(nothing, alone);
    for layer in layers {
        merge(&mut tree, layer?);
    }
    if pool.verity() {
        measure(&mut tree, pool)?;
    }
    Ok(tree)
}

/// Asks the kernel for the fs-verity digest of every object.
fn measure(tree: &mut Tree, pool: &Pool) -> Result<(), DriverError> {
    let mut known = HashMap::new();
    for id in tree.ids().collect::<Vec<InodeId>>() {
        let Content::Pooled { object, verity, .. } = &mut tree.get_mut(id).content else {
            continue;
        };
        let digest = match known.get(object) {
            Some(digest) => *digest,
            None => {
                let path = pool.path(object);
                let file = File::open(&path).map_err(StoreError::io("open", &path))?;
                let digest = carrack_sys::verity::measure(file.as_fd())
                    .map_err(|e| StoreError::io("measure", &path)(e.into()))?;
                known.insert(*object, digest);
                digest
            }
        };
        *verity = Some(digest.into());
    }
    Ok(())
}
