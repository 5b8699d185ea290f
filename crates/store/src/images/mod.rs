//! Images by name: records that are put, found, given other names and removed.
//!
//! One small JSON file a reference (`images/HEX.json`, named by the sha256 of the reference), replaced by
//! rename. An image without a name has one record named by its id, the digest of its configuration. A
//! record is written last, so whatever it names is in the store.

mod record;
mod records;

use crate::blobs::BlobError;
use crate::durable;
use crate::gc::Reclaimed;
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::lists::LIST_MEMBERS_MAX;
use crate::store::{Store, StoreError};
use carrack_spec::image::{self, ImageConfig, Manifest};
use carrack_spec::runtime::ParseError;
use carrack_spec::{Digest, Reference};
pub use record::ImageRecord;
pub(crate) use record::{Found, familiar, now};
use std::path::PathBuf;

/// Shortest prefix of an image id that is taken for one.
const ID_PREFIX_MIN: usize = 4;
/// Prefix under which names without a host are also looked for.
const LOCAL_HOST: &str = "localhost";

/// An image that cannot be found, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No record for the name.
    #[error(
        "no image {0:?} in the store; see `carrack images`, or bring it in with `carrack pull` or `carrack load -i FILE`"
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
    /// An id whose image has several names.
    #[error("image {id} has {names} names; remove them by name, or all of them with --force")]
    SeveralNames {
        /// The image.
        id: String,
        /// How many.
        names: usize,
    },
    /// No manifest list has the name.
    #[error(
        "no manifest list {0:?} in the store; see `carrack manifest ls`, or make it with `carrack manifest create`"
    )]
    NoList(String),
    /// The name of a new manifest list is taken.
    #[error(
        "there is a manifest list {0:?} already; go on with it with --amend, or remove it with `carrack manifest rm {0}`"
    )]
    ListExists(String),
    /// A list with too many images.
    #[error("the manifest list {0:?} would have more than {LIST_MEMBERS_MAX} images")]
    ListFull(String),
    /// A manifest list does not name the image.
    #[error(
        "the manifest list {list:?} has no image {image:?}; see `carrack manifest inspect {list}`"
    )]
    NoMember {
        /// The list.
        list: String,
        /// As typed.
        image: String,
    },
    /// A manifest list names several images that were added under one name.
    #[error(
        "the manifest list {list:?} has several images that were added as {image:?}; name one by its digest"
    )]
    SeveralMembers {
        /// The list.
        list: String,
        /// As typed.
        image: String,
    },
    /// A record has another version than this build knows.
    #[error("{path} is a record of version {version}, which this build does not know")]
    Version {
        /// The record.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// A record is damaged.
    #[error("{path} is damaged; see `carrack system check`")]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// A manifest or configuration is damaged.
    #[error("{what} is damaged; see `carrack system check`")]
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
    /// A layer is missing or damaged.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    /// The record that is damaged. One of another version is not: some other build can read it.
    pub(crate) fn record(&self) -> Option<&std::path::Path> {
        match self {
            Self::Record { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// What the removal of an image did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The records that are gone.
    pub records: Vec<ImageRecord>,
    /// True when no name of the image is left.
    pub last: bool,
    /// What nothing else needed.
    pub reclaimed: Reclaimed,
}

impl Store {
    /// All image records, in no order. One that is damaged is left out with a warning.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn images(&self) -> Result<Vec<ImageRecord>, ImageError> {
        Ok(self
            .found()?
            .into_iter()
            .map(|(_, record)| record)
            .collect())
    }

    /// Finds an image by reference, by `localhost/` and the reference, by repository and digest, or by
    /// its id or a prefix of it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`].
    pub fn find_image(&self, name: &str) -> Result<ImageRecord, ImageError> {
        self.find_image_by(name).map(|(record, _)| record)
    }

    pub(crate) fn find_image_by(&self, name: &str) -> Result<(ImageRecord, By), ImageError> {
        let records = self.found()?;
        find(&records, name).map(|((_, record), by)| (record.clone(), by))
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

    /// The manifest of an image, verified.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn image_manifest(&self, record: &ImageRecord) -> Result<Manifest, ImageError> {
        let bytes = self.blob(&record.manifest)?;
        image::parse(&bytes).map_err(|source| ImageError::Damaged {
            what: format!("the manifest of image {}", record.name()),
            source,
        })
    }

    /// Keeps a record. Its documents and layers must be protected by `lease`. An image that loses its
    /// last name by this stays, without a name.
    ///
    /// # Errors
    /// Something that the record names is missing, or the record cannot be written.
    pub fn put_image(&self, lease: &Lease, record: &ImageRecord) -> Result<(), ImageError> {
        lease.protect_image(record)?;
        self.driver()
            .prepare(lease, &record.layers)
            .map_err(|e| LayerError::Unpack(record.name(), e))?;
        // Whoever looks for what nothing needs must see the names before this or after it.
        let _held = self.removing()?;
        let records = self.found()?;
        let path = self.record_path(record);
        let before = records.iter().find(|(p, _)| *p == path);
        if let Some((_, before)) = before.filter(|(_, b)| b.id != record.id) {
            let names = records.iter().filter(|(_, r)| r.id == before.id).count();
            if names == 1 {
                self.write_record(lease, &before.renamed(None))?;
            }
        }
        self.write_record(lease, record)?;
        lease.named(&record.blobs());
        let unnamed = self.record_path(&record.renamed(None));
        if record.reference.is_some() && unnamed.exists() {
            durable::remove_path(&unnamed).map_err(StoreError::io("remove", &unnamed))?;
        }
        Ok(())
    }

    /// Gives an image another name; an image that had the name before loses it.
    ///
    /// # Errors
    /// As [`Store::find_image`] and [`Store::put_image`].
    pub fn tag_image(&self, image: &str, name: &Reference) -> Result<ImageRecord, ImageError> {
        let lease = self.lease()?;
        let record = self.find_image(image)?.renamed(Some(name));
        self.put_image(&lease, &record)?;
        Ok(record)
    }

    /// Takes a name from an image; the image stays, without a name when it was the last.
    ///
    /// # Errors
    /// As [`Store::find_image`]; nothing but a name will do.
    pub fn untag_image(&self, name: &str) -> Result<ImageRecord, ImageError> {
        let lease = self.lease()?;
        let _held = self.removing()?;
        let records = self.found()?;
        let ((path, record), By::Name) = find(&records, name)? else {
            return Err(ImageError::NotFound(name.to_owned()));
        };
        if records.iter().filter(|(_, r)| r.id == record.id).count() == 1 {
            self.write_record(&lease, &record.renamed(None))?;
        }
        durable::remove_path(path).map_err(StoreError::io("remove", path))?;
        Ok(record.clone())
    }

    /// Removes one name, and with the last name of an image what nothing else needs. An id removes the
    /// image: if it has several names only with `force`. With `force` also an image that containers
    /// use; what they need of it stays until they are gone.
    ///
    /// # Errors
    /// [`ImageError::InUse`], [`ImageError::SeveralNames`].
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, ImageError> {
        self.sweep();
        let lease = self.lease()?;
        let held = self.removing()?;
        let records = self.found()?;
        let (found, by) = find(&records, name)?;
        let id = &found.1.id;
        let same: Vec<&Found> = records.iter().filter(|(_, r)| r.id == *id).collect();
        let gone = match by {
            By::Name => vec![found],
            By::Id if same.len() > 1 && !force => {
                return Err(ImageError::SeveralNames {
                    id: id.short().to_owned(),
                    names: same.len(),
                });
            }
            By::Id => same.clone(),
        };
        let last = gone.len() == same.len();
        let user = self.snapshots()?.into_iter().find(|(_, s)| s.image == *id);
        if let Some((container, _)) = user.filter(|_| last && !force) {
            return Err(ImageError::InUse {
                name: found.1.name(),
                container,
            });
        }
        for (path, _) in &gone {
            durable::remove_path(path).map_err(StoreError::io("remove", path))?;
        }
        let records = gone.into_iter().map(|(_, record)| record.clone()).collect();
        let trash = match last {
            true => Some(self.take_unreachable(&lease, &held)?),
            false => None,
        };
        drop(held);
        durable::sync_directory(&self.path("images"))?;
        Ok(Removed {
            records,
            last,
            reclaimed: trash.map_or(Ok(Reclaimed::default()), crate::gc::Trash::empty)?,
        })
    }

    fn write_record(&self, lease: &Lease, record: &ImageRecord) -> Result<(), StoreError> {
        let path = self.record_path(record);
        let text =
            serde_json::to_vec(record).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        durable::write(&lease.temporary(), &path, &text)
    }

    fn found(&self) -> Result<Vec<Found>, StoreError> {
        let (found, bad) = self.records()?;
        for error in bad {
            log::warn!("left out an image: {error}");
        }
        Ok(found)
    }
}

impl Lease {
    /// Keeps the documents and layers of an image from being removed as long as the lease lives.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn protect_image(&self, record: &ImageRecord) -> Result<(), ImageError> {
        if let Some(missing) = self.protect_blobs(record.blobs())? {
            return Err(BlobError::Missing(missing.clone()).into());
        }
        match self.protect_layers(&record.layers)? {
            Some(missing) => Err(LayerError::Missing(missing.clone()).into()),
            None => Ok(()),
        }
    }
}

/// What an image was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Name,
    Id,
}

fn find<'a>(records: &'a [Found], name: &str) -> Result<(&'a Found, By), ImageError> {
    let by_reference = |text: &str| {
        let wanted = text.parse::<Reference>().ok()?;
        let full = wanted.to_string();
        let exact = records
            .iter()
            .find(|(_, r)| r.reference.as_deref() == Some(&full));
        exact.or_else(|| by_digest(records, &wanted))
    };
    if let Some(found) =
        by_reference(name).or_else(|| by_reference(&format!("{LOCAL_HOST}/{name}")))
    {
        return Ok((found, By::Name));
    }
    let not_found = || ImageError::NotFound(name.to_owned());
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if prefix.len() < ID_PREFIX_MIN {
        return Err(not_found());
    }
    let mut hits = records
        .iter()
        .filter(|(_, r)| r.id.hex().starts_with(prefix));
    let Some(first) = hits.next() else {
        let by_target = |r: &ImageRecord| {
            [&r.manifest, &r.target.digest]
                .iter()
                .any(|d| d.hex() == prefix)
        };
        let found = records.iter().find(|(_, r)| by_target(r));
        return found.map(|f| (f, By::Id)).ok_or_else(not_found);
    };
    match hits.all(|(_, r)| r.id == first.1.id) {
        true => Ok((first, By::Id)),
        false => Err(ImageError::Ambiguous(name.to_owned())),
    }
}

/// `NAME@DIGEST` for an image that was brought in by a tag of that repository.
fn by_digest<'a>(records: &'a [Found], wanted: &Reference) -> Option<&'a Found> {
    let digest: &Digest = wanted.digest()?;
    records.iter().find(|(_, r)| {
        let parsed = r
            .reference
            .as_ref()
            .and_then(|t| t.parse::<Reference>().ok());
        parsed.is_some_and(|p| p.familiar_name() == wanted.familiar_name())
            && (r.target.digest == *digest || r.manifest == *digest)
    })
}
