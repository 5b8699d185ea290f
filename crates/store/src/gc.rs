//! Garbage collection: what no image, no manifest list, no snapshot and no living lease needs is removed.
//!
//! Under the meta lock (exclusive, milliseconds) the unreachable is found and renamed to names of the lease
//! in `tmp/`; then the lock is let go and the files are removed. Space is free when the call
//! returns. A crash in between leaves what the next sweep removes. When a record cannot be read, nothing is
//! removed: what it names is unknown.

use crate::durable::remove_path;
use crate::images::{ImageError, ImageRecord};
use crate::lease::Lease;
use crate::store::{Removing, Store, StoreError};
use carrack_spec::Digest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a removal freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// Documents that are gone.
    pub blobs: Vec<Digest>,
    /// Bytes on disk that are free again.
    pub bytes: u64,
}

/// Which images to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Not only those without a name.
    pub all: bool,
    /// Only those loaded before this time, seconds since the epoch.
    pub before: Option<u64>,
    /// Only those with all of these labels (and values).
    pub labels: Vec<(String, Option<String>)>,
    /// Only those without any of these labels (and values).
    pub without_labels: Vec<(String, Option<String>)>,
}

/// What a pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The records that are gone.
    pub images: Vec<ImageRecord>,
    /// What nothing else needed.
    pub reclaimed: Reclaimed,
}

/// Things that were moved away to be removed.
#[must_use]
pub(crate) struct Trash {
    places: Vec<PathBuf>,
    reclaimed: Reclaimed,
}

impl Store {
    /// Removes layers and documents that nothing needs.
    ///
    /// # Errors
    /// A record cannot be read (nothing is removed then), or a file cannot be removed.
    pub fn collect_garbage(&self) -> Result<Reclaimed, ImageError> {
        // What a dead process protected is not protected any more.
        self.sweep();
        let lease = self.lease()?;
        let held = self.removing()?;
        let trash = self.take_unreachable(&lease, &held)?;
        drop(held);
        Ok(trash.empty()?)
    }

    /// Removes images that no container uses and that `options` selects, then what nothing needs.
    ///
    /// # Errors
    /// As [`Store::collect_garbage`].
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, ImageError> {
        self.sweep();
        let lease = self.lease()?;
        let held = self.removing()?;
        let used: BTreeSet<Digest> = self
            .snapshots()?
            .into_iter()
            .map(|(_, s)| s.image)
            .collect();
        let mut pruned = Pruned::default();
        let (records, bad) = self.records()?;
        if let Some(error) = bad.into_iter().next() {
            return Err(error);
        }
        for (path, record) in records {
            if !used.contains(&record.id) && self.selects(options, &record)? {
                remove_path(&path).map_err(StoreError::io("remove", &path))?;
                pruned.images.push(record);
            }
        }
        let trash = self.take_unreachable(&lease, &held)?;
        drop(held);
        pruned.reclaimed = trash.empty()?;
        Ok(pruned)
    }

    fn selects(&self, options: &PruneOptions, record: &ImageRecord) -> Result<bool, ImageError> {
        if record.reference.is_some() && !options.all {
            return Ok(false);
        }
        if options.before.is_some_and(|before| record.loaded >= before) {
            return Ok(false);
        }
        if options.labels.is_empty() && options.without_labels.is_empty() {
            return Ok(true);
        }
        let labels = self.image_config(record)?.config.labels;
        let has = |(key, value): &(String, Option<String>)| {
            let found = labels.get(key);
            found.is_some_and(|f| value.as_ref().is_none_or(|v| v == f))
        };
        Ok(options.labels.iter().all(has) && !options.without_labels.iter().any(has))
    }

    /// Removes those of these documents that nothing needs.
    pub(crate) fn remove_unneeded(&self, documents: &BTreeSet<Digest>) -> Result<(), ImageError> {
        let held = self.removing()?;
        let keep = self.needed(&held)?;
        for digest in documents.iter().filter(|d| !keep.contains(d.hex())) {
            let path = self.blob_path(digest);
            remove_path(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Documents and layers that records, lists, containers or living leases name, as hexadecimal digits.
    fn needed(&self, held: &Removing) -> Result<BTreeSet<String>, ImageError> {
        // Leases first: one that ended meanwhile had its record written before.
        let mut keep = self.leased(held)?;
        let (records, bad) = self.records()?;
        if let Some(error) = bad.into_iter().next() {
            return Err(error);
        }
        let mut add = |digest: &Digest| keep.insert(digest.hex().to_owned());
        let (lists, bad) = self.list_records()?;
        if let Some(error) = bad.into_iter().next() {
            return Err(error);
        }
        let of_lists = lists.iter().flat_map(|(_, list)| list.images());
        for record in records.iter().map(|(_, record)| record).chain(of_lists) {
            for digest in record.blobs().into_iter().chain(&record.layers) {
                add(digest);
            }
        }
        for (_, snapshot) in self.snapshots()? {
            add(&snapshot.image);
            for digest in &snapshot.layers {
                add(digest);
            }
        }
        Ok(keep)
    }

    /// Moves away what nothing needs.
    pub(crate) fn take_unreachable(
        &self,
        lease: &Lease,
        held: &Removing,
    ) -> Result<Trash, ImageError> {
        let keep = self.needed(held)?;
        let mut trash = Trash {
            places: Vec::new(),
            reclaimed: Reclaimed::default(),
        };
        trash.reclaimed.blobs = take(&self.path("blobs/sha256"), &keep, lease, &mut trash.places)?;
        let layers = self.path("layers");
        trash.reclaimed.layers = take(&layers, &keep, lease, &mut trash.places)?;
        let kept: Vec<PathBuf> = self
            .layer_ids()?
            .iter()
            .map(|l| self.layer_path(l))
            .collect();
        let places = std::cell::RefCell::new(&mut trash.places);
        let place = || {
            let place = lease.temporary();
            places.borrow_mut().push(place.clone());
            place
        };
        self.driver()
            .collect(&kept, &place)
            .map_err(|e| crate::layers::LayerError::Unpack("collection".into(), e))?;
        Ok(trash)
    }
}

impl Trash {
    /// Removes everything and tells what was freed.
    pub(crate) fn empty(mut self) -> Result<Reclaimed, StoreError> {
        for place in &self.places {
            let freed = crate::remove::remove(place);
            self.reclaimed.bytes += freed.map_err(StoreError::io("remove", place))?;
        }
        Ok(self.reclaimed)
    }
}

/// Moves the entries of `directory` that are not to be kept away.
fn take(
    directory: &Path,
    keep: &BTreeSet<String>,
    lease: &Lease,
    places: &mut Vec<PathBuf>,
) -> Result<Vec<Digest>, StoreError> {
    let entries = std::fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
    let mut taken = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", directory))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| keep.contains(name)) {
            continue;
        }
        let place = lease.temporary();
        std::fs::rename(entry.path(), &place).map_err(StoreError::io("remove", entry.path()))?;
        places.push(place);
        taken.extend(
            name.to_str()
                .and_then(|n| format!("sha256:{n}").parse().ok()),
        );
    }
    Ok(taken)
}
