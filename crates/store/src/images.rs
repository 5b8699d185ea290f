//! Image records: which image a reference names, and which layers and blobs that image needs.
//!
//! One small JSON file a reference, replaced by rename. An image loaded without a name has one record
//! named by its id. The id of an image is the digest of its configuration.

use crate::blobs::BlobError;
use crate::digesting::digest_of;
use crate::store::{Exclusive, Shared, Store, StoreError, remove_path, write_durably};
use carrack_spec::image::{self, ImageConfig};
use carrack_spec::runtime::ParseError;
use carrack_spec::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Format of the records this build writes; another number is an error, never a guess.
const RECORD_VERSION: u32 = 1;
/// Shortest prefix of an image id that is taken for one.
const ID_PREFIX_MIN: usize = 4;
/// Prefix under which names without a host are also looked for.
const LOCAL_HOST: &str = "localhost";

/// What the store knows of one image under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    version: u32,
    /// Full text of the reference; absent when the image has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest of the image configuration: the image's id.
    pub id: Digest,
    /// Digest of the manifest, when the image came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of file contents in the layers.
    pub size: u64,
    /// When it was loaded, seconds since the epoch.
    pub loaded: u64,
}

/// An image that cannot be found, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No record for the name.
    #[error(
        "no image {0:?} in the store; see `carrack images`, or bring it in with `carrack load -i FILE`"
    )]
    NotFound(String),
    /// An id prefix that more than one image has.
    #[error("the id {0:?} is not unique; type more of it")]
    Ambiguous(String),
    /// A container needs the image.
    #[error("image {name:?} is used by container {container}; remove the container first")]
    InUse {
        /// The image.
        name: String,
        /// Who uses it.
        container: String,
    },
    /// A record has another version than this build knows.
    #[error(
        "{path} is an image record of version {version}; this build knows version {RECORD_VERSION}"
    )]
    Version {
        /// The record.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// A record or configuration is damaged.
    #[error("{what} is damaged")]
    Damaged {
        /// Which document.
        what: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// A blob is missing or damaged.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageRecord {
    pub(crate) fn new(
        reference: Option<&Reference>,
        id: Digest,
        manifest: Option<Digest>,
        layers: Vec<Digest>,
        size: u64,
    ) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            version: RECORD_VERSION,
            reference: reference.map(ToString::to_string),
            id,
            manifest,
            layers,
            size,
            loaded: now.map_or(0, |d| d.as_secs()),
        }
    }

    /// The name to show: the reference without the defaults, or the id.
    pub fn name(&self) -> String {
        let parsed = self
            .reference
            .as_ref()
            .and_then(|r| r.parse::<Reference>().ok());
        match parsed {
            Some(r) => match r.tag() {
                Some(tag) => format!("{}:{tag}", r.familiar_name()),
                None => r.familiar_name(),
            },
            None => self.id.to_string(),
        }
    }
}

impl Store {
    /// All image records, in no order; one that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// [`ImageError`] for a record that cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>, ImageError> {
        Ok(self
            .image_files()?
            .into_iter()
            .map(|(_, record)| record)
            .collect())
    }

    /// Finds an image by reference, by `localhost/` and the reference, or by its id or a prefix of it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], and damage.
    pub fn find_image(&self, name: &str) -> Result<ImageRecord, ImageError> {
        self.find_image_file(name).map(|(_, record)| record)
    }

    /// The configuration of an image, verified.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn image_config(&self, record: &ImageRecord) -> Result<ImageConfig, ImageError> {
        let bytes = self.blob(&record.id)?;
        image::parse(&bytes).map_err(|source| ImageError::Damaged {
            what: format!("the configuration of image {}", record.name()),
            source,
        })
    }

    /// Removes one name, and with the last name of an image what nothing else needs. Returns the
    /// removed record.
    ///
    /// # Errors
    /// [`ImageError::InUse`] when it is the last name and a container uses the image.
    pub fn remove_image(&self, held: &Exclusive, name: &str) -> Result<ImageRecord, ImageError> {
        let (path, record) = self.find_image_file(name)?;
        let others = self.image_files()?.into_iter().filter(|(p, _)| *p != path);
        let last = !others.map(|(_, r)| r.id).any(|id| id == record.id);
        if last {
            for (id, disk) in self.container_records()? {
                if disk.image == record.id {
                    return Err(ImageError::InUse {
                        name: record.name(),
                        container: id,
                    });
                }
            }
        }
        std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        self.collect_garbage(held)?;
        Ok(record)
    }

    /// Removes blobs and layers that no image and no container needs.
    ///
    /// # Errors
    /// A record cannot be read (nothing is removed then), or a file cannot be removed.
    pub fn collect_garbage(&self, _held: &Exclusive) -> Result<(), ImageError> {
        let mut keep = BTreeSet::new();
        for record in self.images()? {
            keep.insert(record.id);
            keep.extend(record.manifest);
            keep.extend(record.layers);
        }
        for (_, disk) in self.container_records()? {
            keep.insert(disk.image);
            keep.extend(disk.layers);
        }
        let keep: BTreeSet<&str> = keep.iter().map(Digest::hex).collect();
        for directory in ["blobs/sha256", "layers"] {
            let directory = self.path(directory);
            let entries =
                std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
            for entry in entries.flatten() {
                if entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| keep.contains(name))
                {
                    continue;
                }
                remove_path(&entry.path()).map_err(StoreError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }

    pub(crate) fn put_image(&self, held: &Shared, record: &ImageRecord) -> Result<(), StoreError> {
        let key = record
            .reference
            .clone()
            .unwrap_or_else(|| record.id.to_string());
        let path = self
            .path("images")
            .join(digest_of(key.as_bytes()).hex())
            .with_extension("json");
        let text =
            serde_json::to_vec(record).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        write_durably(self.temporary(held), &path, &text)
    }

    fn image_files(&self) -> Result<Vec<(PathBuf, ImageRecord)>, ImageError> {
        let directory = self.path("images");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &directory))?.path();
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(StoreError::io("read", path)(e).into()),
            };
            let record: ImageRecord =
                image::parse(&bytes).map_err(|source| ImageError::Damaged {
                    what: path.display().to_string(),
                    source,
                })?;
            if record.version != RECORD_VERSION {
                return Err(ImageError::Version {
                    path,
                    version: record.version,
                });
            }
            found.push((path, record));
        }
        Ok(found)
    }

    fn find_image_file(&self, name: &str) -> Result<(PathBuf, ImageRecord), ImageError> {
        let files = self.image_files()?;
        let by_reference = |text: &str| {
            let wanted = text.parse::<Reference>().ok()?.to_string();
            files
                .iter()
                .find(|(_, r)| r.reference.as_deref() == Some(&wanted))
        };
        if let Some(found) =
            by_reference(name).or_else(|| by_reference(&format!("{LOCAL_HOST}/{name}")))
        {
            return Ok(found.clone());
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.len() < ID_PREFIX_MIN {
            return Err(ImageError::NotFound(name.to_owned()));
        }
        let mut hits = files.iter().filter(|(_, r)| r.id.hex().starts_with(prefix));
        let first = hits
            .next()
            .ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        match hits.all(|(_, r)| r.id == first.1.id) {
            true => Ok(first.clone()),
            false => Err(ImageError::Ambiguous(name.to_owned())),
        }
    }
}
