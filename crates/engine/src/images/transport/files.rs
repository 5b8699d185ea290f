//! Images in files, read: what the layout, archive and `dir:` transports have in common.

use crate::images::ImagesError;
use crate::images::transport::{Bytes, Source, Verified, document};
use carrack_registry::Document;
use carrack_spec::image::{DOCUMENT_BYTES_MAX, Descriptor};
use carrack_spec::{Digest, Reference};
use carrack_store::{Archive, Store};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// First words of the file `version` of a `dir:` directory.
pub(super) const DIR_VERSION: &str = "Directory Transport Version: ";
/// The document that the name leads to, in a `dir:` directory.
pub(super) const DIR_TARGET: &str = "manifest.json";

/// How files are named by their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// `blobs/ALGORITHM/HEX`, as layouts have them.
    Layout,
    /// `HEX`, and `HEX.manifest.json`, as `dir:` has them.
    Dir,
}

impl Names {
    pub(super) fn blob(self, digest: &Digest) -> String {
        match self {
            Self::Layout => format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()),
            Self::Dir => digest.hex().to_owned(),
        }
    }

    pub(super) fn manifest(self, digest: &Digest) -> String {
        match self {
            Self::Layout => self.blob(digest),
            Self::Dir => format!("{}.{DIR_TARGET}", digest.hex()),
        }
    }
}

/// One image in files.
pub(super) struct FilesSource {
    pub(super) archive: Archive,
    pub(super) names: Names,
    /// Blobs that have other names.
    pub(super) paths: BTreeMap<Digest, String>,
    pub(super) target: Document,
    pub(super) reference: Option<Reference>,
}

impl Source for FilesSource {
    fn target(&self) -> Result<Document, ImagesError> {
        Ok(self.target.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, ImagesError> {
        let name = self.names.manifest(&descriptor.digest);
        let bytes = self.archive.read(&name, DOCUMENT_BYTES_MAX as u64)?;
        document(descriptor, bytes)
    }

    fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Bytes<'_>, ImagesError> {
        let other = self.paths.get(&descriptor.digest).cloned();
        let name = other.unwrap_or_else(|| self.names.blob(&descriptor.digest));
        let (mut stream, _) = self.archive.open_file(&name)?;
        if from == 0 {
            return Ok(Box::new(Verified::new(stream, descriptor)));
        }
        std::io::copy(&mut (&mut stream).take(from), &mut std::io::sink()).map_err(|source| {
            carrack_store::BlobError::Read {
                digest: descriptor.digest.clone(),
                source,
            }
        })?;
        Ok(stream)
    }

    fn reference(&self) -> Option<Reference> {
        self.reference.clone()
    }
}

/// Opens a `dir:` directory.
pub(super) fn open_dir(store: &Store, path: &Path) -> Result<FilesSource, ImagesError> {
    let archive = Archive::open(store, Some(path))?;
    let bytes = archive.read(DIR_TARGET, DOCUMENT_BYTES_MAX as u64)?;
    Ok(FilesSource {
        archive,
        names: Names::Dir,
        paths: BTreeMap::new(),
        target: Document::new("", bytes)?,
        reference: local_name(path, "latest"),
    })
}

/// `localhost/STEM:TAG`, by the name of a file or directory; none when that cannot be an image's name.
pub(super) fn local_name(path: &Path, tag: &str) -> Option<Reference> {
    let absolute = std::path::absolute(path).ok()?;
    let name = absolute.file_name()?.to_str()?.to_ascii_lowercase();
    let stem = name.split('.').next()?;
    format!("localhost/{stem}:{tag}").parse().ok()
}
