//! Is everything as it should be? Every document is verified by its digest, every layer by making its
//! archive again and comparing the digest, and its files' kinds, owners, modes and times with the
//! archive's entries. Records that point nowhere and leftovers are found.
//!
//! With `repair`, what is damaged is removed, so that it can be fetched again: the images to fetch are
//! told. Their records stay away until then. What a container uses is not taken from under it.

use crate::blobs::BlobError;
use crate::driver::DriverError;
use crate::durable::{remove_path, sync_directory};
use crate::export::LayerReader;
use crate::images::{ImageError, ImageRecord};
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use crate::tar::{Reader, TarError};
use crate::unpack::ExtractError;
use carrack_spec::Digest;
use carrack_spec::image::{Manifest, parse};
use std::collections::BTreeSet;
use std::path::PathBuf;

const READ_BUFFER_BYTES: usize = 256 << 10;

/// How much to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Only that everything is there: no contents of layers are read.
    pub quick: bool,
    /// Remove what is damaged.
    pub repair: bool,
}

/// Something that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A record cannot be read.
    #[error("a record is damaged: {0}")]
    Record(ImageError),
    /// An image lacks something.
    #[error("image {image} lacks {what}")]
    Lacks {
        /// The image.
        image: String,
        /// What it lacks.
        what: String,
    },
    /// An image of a manifest list lacks something.
    #[error("manifest list {list} lacks {what}")]
    List {
        /// The list.
        list: String,
        /// What it lacks.
        what: String,
    },
    /// A document is damaged.
    #[error("{0}")]
    Blob(BlobError),
    /// A layer is damaged.
    #[error("layer {diff_id}: {what}")]
    Layer {
        /// Which one.
        diff_id: Digest,
        /// What is wrong.
        what: String,
    },
    /// A container lacks a layer.
    #[error("container {container} lacks layer {diff_id}")]
    Container {
        /// The container.
        container: String,
        /// The layer.
        diff_id: Digest,
    },
    /// Something that is nothing.
    #[error("{0} does not belong here")]
    Leftover(PathBuf),
}

/// The outcome of a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// Images looked at.
    pub images: usize,
    /// Layers looked at.
    pub layers: usize,
    /// Documents looked at.
    pub blobs: usize,
    /// What was wrong.
    pub problems: Vec<Problem>,
    /// Images whose records were removed by the repair, to be fetched again.
    pub refetch: Vec<ImageRecord>,
}

impl Checked {
    /// True when nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Store {
    /// Looks at everything. `progress` gets the layer that is looked at.
    ///
    /// # Errors
    /// A directory cannot be listed, or with `repair` something cannot be removed.
    pub fn check(
        &self,
        options: CheckOptions,
        progress: &dyn Fn(&Digest),
    ) -> Result<Checked, ImageError> {
        self.sweep();
        let lease = self.lease_of_layers()?;
        let mut checked = Checked::default();
        let mut bad = BTreeSet::new();
        self.check_blobs(&mut checked, &mut bad)?;
        for diff_id in self.layer_ids()? {
            // One that was removed before the lease was made is no damage.
            if !self.has_layer(&diff_id) && self.layer_path(&diff_id).exists() {
                checked.problems.push(Problem::Layer {
                    diff_id: diff_id.clone(),
                    what: "info.json is missing".into(),
                });
                bad.insert(diff_id);
                continue;
            }
            progress(&diff_id);
            checked.layers += 1;
            if let Some(what) = self.layer_problem(&diff_id, options.quick) {
                let layer = diff_id.clone();
                checked.problems.push(Problem::Layer {
                    diff_id: layer,
                    what,
                });
                bad.insert(diff_id);
            }
        }
        if !options.quick {
            self.check_shared(&mut checked, &mut bad)?;
        }
        self.check_leftovers(options, &mut checked)?;
        // The lease protects every layer; what is repaired must not be protected.
        drop(lease);
        self.check_records(options, &mut checked, &bad)?;
        Ok(checked)
    }

    fn check_blobs(
        &self,
        checked: &mut Checked,
        bad: &mut BTreeSet<Digest>,
    ) -> Result<(), ImageError> {
        let directory = self.path("blobs/sha256");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = name
                .to_str()
                .and_then(|n| format!("sha256:{n}").parse().ok());
            let Some(digest) = digest else {
                checked.problems.push(Problem::Leftover(entry.path()));
                continue;
            };
            checked.blobs += 1;
            match self.blob(&digest) {
                Ok(_) | Err(BlobError::Missing(_)) => {}
                Err(error) => {
                    checked.problems.push(Problem::Blob(error));
                    bad.insert(digest);
                }
            }
        }
        Ok(())
    }

    /// What layers share by their driver.
    fn check_shared(
        &self,
        checked: &mut Checked,
        bad: &mut BTreeSet<Digest>,
    ) -> Result<(), ImageError> {
        let layers = self.layer_ids()?;
        let whole = layers.iter().filter(|l| !bad.contains(l));
        let paths: Vec<PathBuf> = whole.map(|l| self.layer_path(l)).collect();
        let mut found = Vec::new();
        self.driver()
            .check(&paths, &mut |path, what| {
                found.push((path.to_owned(), what))
            })
            .map_err(|e| LayerError::Unpack("check".into(), e))?;
        for (path, what) in found {
            let diff_id = layers.iter().find(|l| self.layer_path(l) == path);
            if let Some(diff_id) = diff_id.cloned() {
                bad.insert(diff_id.clone());
                checked.problems.push(Problem::Layer { diff_id, what });
            }
        }
        Ok(())
    }

    /// What is wrong with a layer, if anything.
    fn layer_problem(&self, diff_id: &Digest, quick: bool) -> Option<String> {
        let described = |error: &dyn std::error::Error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        };
        let info = match self.layer_info(diff_id) {
            Ok(info) => info,
            Err(error) => return Some(described(&error)),
        };
        if quick {
            let stream = LayerReader::new(self, diff_id);
            return stream.err().map(|e| described(&e));
        }
        let outcome = LayerReader::new(self, diff_id)
            .map_err(|e| described(&e))
            .and_then(|stream| self.compare(diff_id, stream).map_err(|e| described(&e)));
        match outcome {
            Err(problem) => Some(problem),
            Ok((_, problems)) if !problems.is_empty() => Some(problems.join("; ")),
            Ok((entries, _)) if entries != info.entries => {
                Some(format!("it has {entries} entries, not {}", info.entries))
            }
            Ok(_) => None,
        }
    }

    /// Reads the whole archive of a layer, which verifies its digest, and compares its entries.
    fn compare(
        &self,
        diff_id: &Digest,
        stream: LayerReader,
    ) -> Result<(u64, Vec<String>), DriverError> {
        let tar = |e: TarError| DriverError::from(ExtractError::from(e));
        let mut verifier = self.driver().verifier(&self.layer_path(diff_id))?;
        let stream = std::io::BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        let mut reader = Reader::new(stream);
        let mut entries = 0;
        while let Some(entry) = reader.next_entry().map_err(tar)? {
            entries += 1;
            verifier.entry(&entry)?;
        }
        reader.finish().map_err(tar)?;
        Ok((entries, verifier.finish()?))
    }

    fn check_leftovers(
        &self,
        options: CheckOptions,
        checked: &mut Checked,
    ) -> Result<(), ImageError> {
        let mut leftovers = Vec::new();
        for (path, lease) in self.unfinished()? {
            // One that ends removes its things before itself.
            if !self.path("leases").join(lease).exists() && path.symlink_metadata().is_ok() {
                leftovers.push(path);
            }
        }
        let layers = self.path("layers");
        for entry in std::fs::read_dir(&layers)
            .map_err(StoreError::io("list", &layers))?
            .flatten()
        {
            let name = entry.file_name();
            let digest = name
                .to_str()
                .map(|n| format!("sha256:{n}").parse::<Digest>());
            if !matches!(digest, Some(Ok(_))) {
                leftovers.push(entry.path());
            }
        }
        for path in leftovers {
            if options.repair {
                remove_path(&path).map_err(StoreError::io("remove", &path))?;
            }
            checked.problems.push(Problem::Leftover(path));
        }
        Ok(())
    }

    /// Records and containers that name something missing or damaged; with repair, the removal.
    fn check_records(
        &self,
        options: CheckOptions,
        checked: &mut Checked,
        bad: &BTreeSet<Digest>,
    ) -> Result<(), ImageError> {
        let lease = self.lease()?;
        let held = self.removing()?;
        let (records, unreadable) = self.records()?;
        for error in unreadable {
            if let (true, Some(path)) = (options.repair, error.record()) {
                remove_path(path).map_err(StoreError::io("remove", path))?;
            }
            checked.problems.push(Problem::Record(error));
        }
        let mut used = BTreeSet::new();
        for (container, snapshot) in self.snapshots()? {
            for diff_id in snapshot.layers {
                if !self.has_layer(&diff_id) {
                    let container = container.clone();
                    checked.problems.push(Problem::Container {
                        container,
                        diff_id: diff_id.clone(),
                    });
                }
                used.insert(diff_id);
            }
        }
        for (path, record) in records {
            checked.images += 1;
            let lacks = self.lacks(&record, bad);
            if lacks.is_empty() {
                continue;
            }
            for what in lacks {
                let image = record.name();
                checked.problems.push(Problem::Lacks { image, what });
            }
            if options.repair {
                remove_path(&path).map_err(StoreError::io("remove", &path))?;
                checked.refetch.push(record);
            }
        }
        self.check_lists(options, checked, bad, &lease)?;
        if !options.repair {
            return Ok(());
        }
        let mut places = Vec::new();
        for digest in bad.iter().filter(|d| !used.contains(d)) {
            for path in [self.layer_path(digest), self.blob_path(digest)] {
                let place = lease.temporary();
                match std::fs::rename(&path, &place) {
                    Ok(()) => places.push(place),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(StoreError::io("remove", path)(e).into()),
                }
            }
        }
        drop(held);
        for directory in ["images", "layers", "blobs/sha256"] {
            sync_directory(&self.path(directory))?;
        }
        for place in places {
            remove_path(&place).map_err(StoreError::io("remove", place))?;
        }
        Ok(())
    }

    /// Lists that name something missing or damaged; with repair they name it no more.
    fn check_lists(
        &self,
        options: CheckOptions,
        checked: &mut Checked,
        bad: &BTreeSet<Digest>,
        lease: &Lease,
    ) -> Result<(), ImageError> {
        let (lists, unreadable) = self.list_records()?;
        for error in unreadable {
            if let (true, Some(path)) = (options.repair, error.record()) {
                remove_path(path).map_err(StoreError::io("remove", path))?;
            }
            checked.problems.push(Problem::Record(error));
        }
        for (path, list) in lists {
            let mut lost = Vec::new();
            for record in list.images() {
                let lacks = self.lacks(record, bad);
                if !lacks.is_empty() {
                    lost.push(record.manifest.clone());
                }
                for what in lacks {
                    let list = list.name();
                    checked.problems.push(Problem::List { list, what });
                }
            }
            if options.repair && !lost.is_empty() {
                self.drop_members(lease, (path, list), &lost)?;
            }
        }
        Ok(())
    }

    /// What an image lacks, in words.
    fn lacks(&self, record: &ImageRecord, bad: &BTreeSet<Digest>) -> Vec<String> {
        let mut lacks = Vec::new();
        for digest in record.blobs() {
            if bad.contains(digest) || !self.has_blob(digest) {
                lacks.push(format!("document {digest}"));
            }
        }
        for diff_id in &record.layers {
            if bad.contains(diff_id) || !self.has_layer(diff_id) {
                lacks.push(format!("layer {diff_id}"));
            }
        }
        if lacks.is_empty() {
            let manifest = self.blob(&record.manifest).ok();
            let manifest = manifest.and_then(|b| parse::<Manifest>(&b).ok());
            if manifest.is_none_or(|m| m.config.digest != record.id) {
                lacks.push("a manifest that names its configuration".into());
            }
            match self.image_config(record) {
                Ok(config) if config.rootfs.diff_ids == record.layers => {}
                _ => lacks.push("a configuration that names its layers".into()),
            }
        }
        lacks
    }
}
