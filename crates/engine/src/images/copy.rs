//! `image copy`: from one place to another, every byte as it is, nothing unpacked.
//!
//! Blobs first, several at once; then the manifests that an index names; the document that the name leads to
//! last. Digests are the same at both ends.

use crate::images::events::Telling;
use crate::images::pull::{INDEX_DEPTH_MAX, chosen};
use crate::images::transport::{self, Place, Sink, Source};
use crate::images::{Access, ImagesError, LayerEvent, TransferEvent};
use crate::{Engine, EngineError};
use carrack_registry::{Document, DocumentKind, Pushed};
use carrack_spec::Reference;
use carrack_spec::image::{Descriptor, Platform};
use carrack_store::{LIST_MEMBERS_MAX, several};
use std::collections::BTreeSet;

/// Most blobs that are copied at the same time.
pub(super) const BLOBS_AT_ONCE_MAX: usize = 4;

/// What of an image for several machines is copied.
#[derive(Debug, Clone, Default)]
pub enum Platforms {
    /// The manifest for this machine.
    #[default]
    Native,
    /// The manifest for that machine.
    One(Platform),
    /// The index and everything it names.
    All,
    /// The index alone; what it names must be there.
    IndexOnly,
}

/// How to copy.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// What of an image for several machines is copied.
    pub platforms: Platforms,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Digest of the document that the name leads to now.
    pub digest: carrack_spec::Digest,
    /// Manifests copied, indexes not counted.
    pub manifests: usize,
}

impl Engine {
    /// Copies an image; `from_access` and `to_access` are who we are to each side.
    ///
    /// # Errors
    /// [`ImagesError`]; the name at the other end leads to what it led to before.
    pub fn copy(
        &self,
        (from, from_access): (&Place, &Access),
        (to, to_access): (&Place, &Access),
        options: &CopyOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Copied, EngineError> {
        let source = transport::source(from, from_access, self.store())?;
        let mounts = mounts(&*source, to);
        let sink = transport::sink(to, to_access, self.store(), mounts)?;
        Ok(copy(&*source, sink, options, tell)?)
    }
}

/// The repository itself, where both ends are in one registry.
fn mounts(source: &dyn Source, to: &Place) -> Vec<String> {
    let (Some(from), Place::Registry(name)) = (source.reference(), to) else {
        return Vec::new();
    };
    let to = name.parse::<Reference>();
    let same = to.is_ok_and(|to| to.host() == from.host());
    same.then(|| from.path().to_owned()).into_iter().collect()
}

/// Copies from any source to any sink.
fn copy(
    source: &dyn Source,
    sink: Box<dyn Sink>,
    options: &CopyOptions,
    tell: &(dyn Fn(TransferEvent) + Sync),
) -> Result<Copied, ImagesError> {
    let mut target = source.target()?;
    let mut manifests = 0;
    match &options.platforms {
        Platforms::Native => target = chosen(source, &target, &Platform::native())?,
        Platforms::One(platform) => target = chosen(source, &target, platform)?,
        Platforms::All | Platforms::IndexOnly => {}
    }
    if !matches!(options.platforms, Platforms::IndexOnly) {
        manifests = below(source, &*sink, &target, 0, tell)?;
    }
    let digest = target.digest().clone();
    sink.finish(&target)?;
    Ok(Copied { digest, manifests })
}

/// Copies what a document needs, but not the document; how many manifests that were.
pub(super) fn below(
    source: &dyn Source,
    sink: &dyn Sink,
    document: &Document,
    depth: u32,
    tell: &(dyn Fn(TransferEvent) + Sync),
) -> Result<usize, ImagesError> {
    if document.kind() == DocumentKind::Manifest {
        blobs(source, sink, document, tell)?;
        return Ok(1);
    }
    let index = document.index()?;
    if depth >= INDEX_DEPTH_MAX || index.manifests.len() > LIST_MEMBERS_MAX {
        return Err(ImagesError::TooMany(document.digest().to_string()));
    }
    let mut manifests = 0;
    for descriptor in &index.manifests {
        tell(TransferEvent::Manifest(descriptor.clone()));
        let part = source.manifest(descriptor)?;
        manifests += below(source, sink, &part, depth + 1, tell)?;
        sink.put_manifest(&part)?;
    }
    Ok(manifests)
}

/// Copies configuration and layers of a manifest.
fn blobs(
    source: &dyn Source,
    sink: &dyn Sink,
    document: &Document,
    tell: &(dyn Fn(TransferEvent) + Sync),
) -> Result<(), ImagesError> {
    let manifest = document.manifest()?;
    let mut seen = BTreeSet::new();
    let all = manifest.layers.iter().chain([&manifest.config]);
    let distinct: Vec<Descriptor> = all
        .filter(|blob| seen.insert(blob.digest.clone()))
        .cloned()
        .collect();
    tell(TransferEvent::Layers(distinct.clone()));
    several(&distinct, BLOBS_AT_ONCE_MAX, |n, blob| {
        let layer = |event| tell(TransferEvent::Layer(n, event));
        let existed = match sink.obtain(blob)? {
            Some(Pushed::Mounted) => {
                layer(LayerEvent::Mounted);
                return Ok(());
            }
            Some(_) => true,
            None => {
                let moved = |bytes| layer(LayerEvent::Moved(bytes));
                sink.put(blob, &|from| {
                    let input = source.blob(blob, from).map_err(std::io::Error::other)?;
                    Ok(Box::new(Telling {
                        input,
                        bytes: from,
                        tell: &moved,
                    }))
                })?;
                false
            }
        };
        layer(LayerEvent::Done { existed });
        Ok(())
    })
    .map(drop)
}
