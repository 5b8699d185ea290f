//! What a driver keeps of a chain of layers, beside the layers.
//!
//! ```text
//! trees/HEX/     by chain id; appears by one rename, complete and durable
//!   layers       diff ids, lowest first, a line each
//!   …            the driver's
//! ```
//!
//! It can always be made again: it is made when it is first needed and removed when one of its layers is.

use crate::driver::DriverError;
use crate::durable::{self, remove_path};
use crate::lease::Lease;
use crate::store::StoreError;
use carrack_spec::Digest;
use rustix::fs::{CWD, Mode, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const LIST: &str = "layers";

/// The directory of a chain, whether it is there or not.
pub(crate) fn place(store: &Path, layers: &[Digest]) -> PathBuf {
    store.join("trees").join(chain_id(layers))
}

/// Makes the directory of a chain. `fill` puts into the directory it is given what belongs there, and
/// makes all of that directory durable.
pub(crate) fn make(
    store: &Path,
    lease: &Lease,
    layers: &[Digest],
    fill: impl FnOnce(&Path) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let at = lease.temporary();
    rustix::fs::mkdir(&at, Mode::from_raw_mode(0o700))
        .map_err(|e| StoreError::io("make the directory", &at)(e.into()))?;
    let names: String = layers.iter().map(|l| format!("{l}\n")).collect();
    durable::prepare(&at.join(LIST), names.as_bytes())?;
    fill(&at)?;
    let place = place(store, layers);
    match rustix::fs::renameat_with(CWD, &at, CWD, &place, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Somebody else made the same.
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            Ok(remove_path(&at).map_err(StoreError::io("remove", &at))?)
        }
        Err(error) => Err(StoreError::io("put in place", place)(error.into()).into()),
    }
}

/// Directories of trees, and what each needs.
type Trees = Vec<(PathBuf, Option<Vec<String>>)>;

/// The trees of the store, and the layers (hexadecimal digits) that each needs; `None` when its list
/// cannot be read: nobody can use it.
pub(crate) fn all(store: &Path) -> Result<Trees, StoreError> {
    let trees = store.join("trees");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&trees).map_err(StoreError::io("list", &trees))? {
        let path = entry.map_err(StoreError::io("list", &trees))?.path();
        let names = std::fs::read_to_string(path.join(LIST)).ok();
        let hex = |line: &str| line.split(':').next_back().unwrap_or_default().to_owned();
        found.push((path, names.map(|n| n.lines().map(hex).collect())));
    }
    Ok(found)
}

/// The trees of the store, and whether each needs only layers that are among `kept`.
pub(crate) fn list(store: &Path, kept: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>, StoreError> {
    let kept: HashSet<_> = kept.iter().filter_map(|p| p.file_name()).collect();
    let there = |name: &String| kept.contains(OsStr::new(name));
    let needed = |names: Option<Vec<String>>| names.is_some_and(|n| n.iter().all(there));
    let all = all(store)?.into_iter();
    Ok(all.map(|(path, names)| (path, needed(names))).collect())
}

/// Moves trees away that need a layer which is not among `kept`.
pub(crate) fn collect(
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

/// The chain id of layers (image specification, `config.md`), in hexadecimal digits; of none, that of
/// no bytes.
fn chain_id(layers: &[Digest]) -> String {
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
