//! Image records: which image a reference names, and which layers and documents that image needs.

use crate::digesting::digest_of;
use crate::images::ImageError;
use crate::store::Store;
use carrack_spec::image::{self, Descriptor, Platform};
use carrack_spec::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Format of the records this build writes; another number is an error, never a guess.
const RECORD_VERSION: u32 = 2;

/// What the store knows of one image under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    version: u32,
    /// Full text of the reference; absent when the image has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the name points to: a manifest, or an index of manifests for several machines.
    pub target: Descriptor,
    /// Digest of the manifest that is here: the target, or the one chosen from it.
    pub manifest: Digest,
    /// Digest of the image configuration: the image's id.
    pub id: Digest,
    /// Diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of file contents in the layers.
    pub size: u64,
    /// When it was made, RFC 3339, as its configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The machine it is made for.
    pub platform: Platform,
    /// When it was loaded or pulled, seconds since the epoch.
    pub loaded: u64,
}

impl ImageRecord {
    /// A record that is about to be kept with [`Store::put_image`].
    pub fn new(
        reference: Option<&Reference>,
        target: Descriptor,
        manifest: Digest,
        id: Digest,
        config: &image::ImageConfig,
        size: u64,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            reference: reference.map(ToString::to_string),
            target,
            manifest,
            id,
            layers: config.rootfs.diff_ids.clone(),
            size,
            created: config.created.clone(),
            platform: Platform {
                architecture: config.architecture.clone(),
                os: config.os.clone(),
                variant: config.variant.clone(),
                ..Platform::default()
            },
            loaded: now(),
        }
    }

    /// The name to show: the reference without the defaults, or the id.
    pub fn name(&self) -> String {
        match &self.reference {
            Some(reference) => familiar(reference),
            None => self.id.to_string(),
        }
    }

    /// The documents it needs.
    pub(crate) fn blobs(&self) -> [&Digest; 3] {
        [&self.target.digest, &self.manifest, &self.id]
    }

    /// The record under another name, or none.
    pub(crate) fn renamed(&self, reference: Option<&Reference>) -> Self {
        Self {
            reference: reference.map(ToString::to_string),
            ..self.clone()
        }
    }
}

/// A reference without the defaults.
pub(crate) fn familiar(reference: &str) -> String {
    match reference.parse::<Reference>() {
        Ok(r) => match r.tag() {
            Some(tag) => format!("{}:{tag}", r.familiar_name()),
            None => r.familiar_name(),
        },
        Err(_) => reference.to_owned(),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}

/// A record and the file it is in.
pub(crate) type Found = (PathBuf, ImageRecord);

impl Store {
    /// Where the record of this name, or of an image without a name, is.
    pub(crate) fn record_path(&self, record: &ImageRecord) -> PathBuf {
        let id = || record.id.to_string();
        let key = record.reference.clone().unwrap_or_else(id);
        self.path("images")
            .join(digest_of(key.as_bytes()).hex())
            .with_extension("json")
    }
}

/// The record in the file at `path`, which has these bytes.
pub(super) fn parse(path: PathBuf, bytes: &[u8]) -> Result<Found, ImageError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match image::parse::<ImageRecord>(bytes) {
        Ok(record) if record.version == RECORD_VERSION => Ok((path, record)),
        Ok(ImageRecord { version, .. }) => Err(ImageError::Version { path, version }),
        Err(error) => match image::parse::<Version>(bytes) {
            Ok(Version { version }) if version != RECORD_VERSION => {
                Err(ImageError::Version { path, version })
            }
            _ => Err(ImageError::Record {
                path,
                source: error,
            }),
        },
    }
}
