//! `docker-archive:`, read. An archive that is an OCI image layout as well (newer docker, and we, write it so)
//! gives its manifests as they are; for others a manifest is made, of the layers as they are.

use crate::images::ImagesError;
use crate::images::transport::files::{FilesSource, Names};
use crate::images::transport::layout;
use carrack_registry::Document;
use carrack_spec::Digest;
use carrack_spec::Reference;
use carrack_spec::image::{
    ArchiveImage, DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, Index, LAYERS_MAX, Manifest,
    media_type, parse,
};
use carrack_store::{Archive, Digesting, Store};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const BYTES_MAX: u64 = DOCUMENT_BYTES_MAX as u64;

/// Opens the image `name` of a docker archive, or its only one.
pub(super) fn open(
    store: &Store,
    path: &Path,
    name: Option<&str>,
) -> Result<FilesSource, ImagesError> {
    let archive = Archive::open(store, Some(path))?;
    let images: Vec<ArchiveImage> = document(&archive, "manifest.json")?.0;
    let image = pick(&images, path, name)?;
    let (config, bytes): (ImageConfig, _) = document(&archive, &image.config)?;
    let id = digest_of(&bytes)?;
    let tag = name.or(image.repo_tags.first().map(String::as_str));
    let reference = tag.and_then(|tag| tag.parse::<Reference>().ok());
    if let Some(descriptor) = manifest_of(&archive, &id)? {
        let found = layout::at(archive, path, &descriptor)?;
        return Ok(FilesSource { reference, ..found });
    }
    let (layers, diff_ids) = (image.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids || layers > LAYERS_MAX {
        return Err(ImagesError::LayerCount { layers, diff_ids });
    }
    let mut paths = BTreeMap::from([(id.clone(), image.config.clone())]);
    let mut descriptors = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        let layer = layer(&archive, name, diff_id)?;
        paths.insert(layer.digest.clone(), name.clone());
        descriptors.push(layer);
    }
    let config = Descriptor::new(media_type::CONFIG, id, bytes.len() as u64);
    let manifest = serde_json::to_vec(&Manifest::new(config, descriptors))
        .map_err(|e| carrack_store::BlobError::Write(e.into()))?;
    Ok(FilesSource {
        archive,
        names: Names::Layout,
        paths,
        target: Document::new("", manifest)?,
        reference,
    })
}

fn pick<'a>(
    images: &'a [ArchiveImage],
    path: &Path,
    name: Option<&str>,
) -> Result<&'a ArchiveImage, ImagesError> {
    let parsed = |name: &str| name.parse::<Reference>().ok();
    let is_meant = |image: &&ArchiveImage| match name {
        None => true,
        Some(name) => image
            .repo_tags
            .iter()
            .any(|tag| tag == name || (parsed(tag).is_some() && parsed(tag) == parsed(name))),
    };
    let mut found = images.iter().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(image),
        _ => {
            let names: Vec<&str> = images
                .iter()
                .flat_map(|i| i.repo_tags.iter().map(String::as_str))
                .collect();
            Err(ImagesError::Choice {
                path: path.to_owned(),
                wanted: name.unwrap_or_default().to_owned(),
                names: names.join(", "),
            })
        }
    }
}

/// The manifest of the image with this id in the archive's own layout, if there is one.
fn manifest_of(archive: &Archive, id: &Digest) -> Result<Option<Descriptor>, ImagesError> {
    if !archive.has("index.json") || !archive.has("oci-layout") {
        return Ok(None);
    }
    let index: Index = document(archive, "index.json")?.0;
    Ok(index.manifests.into_iter().find(|descriptor| {
        let bytes = archive.read(&Names::Layout.blob(&descriptor.digest), BYTES_MAX);
        let manifest = bytes.ok().and_then(|b| parse::<Manifest>(&b).ok());
        manifest.is_some_and(|m| m.config.digest == *id)
    }))
}

/// A layer as it is in the archive; one that is compressed is read for its digest.
fn layer(archive: &Archive, name: &str, diff_id: &Digest) -> Result<Descriptor, ImagesError> {
    let (mut stream, size) = archive.open_file(name)?;
    let failed = |source| carrack_store::BlobError::Read {
        digest: diff_id.clone(),
        source,
    };
    let mut magic = Vec::new();
    (&mut stream)
        .take(4)
        .read_to_end(&mut magic)
        .map_err(failed)?;
    let kind = match magic.as_slice() {
        [0x1f, 0x8b, ..] => media_type::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_ZSTD,
        _ => return Ok(Descriptor::new(media_type::LAYER, diff_id.clone(), size)),
    };
    let mut digesting = Digesting::new(magic.as_slice().chain(stream));
    digesting.drain().map_err(failed)?;
    let (digest, size) = digesting.finish();
    Ok(Descriptor::new(kind, digest, size))
}

fn digest_of(bytes: &[u8]) -> Result<Digest, ImagesError> {
    let mut digesting = Digesting::new(bytes);
    digesting.drain().map_err(carrack_store::BlobError::Write)?;
    Ok(digesting.finish().0)
}

fn document<T: DeserializeOwned>(
    archive: &Archive,
    name: &str,
) -> Result<(T, Vec<u8>), ImagesError> {
    let bytes = archive.read(name, BYTES_MAX)?;
    let parsed = parse(&bytes).map_err(|source| ImagesError::BadFile {
        path: archive.path().join(name),
        source,
    })?;
    Ok((parsed, bytes))
}
