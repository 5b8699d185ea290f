//! `oci:` and `oci-archive:`, read: which image of the layout is meant.

use crate::images::ImagesError;
use crate::images::transport::document;
use crate::images::transport::files::{FilesSource, Names, local_name};
use carrack_spec::Reference;
use carrack_spec::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, DOCUMENT_BYTES_MAX, Descriptor, Index, parse,
};
use carrack_store::{Archive, Store};
use std::collections::BTreeMap;
use std::path::Path;

/// Opens the image `name` of a layout, or its only one.
pub(super) fn open(
    store: &Store,
    path: &Path,
    name: Option<&str>,
) -> Result<FilesSource, ImagesError> {
    let archive = Archive::open(store, Some(path))?;
    let bytes = archive.read("index.json", DOCUMENT_BYTES_MAX as u64)?;
    let index: Index = parse(&bytes).map_err(|source| ImagesError::BadFile {
        path: path.join("index.json"),
        source,
    })?;
    let descriptor = pick(&index, path, name)?;
    at(archive, path, &descriptor)
}

/// The image that a descriptor of the layout's index names.
pub(super) fn at(
    archive: Archive,
    path: &Path,
    descriptor: &Descriptor,
) -> Result<FilesSource, ImagesError> {
    let blob = Names::Layout.blob(&descriptor.digest);
    let bytes = archive.read(&blob, DOCUMENT_BYTES_MAX as u64)?;
    Ok(FilesSource {
        archive,
        names: Names::Layout,
        paths: BTreeMap::new(),
        target: document(descriptor, bytes)?,
        reference: reference(descriptor, path),
    })
}

fn pick(index: &Index, path: &Path, name: Option<&str>) -> Result<Descriptor, ImagesError> {
    let choice = |found: Vec<&Descriptor>| match found.as_slice() {
        [only] => Ok((*only).clone()),
        _ => Err(ImagesError::Choice {
            path: path.to_owned(),
            wanted: name.unwrap_or_default().to_owned(),
            names: index
                .manifests
                .iter()
                .map(shown)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    };
    let Some(name) = name else {
        return choice(index.manifests.iter().collect());
    };
    let exact = |d: &&Descriptor| {
        let named = [ANNOTATION_REF_NAME, ANNOTATION_IMAGE_NAME]
            .iter()
            .any(|key| d.annotations.get(*key).is_some_and(|n| n == name));
        named || d.digest.to_string() == name
    };
    let found: Vec<_> = index.manifests.iter().filter(exact).collect();
    if !found.is_empty() {
        return choice(found);
    }
    // `debian:12` and `docker.io/library/debian:12` are the same.
    let wanted = name.parse::<Reference>().ok();
    let same = |d: &&Descriptor| {
        let full = d.annotations.get(ANNOTATION_IMAGE_NAME);
        let full = full.or_else(|| d.annotations.get(ANNOTATION_REF_NAME));
        wanted.is_some() && full.and_then(|n| n.parse().ok()) == wanted
    };
    choice(index.manifests.iter().filter(same).collect())
}

fn shown(descriptor: &Descriptor) -> String {
    let name = descriptor.annotations.get(ANNOTATION_REF_NAME);
    name.cloned()
        .unwrap_or_else(|| descriptor.digest.to_string())
}

/// A bare word is a tag without a name.
fn reference(descriptor: &Descriptor, path: &Path) -> Option<Reference> {
    let annotation = |key| descriptor.annotations.get(key).map(String::as_str);
    if let Some(full) = annotation(ANNOTATION_IMAGE_NAME) {
        return full.parse().ok();
    }
    match annotation(ANNOTATION_REF_NAME) {
        None | Some("") => local_name(path, "latest"),
        Some(name) if name.contains(['/', ':', '@']) => name.parse().ok(),
        Some(tag) => local_name(path, tag),
    }
}
