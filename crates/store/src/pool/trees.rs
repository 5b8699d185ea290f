//! The images of chains of layers.
//!
//! ```text
//! trees/HEX/     by chain id; appears by one rename, complete
//!   layers       diff ids, lowest first, a line each
//!   erofs        the image
//! ```
//!
//! An image can always be made again: it is written when it is first needed and removed when one of
//! its layers is.

use super::merge::{merge, nothing};
use super::objects::Pool;
use super::replay;
use crate::driver::DriverError;
use crate::durable::{remove_path, sync_directory};
use crate::erofs::{Content, InodeId, Options, Tree, WriteError, write};
use crate::lease::Lease;
use crate::store::StoreError;
use carrack_spec::Digest;
use rustix::fs::{CWD, Mode, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 256 << 10;

/// The chain id of layers (image specification, `config.md`), in hexadecimal digits; of none, that of
/// no bytes.
pub(super) fn chain_id(layers: &[Digest]) -> String {
    let id = layers.iter().fold(None, |below: Option<Digest>, layer| {
        Some(match below {
            None => layer.clone(),
            Some(below) => {
                let text = format!("{below} {layer}");
                Digest::from_sha256(Sha256::digest(text.as_bytes()).into())
            }
        })
    });
    let id = id.unwrap_or_else(|| Digest::from_sha256(Sha256::digest(b"").into()));
    id.hex().to_owned()
}

/// The image of the layers, written if it is not there.
pub(super) fn image(
    store: &Path,
    pool: &Pool,
    lease: &Lease,
    layers: &[Digest],
) -> Result<PathBuf, DriverError> {
    let trees = store.join("trees");
    let place = trees.join(chain_id(layers));
    let image = place.join("erofs");
    if image.is_file() {
        return Ok(image);
    }
    let tree = tree(store, pool, layers)?;
    let at = lease.temporary();
    rustix::fs::mkdir(&at, Mode::from_raw_mode(0o700))
        .map_err(|e| StoreError::io("make the directory", &at)(e.into()))?;
    let names: String = layers.iter().map(|l| format!("{l}\n")).collect();
    let list = at.join("layers");
    std::fs::write(&list, names).map_err(StoreError::io("write", &list))?;
    let new = at.join("erofs");
    let file = File::create_new(&new).map_err(StoreError::io("make", &new))?;
    let options = Options {
        long_prefixes: true,
    };
    let out = BufWriter::with_capacity(BUFFER_BYTES, &file);
    write(&tree, options, out).map_err(|e| match e {
        WriteError::Output(source) => StoreError::io("write", &new)(source).into(),
        WriteError::Tree(error) => DriverError::Damaged {
            path: place.clone(),
            what: error.to_string(),
        },
    })?;
    // The kernel trusts what it mounts: no half of it may be there after a crash.
    file.sync_all().map_err(StoreError::io("flush", &new))?;
    sync_directory(&at)?;
    match rustix::fs::renameat_with(CWD, &at, CWD, &place, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // Somebody else made the same.
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            remove_path(&at).map_err(StoreError::io("remove", &at))?;
        }
        Err(error) => return Err(StoreError::io("put in place", place)(error.into()).into()),
    }
    Ok(image)
}

/// The tree of the layers, lowest first.
pub(super) fn tree(store: &Path, pool: &Pool, layers: &[Digest]) -> Result<Tree, DriverError> {
    let mut tree = nothing();
    for layer in layers {
        let path = store.join("layers").join(layer.hex());
        merge(&mut tree, replay::tree(&path)?);
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

/// The images of the store, and whether each needs only layers that are among `kept`.
pub(super) fn list(store: &Path, kept: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>, StoreError> {
    let trees = store.join("trees");
    let kept: HashSet<_> = kept.iter().filter_map(|p| p.file_name()).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&trees).map_err(StoreError::io("list", &trees))? {
        let path = entry.map_err(StoreError::io("list", &trees))?.path();
        // Without its list it cannot be used.
        let names = std::fs::read_to_string(path.join("layers")).unwrap_or_else(|_| "?".into());
        let hex = |line: &str| line.split(':').next_back().unwrap_or_default().to_owned();
        let there = |line: &str| kept.contains(OsStr::new(&hex(line)));
        found.push((path, names.lines().all(there)));
    }
    Ok(found)
}

/// Moves images away that need a layer which is not among `kept`.
pub(super) fn collect(
    store: &Path,
    kept: &[PathBuf],
    trash: &dyn Fn() -> PathBuf,
) -> Result<(), StoreError> {
    for (path, needed) in list(store, kept)? {
        if !needed {
            std::fs::rename(&path, trash()).map_err(StoreError::io("move away", path))?;
        }
    }
    Ok(())
}
