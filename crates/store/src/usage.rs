//! What is on the disk, in the file system's own count (`st_blocks`): every file once, however many
//! names it has, and directories too.

use crate::images::{ImageError, ImageRecord};
use crate::layers::LayerError;
use crate::store::Store;
use carrack_spec::Digest;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One image's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image, under one of its names.
    pub record: ImageRecord,
    /// Bytes of all its layers.
    pub total: u64,
    /// Bytes of layers that other images have too.
    pub shared: u64,
    /// Containers that use it.
    pub containers: usize,
}

/// What is on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images, each once.
    pub images: Vec<ImageUsage>,
    /// Bytes of layers, each once.
    pub layers: BTreeMap<Digest, u64>,
    /// Bytes of what layers share by the driver, and of its trees.
    pub shared_objects: u64,
    /// Bytes of documents and records.
    pub documents: u64,
    /// Writable layers of containers.
    pub snapshots: BTreeMap<String, u64>,
    /// Bytes of unfinished things and of things being removed.
    pub unfinished: u64,
    /// Bytes of layers that no image, no manifest list and no container needs: what a pruning frees for sure.
    pub unreachable: u64,
    /// Bytes of layers that no manifest list and no container needs: what a pruning of all images frees.
    pub reclaimable: u64,
    /// Everything below the store's root.
    pub total: u64,
}

impl Store {
    /// Measures everything, by a walk.
    ///
    /// # Errors
    /// Records cannot be listed.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let mut measure = Measure::default();
        let mut usage = Usage::default();
        let driver = self.driver();
        let shares = driver.shares();
        let failed = |e| LayerError::Unpack("measure".into(), e);
        for diff_id in self.layer_ids()? {
            let path = self.layer_path(&diff_id);
            let bytes = match shares {
                false => measure.tree(&path),
                true => driver.usage(&[path]).map_err(failed)?,
            };
            usage.layers.insert(diff_id, bytes);
        }
        let of_layers = match shares {
            false => usage.layers.values().sum::<u64>(),
            true => measure.tree(&self.path("layers")),
        };
        let snapshots = self.snapshots()?;
        for (id, _) in &snapshots {
            let bytes = measure.tree(&self.path("snapshots").join(id));
            usage.snapshots.insert(id.clone(), bytes);
        }
        usage.shared_objects =
            measure.tree(&self.path("objects")) + measure.tree(&self.path("trees"));
        usage.documents = ["blobs", "images", "lists"]
            .iter()
            .map(|name| measure.tree(&self.path(name)))
            .sum();
        usage.unfinished = measure.tree(&self.path("tmp"));
        let counted = of_layers
            + usage.snapshots.values().sum::<u64>()
            + usage.shared_objects
            + usage.documents
            + usage.unfinished;
        // The rest: the root itself, locks, and directories of directories.
        usage.total = counted + measure.tree(self.root());

        let mut images = BTreeMap::new();
        for record in self.images()? {
            images.entry(record.id.clone()).or_insert(record);
        }
        let layers = |record: &ImageRecord| record.layers.iter().cloned().collect::<BTreeSet<_>>();
        let mut users = BTreeMap::<Digest, usize>::new();
        for record in images.values() {
            for layer in layers(record) {
                *users.entry(layer).or_default() += 1;
            }
        }
        let trees: Vec<(u64, Vec<String>)> = crate::trees::all(self.root())?
            .into_iter()
            .map(|(path, names)| (Measure::default().tree(&path), names.unwrap_or_default()))
            .collect();
        let bytes = |layers: &mut dyn Iterator<Item = &Digest>| -> Result<u64, LayerError> {
            if shares {
                let paths: Vec<_> = layers.map(|l| self.layer_path(l)).collect();
                return driver.usage(&paths).map_err(failed);
            }
            let layers: BTreeSet<&Digest> = layers.collect();
            let there: HashSet<&str> = layers.iter().map(|l| l.hex()).collect();
            let needed = |names: &[String]| names.iter().all(|n| there.contains(n.as_str()));
            let trees = trees.iter().filter(|(_, names)| needed(names));
            let layers = layers.into_iter().filter_map(|l| usage.layers.get(l));
            Ok(layers.chain(trees.map(|(bytes, _)| bytes)).sum())
        };
        let mut found = Vec::new();
        for record in images.into_values() {
            let own = layers(&record);
            let mut shared = own.iter().filter(|l| users.get(l).is_some_and(|n| *n > 1));
            found.push(ImageUsage {
                total: bytes(&mut own.iter())?,
                shared: bytes(&mut shared)?,
                containers: snapshots
                    .iter()
                    .filter(|(_, s)| s.image == record.id)
                    .count(),
                record,
            });
        }
        let lists = self.lists()?;
        let of_lists = lists.iter().flat_map(|list| list.images());
        let held: BTreeSet<&Digest> = snapshots
            .iter()
            .flat_map(|(_, s)| &s.layers)
            .chain(of_lists.flat_map(|record| &record.layers))
            .collect();
        let all = bytes(&mut usage.layers.keys())?;
        let mut needed = usage
            .layers
            .keys()
            .filter(|l| held.contains(l) || users.contains_key(l));
        let needed = bytes(&mut needed)?;
        let in_use = bytes(&mut usage.layers.keys().filter(|l| held.contains(l)))?;
        usage.unreachable = all - needed;
        usage.reclaimable = all - in_use;
        usage.images = found;
        Ok(usage)
    }
}

/// Counts blocks; what was counted before counts nothing.
#[derive(Default)]
pub(crate) struct Measure {
    /// Directories, and files with several names: device and inode.
    seen: HashSet<(u64, u64)>,
}

impl Measure {
    /// Bytes of a file or a tree. What cannot be looked at counts nothing.
    pub(crate) fn tree(&mut self, path: &Path) -> u64 {
        let Ok(metadata) = path.symlink_metadata() else {
            return 0;
        };
        let is_directory = metadata.is_dir();
        if (is_directory || metadata.nlink() > 1)
            && !self.seen.insert((metadata.dev(), metadata.ino()))
        {
            return 0;
        }
        let own = metadata.blocks() * 512;
        if !is_directory {
            return own;
        }
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        own + entries.map(|e| self.tree(&e.path())).sum::<u64>()
    }
}
