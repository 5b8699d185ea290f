//! Looking at images: history, the tree of layers, and what a layer or a container changed.

use crate::driver::DriverError;
use crate::export::LayerReader;
use crate::images::{ImageError, ImageRecord};
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use crate::tar::{Kind, Reader};
use crate::unpack::{ExtractError, Meaning, components, meaning};
use carrack_spec::image::History;
use carrack_spec::{ContainerId, Digest};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One step in the making of an image, the newest first in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryStep {
    /// What its configuration says of the step.
    pub history: History,
    /// The layer it made, and the bytes of its files.
    pub layer: Option<(Digest, u64)>,
}

/// A layer in the tree of all images: its layers below are the way to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// The layer.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// Names (or ids) of images that end here.
    pub images: Vec<String>,
    /// What stands on it.
    pub children: Vec<TreeNode>,
}

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new, or, of a layer's archive, new or another.
    Added,
    /// It is another, or something in it is.
    Changed,
    /// It is gone.
    Deleted,
}

/// What a layer has in its archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerChanges {
    /// Things that are there, and names that it hides.
    pub paths: BTreeMap<PathBuf, Change>,
    /// Directories that hide what layers below have in them; perhaps the root, the empty path.
    pub emptied: BTreeSet<PathBuf>,
}

impl Store {
    /// How an image was made, the newest step first.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn history(&self, record: &ImageRecord) -> Result<Vec<HistoryStep>, ImageError> {
        let config = self.image_config(record)?;
        let mut layers = config.rootfs.diff_ids.iter();
        let mut take = || {
            let layer = layers.next()?;
            let bytes = self.layer_info(layer).map_or(0, |info| info.bytes);
            Some((layer.clone(), bytes))
        };
        let mut steps: Vec<HistoryStep> = config
            .history
            .into_iter()
            .map(|history| HistoryStep {
                layer: if history.empty_layer { None } else { take() },
                history,
            })
            .collect();
        // Some builders write no history, or too little.
        while let Some(layer) = take() {
            steps.push(HistoryStep {
                history: History::default(),
                layer: Some(layer),
            });
        }
        steps.reverse();
        Ok(steps)
    }

    /// The layers of all images as trees, shared ones once.
    ///
    /// # Errors
    /// The records cannot be listed.
    pub fn tree(&self) -> Result<Vec<TreeNode>, ImageError> {
        let mut roots = Vec::new();
        let mut images = self.images()?;
        images.sort_by_key(ImageRecord::name);
        for record in &images {
            let mut level = &mut roots;
            for (i, diff_id) in record.layers.iter().enumerate() {
                let at = level.iter().position(|n: &TreeNode| n.diff_id == *diff_id);
                let at = at.unwrap_or_else(|| {
                    level.push(TreeNode {
                        diff_id: diff_id.clone(),
                        bytes: self.layer_info(diff_id).map_or(0, |info| info.bytes),
                        images: Vec::new(),
                        children: Vec::new(),
                    });
                    level.len() - 1
                });
                let Some(node) = level.get_mut(at) else {
                    break;
                };
                if i + 1 == record.layers.len() {
                    node.images.push(record.name());
                }
                level = &mut node.children;
            }
        }
        Ok(roots)
    }

    /// What a layer has in its archive.
    ///
    /// # Errors
    /// The layer is damaged.
    pub fn layer_changes(
        &self,
        lease: &Lease,
        diff_id: &Digest,
    ) -> Result<LayerChanges, LayerError> {
        let failed =
            |e: ExtractError| LayerError::Unpack(diff_id.to_string(), DriverError::Extract(e));
        let stream: LayerReader = self.open_layer(lease, diff_id)?;
        let mut reader = Reader::new(std::io::BufReader::new(stream));
        let mut changes = LayerChanges::default();
        while let Some(entry) = reader.next_entry().map_err(|e| failed(e.into()))? {
            let parts = components(&entry.path).map_err(failed)?;
            let Some((name, parents)) = parts.split_last() else {
                continue;
            };
            let mut path: PathBuf = parents.iter().map(|p| os(p)).collect();
            let change = match meaning(name, &entry).map_err(failed)? {
                Meaning::Nothing => continue,
                Meaning::Opaque => {
                    changes.emptied.insert(path.clone());
                    if path.as_os_str().is_empty() {
                        continue;
                    }
                    Change::Changed
                }
                Meaning::Whiteout(name) => {
                    path.push(os(name));
                    Change::Deleted
                }
                Meaning::Thing(name) => {
                    path.push(os(name));
                    match entry.kind {
                        Kind::Directory => Change::Changed,
                        _ => Change::Added,
                    }
                }
            };
            changes.paths.insert(path, change);
        }
        Ok(changes)
    }

    /// What a container changed, by its writable layer: `is_below` says whether the image has the path.
    ///
    /// # Errors
    /// The layer cannot be walked.
    pub fn snapshot_changes(
        &self,
        id: &ContainerId,
        is_below: &dyn Fn(&Path) -> bool,
    ) -> Result<BTreeMap<PathBuf, Change>, StoreError> {
        let upper = self.snapshot_path(id).join("upper");
        let mut changes = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(directory) = left.pop() {
            let at = upper.join(&directory);
            for entry in std::fs::read_dir(&at).map_err(StoreError::io("list", &at))? {
                let entry = entry.map_err(StoreError::io("list", &at))?;
                let path = directory.join(entry.file_name());
                let metadata = entry
                    .path()
                    .symlink_metadata()
                    .map_err(StoreError::io("inspect", entry.path()))?;
                let is_whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
                let change = match (is_whiteout, is_below(&path)) {
                    (true, _) => Change::Deleted,
                    (false, true) => Change::Changed,
                    (false, false) => Change::Added,
                };
                changes.insert(path.clone(), change);
                if metadata.is_dir() {
                    left.push(path);
                }
            }
        }
        Ok(changes)
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}
