//! `pull`: from a name, or from files, to an image in the store.
//!
//! 1. What the name may mean: a full reference, an alias, or a short name in several registries.
//! 2. What the registry has under it. When the store has just that, with all its layers, nothing is fetched.
//! 3. Index, manifest and configuration, verified, into the store.
//! 4. The layers that are missing, several at once, unpacked while they come.
//! 5. The image record, last: a name is never seen before everything behind it is there and durable.
//!
//! Whatever fails leaves complete layers for the next try, and nothing under the name.

use crate::images::transport::{self, Place, RegistrySource, Source};
use crate::images::{Access, ImagesError, TransferEvent};
use crate::{Engine, EngineError};
use carrack_registry::{Document, DocumentKind, Repository, Which};
use carrack_spec::image::{self, ImageConfig, LAYERS_MAX, Manifest, Platform, media_type};
use carrack_spec::{Digest, Reference};
use carrack_store::{
    BlobError, ImageError, ImageRecord, Ingested, LayerError, LayerSource, Lease, Progress,
};
use std::collections::BTreeMap;

/// Deepest nesting of indexes that is followed.
pub(super) const INDEX_DEPTH_MAX: u32 = 4;

/// What to pull, besides the name.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The machine that the image is for; this one when absent.
    pub platform: Option<Platform>,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its record.
    pub record: ImageRecord,
    /// The name that it has now.
    pub reference: Option<Reference>,
    /// Everything was there before.
    pub up_to_date: bool,
    /// The host that the documents came from, when it was a mirror.
    pub mirror: Option<String>,
}

impl Engine {
    /// Brings an image into the store. `typed` is what a person types: `debian`, `host:5000/a/b:tag`,
    /// `name@sha256:…`, or a place with its transport (`oci:DIR:REF`).
    ///
    /// # Errors
    /// [`ImagesError`] says which registry, which document or which layer.
    pub fn pull(
        &self,
        access: &Access,
        typed: &str,
        options: &PullOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pulled, EngineError> {
        let place: Place = typed.parse().map_err(ImagesError::from)?;
        let Place::Registry(name) = &place else {
            let source = transport::source(&place, access, self.store())?;
            let lease = self.store().lease()?;
            return Ok(self.take_in(&lease, &*source, options, tell)?);
        };
        Ok(in_turn(access, name, |reference| {
            tell(TransferEvent::Asking(reference.clone()));
            self.pull_reference(access, reference, options, tell)
        })?)
    }

    fn pull_reference(
        &self,
        access: &Access,
        reference: &Reference,
        options: &PullOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pulled, ImagesError> {
        let source = RegistrySource::new(access, reference.clone())?;
        let repository = source.repository();
        let host = options.platform.clone().unwrap_or_else(Platform::native);
        let lease = self.store().lease()?;
        if let Some(record) = self.same_image(&lease, repository, reference, &host)? {
            return Ok(Pulled {
                record,
                reference: Some(reference.clone()),
                up_to_date: true,
                mirror: mirror_of(repository),
            });
        }
        let pulled = self.take_in(&lease, &source, options, tell)?;
        let mirror = mirror_of(repository);
        Ok(Pulled { mirror, ..pulled })
    }

    /// Brings an image in from anywhere.
    fn take_in(
        &self,
        lease: &Lease,
        source: &dyn Source,
        options: &PullOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pulled, ImagesError> {
        let host = options.platform.clone().unwrap_or_else(Platform::native);
        let reference = source.reference();
        let target = source.target()?;
        let chosen = chosen(source, &target, &host)?;
        let manifest = chosen.manifest()?;
        if !is_image_config(&manifest.config.media_type) {
            return Err(ImagesError::Artifact {
                name: reference.map_or("the image".to_owned(), |r| r.to_string()),
                media_type: manifest.config.media_type,
            });
        }
        let config_bytes = match self.store().blob(&manifest.config.digest) {
            Ok(bytes) => bytes,
            Err(_) => transport::small(source, &manifest.config)?,
        };
        let config = parse_config(&manifest, &config_bytes)?;
        let documents = [
            (target.digest(), target.bytes()),
            (chosen.digest(), chosen.bytes()),
            (&manifest.config.digest, &config_bytes),
        ];
        for (digest, bytes) in documents {
            self.store().put_blob(lease, digest, bytes)?;
        }
        tell(TransferEvent::Layers(manifest.layers.clone()));
        let layers = fetch_layers(lease, source, &manifest, &config, tell)?;
        let up_to_date = layers.iter().all(|layer| layer.blob.is_none());
        // A layer may stand twice in an image.
        let distinct: BTreeMap<&Digest, u64> =
            layers.iter().map(|l| (&l.diff_id, l.info.bytes)).collect();
        let record = ImageRecord::new(
            reference.as_ref(),
            target.descriptor(),
            chosen.digest().clone(),
            manifest.config.digest.clone(),
            &config,
            distinct.values().sum(),
        );
        self.store().put_image(lease, &record)?;
        Ok(Pulled {
            record,
            reference,
            up_to_date,
            mirror: None,
        })
    }

    /// Whether the image in the store is what a pull for this machine would take.
    fn is_for(&self, record: &ImageRecord, host: &Platform) -> bool {
        match self.target(record) {
            Ok(target) if target.kind() == DocumentKind::Index => target
                .choose(host)
                .is_ok_and(|chosen| chosen.digest == record.manifest),
            // There is only this one.
            found => found.is_ok(),
        }
    }

    /// The image as it is in the store, when the registry has just that under the name.
    fn same_image(
        &self,
        lease: &Lease,
        repository: &Repository,
        reference: &Reference,
        host: &Platform,
    ) -> Result<Option<ImageRecord>, ImagesError> {
        let full = reference.to_string();
        let Ok(record) = self.store().find_image(&full) else {
            return Ok(None);
        };
        if record.reference.as_ref() != Some(&full) || !self.is_for(&record, host) {
            return Ok(None);
        }
        let there = match reference.digest() {
            Some(digest) => *digest == record.target.digest,
            None => repository.resolve(which(reference))?.digest == record.target.digest,
        };
        if !there {
            return Ok(None);
        }
        match lease.protect_image(&record) {
            Ok(()) => Ok(Some(record)),
            Err(
                ImageError::Blob(BlobError::Missing(_)) | ImageError::Layer(LayerError::Missing(_)),
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Does something with each reference that a name may mean, until one of the registries has it.
pub(super) fn in_turn<T>(
    access: &Access,
    name: &str,
    mut act: impl FnMut(&Reference) -> Result<T, ImagesError>,
) -> Result<T, ImagesError> {
    let config = access.client().config();
    let candidates = config
        .candidates(name)
        .map_err(|source| ImagesError::Name {
            name: name.to_owned(),
            source,
        })?;
    let mut tried = Vec::new();
    let many = candidates.references.len() > 1;
    for reference in candidates.references {
        match act(&reference) {
            // The next registry is asked only when this one does not have it.
            Err(ImagesError::Registry(error)) if many && passes_on(&error) => {
                tried.push(format!("{}: {error}", reference.host()));
            }
            other => return other,
        }
    }
    Err(ImagesError::Nowhere {
        name: name.to_owned(),
        tried: tried.join("; "),
    })
}

/// The manifest for a machine.
pub(super) fn chosen(
    source: &dyn Source,
    target: &Document,
    host: &Platform,
) -> Result<Document, ImagesError> {
    let mut document = target.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        if document.kind() == DocumentKind::Manifest {
            return Ok(document);
        }
        document = source.manifest(&document.choose(host)?)?;
    }
    Err(ImagesError::TooMany(target.digest().to_string()))
}

pub(super) fn which(reference: &Reference) -> Which<'_> {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Which::Digest(digest),
        (None, tag) => Which::Tag(tag.unwrap_or(carrack_spec::DEFAULT_TAG)),
    }
}

fn parse_config(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig, ImagesError> {
    let config: ImageConfig = image::parse(bytes).map_err(|source| ImagesError::Document {
        digest: manifest.config.digest.clone(),
        source,
    })?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    match layers == diff_ids && layers <= LAYERS_MAX {
        true => Ok(config),
        false => Err(ImagesError::LayerCount { layers, diff_ids }),
    }
}

fn fetch_layers(
    lease: &Lease,
    source: &dyn Source,
    manifest: &Manifest,
    config: &ImageConfig,
    tell: &(dyn Fn(TransferEvent) + Sync),
) -> Result<Vec<Ingested>, ImagesError> {
    let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
    let sources: Vec<LayerSource> = pairs
        .map(|(blob, diff_id)| LayerSource {
            diff_id: Some(diff_id.clone()),
            blob: Some(blob.clone()),
        })
        .collect();
    let open = |n: usize| {
        let descriptor = manifest.layers.get(n).ok_or(std::io::ErrorKind::NotFound)?;
        source.blob(descriptor, 0).map_err(std::io::Error::other)
    };
    let progress = |n, progress: Progress| tell(TransferEvent::Layer(n, progress.into()));
    Ok(lease.store().ingest_all(lease, &sources, open, progress)?)
}

/// Manifests of things that are no images (charts, signatures) have other configurations. Old tools
/// leave the type out.
pub(super) fn is_image_config(kind: &str) -> bool {
    matches!(
        kind,
        "" | media_type::CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream"
    )
}

/// Whether a short name may be looked for in the next registry.
fn passes_on(error: &carrack_registry::Error) -> bool {
    use carrack_registry::ErrorKind::{NotFound, Unauthorized, Unavailable};
    matches!(error.kind(), NotFound | Unauthorized | Unavailable)
}

fn mirror_of(repository: &Repository) -> Option<String> {
    let endpoint = repository.served_by().filter(|e| e.mirror)?;
    Some(endpoint.host.clone())
}
