//! `pull`: from a name to an image in the store.
//!
//! 1. What the name may mean: a full reference, an alias, or a short name in several registries.
//! 2. What the registry has under it. When the store has just that, with all its layers, nothing is fetched.
//! 3. Index, manifest and configuration, verified, into the store.
//! 4. The layers that are missing, several at once, unpacked while they come.
//! 5. The image record, last: a name is never seen before everything behind it is there and durable.
//!
//! Whatever fails leaves complete layers for the next try, and nothing under the name.

use crate::images::layers::ingest;
use crate::images::{Access, ImagesError};
use crate::{Engine, EngineError};
use carrack_registry::{Document, DocumentKind, Repository, Which};
use carrack_spec::image::{
    self, DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, LAYERS_MAX, Manifest, Platform, media_type,
};
use carrack_spec::{Digest, Reference};
use carrack_store::{ImageRecord, Ingested, LayerSource, Lease, Progress, Store};
use std::collections::BTreeMap;
use std::io::Read;

/// What to pull, besides the name.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The machine that the image is for; this one when absent.
    pub platform: Option<Platform>,
}

/// How a pull gets on. Layers are named by their number from the bottom.
#[derive(Debug, Clone)]
pub enum PullEvent {
    /// A registry is asked for this reference.
    Asking(Reference),
    /// The manifest is there; these are the layers as they come over the network.
    Layers(Vec<Descriptor>),
    /// Something happened to a layer.
    Layer(usize, LayerEvent),
}

/// What happened to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEvent {
    /// Another pull fetches it just now; this one waits.
    Waiting,
    /// So many bytes have come.
    Read(u64),
    /// All bytes are unpacked; the disk is being flushed.
    Flushing,
    /// It is in the store; it was there before, or it came.
    Done {
        /// It was there before.
        existed: bool,
    },
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its record.
    pub record: ImageRecord,
    /// The reference that it was found under.
    pub reference: Reference,
    /// Everything was there before.
    pub up_to_date: bool,
    /// The host that the documents came from, when it was a mirror.
    pub mirror: Option<String>,
}

impl Engine {
    /// Brings an image into the store. `typed` is what a person types: `debian`, `host:5000/a/b:tag`,
    /// `name@sha256:…`; a transport `docker://` before it is accepted.
    ///
    /// # Errors
    /// [`ImagesError`] says which registry, which document or which layer.
    pub fn pull(
        &self,
        access: &Access,
        typed: &str,
        options: &PullOptions,
        tell: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Pulled, EngineError> {
        let name = typed.strip_prefix("docker://").unwrap_or(typed);
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
            tell(PullEvent::Asking(reference.clone()));
            match self.pull_reference(access, &reference, options, tell) {
                // The next registry is asked only when this one does not have it.
                Err(ImagesError::Registry(error)) if many && passes_on(&error) => {
                    tried.push(format!("{}: {error}", reference.host()));
                }
                other => return Ok(other?),
            }
        }
        Err(ImagesError::Nowhere {
            name: name.to_owned(),
            tried: tried.join("; "),
        }
        .into())
    }

    fn pull_reference(
        &self,
        access: &Access,
        reference: &Reference,
        options: &PullOptions,
        tell: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Pulled, ImagesError> {
        let repository = access.client().repository(reference)?;
        let host = options.platform.clone().unwrap_or_else(Platform::native);
        let lease = self.store().lease()?;
        if let Some(record) = self.same_image(&lease, &repository, reference, &host)? {
            return Ok(Pulled {
                record,
                reference: reference.clone(),
                up_to_date: true,
                mirror: mirror_of(&repository),
            });
        }
        let found = Found::fetch(&repository, reference, &host)?;
        let mirror = mirror_of(&repository);
        let manifest = found.manifest.manifest()?;
        if !is_image_config(&manifest.config.media_type) {
            return Err(ImagesError::Artifact {
                name: reference.to_string(),
                media_type: manifest.config.media_type,
            });
        }
        let config_bytes = document(self.store(), &repository, &manifest.config)?;
        let config = parse_config(&manifest, &config_bytes)?;
        let documents = [
            (found.target.digest(), found.target.bytes()),
            (found.manifest.digest(), found.manifest.bytes()),
            (&manifest.config.digest, &config_bytes),
        ];
        for (digest, bytes) in documents {
            self.store().put_blob(&lease, digest, bytes)?;
        }
        tell(PullEvent::Layers(manifest.layers.clone()));
        let layers = fetch_layers(&lease, &repository, &manifest, &config, tell)?;
        let up_to_date = layers.iter().all(|layer| layer.blob.is_none());
        // A layer may stand twice in an image.
        let distinct: BTreeMap<&Digest, u64> =
            layers.iter().map(|l| (&l.diff_id, l.info.bytes)).collect();
        let record = ImageRecord::new(
            Some(reference),
            found.target.descriptor(),
            found.manifest.digest().clone(),
            manifest.config.digest.clone(),
            &config,
            distinct.values().sum(),
        );
        self.store().put_image(&lease, &record)?;
        Ok(Pulled {
            record,
            reference: reference.clone(),
            up_to_date,
            mirror,
        })
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
        if record.reference.as_ref() != Some(&full) || !record.platform.runs_on(host) {
            return Ok(None);
        }
        let there = match reference.digest() {
            Some(digest) => *digest == record.target.digest,
            None => repository.resolve(which(reference))?.digest == record.target.digest,
        };
        if !there {
            return Ok(None);
        }
        for digest in [&record.target.digest, &record.manifest, &record.id] {
            if !lease.protect_blob(digest)? {
                return Ok(None);
            }
        }
        for layer in &record.layers {
            if !lease.protect_layer(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }
}

/// What a name points to, and the manifest that was chosen from it.
struct Found {
    target: Document,
    manifest: Document,
}

impl Found {
    fn fetch(
        repository: &Repository,
        reference: &Reference,
        host: &Platform,
    ) -> Result<Self, ImagesError> {
        let target = repository.manifest(which(reference))?;
        let manifest = match target.kind() {
            DocumentKind::Manifest => target.clone(),
            DocumentKind::Index => {
                let chosen = target.choose(host)?;
                repository.manifest(Which::Digest(&chosen.digest))?
            }
        };
        Ok(Self { target, manifest })
    }
}

fn which(reference: &Reference) -> Which<'_> {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Which::Digest(digest),
        (None, tag) => Which::Tag(tag.unwrap_or(carrack_spec::DEFAULT_TAG)),
    }
}

/// A small document of the image, from the store when it is there.
fn document(
    store: &Store,
    repository: &Repository,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, ImagesError> {
    if let Ok(bytes) = store.blob(&descriptor.digest) {
        return Ok(bytes);
    }
    let too_large = || carrack_store::BlobError::TooLarge(descriptor.digest.clone());
    if descriptor.size > DOCUMENT_BYTES_MAX as u64 {
        return Err(too_large().into());
    }
    let mut bytes = Vec::new();
    let read = repository
        .blob(descriptor)?
        .verified()
        .take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes);
    read.map_err(|source| carrack_store::BlobError::Read {
        digest: descriptor.digest.clone(),
        source,
    })?;
    Ok(bytes)
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
    repository: &Repository,
    manifest: &Manifest,
    config: &ImageConfig,
    tell: &(dyn Fn(PullEvent) + Sync),
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
        repository.blob(descriptor).map_err(std::io::Error::other)
    };
    let layer = |n, event| tell(PullEvent::Layer(n, event));
    ingest(
        lease,
        &sources,
        open,
        |n, progress| {
            layer(
                n,
                match progress {
                    Progress::Waiting => LayerEvent::Waiting,
                    Progress::Read(bytes) => LayerEvent::Read(bytes),
                    Progress::Flushing => LayerEvent::Flushing,
                },
            );
        },
        |n, ingested| {
            let existed = ingested.blob.is_none();
            layer(n, LayerEvent::Done { existed });
        },
    )
}

/// Manifests of things that are no images (charts, signatures) have other configurations. Old tools
/// leave the type out.
fn is_image_config(kind: &str) -> bool {
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
