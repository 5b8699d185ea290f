//! Layers in their places: what the store knows of each.
//!
//! ```text
//! layers/HEX/       by diff id; appears by one rename, complete and durable
//!   info.json       [`LayerInfo`]
//!   forms.json      the compressed forms known of it, as descriptors
//!   recipe          how its tar stream is made again
//!   …               what the driver keeps
//! ```

use crate::driver::DriverError;
use crate::durable;
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use carrack_spec::Digest;
use carrack_spec::image::{self, Descriptor};
use carrack_spec::runtime::ParseError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Format of `info.json`; another number is an error, never a guess.
const INFO_VERSION: u32 = 2;
/// Most compressed forms that are remembered of a layer; the oldest is forgotten.
const FORMS_MAX: usize = 16;

/// A layer that cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream cannot be read or decompressed.
    #[error("cannot read the layer {0}")]
    Read(String, #[source] std::io::Error),
    /// The stream is not a layer that can be unpacked.
    #[error("cannot unpack the layer {0}")]
    Unpack(String, #[source] DriverError),
    /// The bytes are not those that the manifest names.
    #[error(
        "the layer blob {wanted} has the digest {found}; the source is damaged, fetch it again"
    )]
    Blob {
        /// From the manifest.
        wanted: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The manifest names another size.
    #[error("the layer blob {digest} has {found} bytes, its manifest says {wanted}")]
    Size {
        /// The blob.
        digest: Digest,
        /// From the manifest.
        wanted: u64,
        /// Of the bytes.
        found: u64,
    },
    /// The uncompressed bytes are not those that the image configuration names.
    #[error("the layer {wanted} has the diff id {found} when unpacked; the image is damaged")]
    DiffId {
        /// From the image configuration.
        wanted: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The tar stream cannot be made again, or not handed on.
    #[error("cannot make the archive of layer {0} again; see `carrack system check`")]
    Export(Digest, #[source] std::io::Error),
    /// The store has no such layer.
    #[error("layer {0} is missing from the store; load or pull the image again")]
    Missing(Digest),
    /// A document of the layer is damaged.
    #[error("{path} is damaged; see `carrack system check`")]
    Document {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is worth knowing of a layer without a walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    version: u32,
    /// The driver that keeps it.
    pub driver: String,
    /// Entries of its archive.
    pub entries: u64,
    /// Bytes of file contents in its archive.
    pub bytes: u64,
    /// Bytes of its archive, uncompressed.
    pub archive: u64,
}

impl LayerInfo {
    pub(crate) fn new(driver: &str, entries: u64, bytes: u64, archive: u64) -> Self {
        Self {
            version: INFO_VERSION,
            driver: driver.to_owned(),
            entries,
            bytes,
            archive,
        }
    }

    /// Writes `info.json` into an unfinished layer.
    pub(crate) fn write(&self, at: &Path) -> Result<(), StoreError> {
        write_json(&at.join("info.json"), self)
    }
}

/// Writes `forms.json` into an unfinished layer.
pub(crate) fn write_forms(at: &Path, forms: &[Descriptor]) -> Result<(), StoreError> {
    write_json(&at.join("forms.json"), forms)
}

fn write_json<T: Serialize + ?Sized>(path: &Path, document: &T) -> Result<(), StoreError> {
    serde_json::to_vec(document)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(path, text))
        .map_err(StoreError::io("write", path))
}

impl Store {
    /// Directory of a layer, whether it is there or not.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.hex())
    }

    /// True when the layer is there; then it is complete. Only a lease keeps it there.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_path(diff_id).join("info.json").is_file()
    }

    /// What the store knows of a layer.
    ///
    /// # Errors
    /// [`LayerError::Missing`], and damage.
    pub fn layer_info(&self, diff_id: &Digest) -> Result<LayerInfo, LayerError> {
        let path = self.layer_path(diff_id).join("info.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(LayerError::Missing(diff_id.clone()));
            }
            Err(e) => return Err(StoreError::io("read", path)(e).into()),
        };
        image::parse(&bytes).map_err(|source| LayerError::Document { path, source })
    }

    /// The compressed forms known of a layer: what a registry may have of it.
    pub fn layer_forms(&self, diff_id: &Digest) -> Vec<Descriptor> {
        let path = self.layer_path(diff_id).join("forms.json");
        let bytes = std::fs::read(path).unwrap_or_default();
        image::parse(&bytes).unwrap_or_default()
    }

    /// Remembers a compressed form of a layer. The last one remembered comes first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add_layer_form(
        &self,
        lease: &Lease,
        diff_id: &Digest,
        form: &Descriptor,
    ) -> Result<(), LayerError> {
        let mut forms = self.layer_forms(diff_id);
        forms.retain(|f| f.digest != form.digest);
        forms.insert(0, form.clone());
        forms.truncate(FORMS_MAX);
        let path = self.layer_path(diff_id).join("forms.json");
        let text =
            serde_json::to_vec(&forms).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        Ok(durable::write(&lease.temporary(), &path, &text)?)
    }

    /// The layer whose compressed form has this digest.
    pub fn layer_of_blob(&self, digest: &Digest) -> Option<Digest> {
        self.layer_ids().ok()?.into_iter().find(|diff_id| {
            let forms = self.layer_forms(diff_id);
            forms.iter().any(|form| form.digest == *digest)
        })
    }

    /// All layers, in no order.
    pub(crate) fn layer_ids(&self) -> Result<Vec<Digest>, StoreError> {
        let directory = self.path("layers");
        let entries = std::fs::read_dir(&directory).map_err(StoreError::io("list", &directory))?;
        Ok(entries
            .flatten()
            .filter_map(|e| format!("sha256:{}", e.file_name().to_str()?).parse().ok())
            .collect())
    }
}
