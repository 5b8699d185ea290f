//! `docker://`: a repository of a registry.

use crate::images::pull::which;
use crate::images::transport::{Bytes, Sink, Source};
use crate::images::{Access, ImagesError};
use carrack_registry::{Content, Document, Pushed, Repository, UploadOptions, Which};
use carrack_spec::Reference;
use carrack_spec::image::Descriptor;
use std::io::Read;

/// An image in a registry.
pub(in crate::images) struct RegistrySource {
    reference: Reference,
    repository: Repository,
}

impl RegistrySource {
    /// `name` is a reference, an alias, or a short name that leads to one registry.
    pub(super) fn open(access: &Access, name: &str) -> Result<Self, ImagesError> {
        let bad = |source| ImagesError::Name {
            name: name.to_owned(),
            source,
        };
        let candidates = access.client().config().candidates(name).map_err(bad)?;
        let mut references = candidates.references;
        match (references.pop(), references.is_empty()) {
            (Some(reference), true) => Self::new(access, reference),
            _ => Err(ImagesError::ShortName(name.to_owned())),
        }
    }

    pub(in crate::images) fn new(
        access: &Access,
        reference: Reference,
    ) -> Result<Self, ImagesError> {
        Ok(Self {
            repository: access.client().repository(&reference)?,
            reference,
        })
    }

    pub(in crate::images) fn repository(&self) -> &Repository {
        &self.repository
    }
}

impl Source for RegistrySource {
    fn target(&self) -> Result<Document, ImagesError> {
        Ok(self.repository.manifest(which(&self.reference))?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, ImagesError> {
        let which = Which::Digest(&descriptor.digest);
        Ok(self.repository.manifest(which)?)
    }

    fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Bytes<'_>, ImagesError> {
        Ok(match from {
            0 => Box::new(self.repository.blob(descriptor)?.verified()),
            from => Box::new(self.repository.blob_from(descriptor, from)?),
        })
    }

    fn reference(&self) -> Option<Reference> {
        Some(self.reference.clone())
    }
}

/// A name in a registry to push to.
pub(in crate::images) struct RegistrySink {
    reference: Reference,
    repository: Repository,
    upload: UploadOptions,
}

impl RegistrySink {
    /// `mount_from` names repositories of the same registry that may have the blobs.
    pub(in crate::images) fn open(
        access: &Access,
        name: &str,
        mount_from: Vec<String>,
    ) -> Result<Self, ImagesError> {
        let reference: Reference = name.parse().map_err(|source| ImagesError::Reference {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            repository: access.client().repository(&reference)?,
            upload: UploadOptions {
                mount_from: mount_from
                    .into_iter()
                    .filter(|from| from != reference.path())
                    .collect(),
                ..UploadOptions::default()
            },
            reference,
        })
    }
}

/// Bytes that `open` gives from any offset on.
struct Opened<'o, 'a> {
    size: u64,
    open: &'o (dyn Fn(u64) -> std::io::Result<Bytes<'a>> + Sync),
}

impl Content for Opened<'_, '_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn reader(&self, from: u64) -> std::io::Result<Box<dyn Read + '_>> {
        let bytes: Box<dyn Read> = (self.open)(from)?;
        Ok(bytes)
    }
}

impl Sink for RegistrySink {
    fn obtain(&self, blob: &Descriptor) -> Result<Option<Pushed>, ImagesError> {
        Ok(self.repository.obtain_blob(&blob.digest, &self.upload)?)
    }

    fn put<'a>(
        &self,
        blob: &Descriptor,
        open: &(dyn Fn(u64) -> std::io::Result<Bytes<'a>> + Sync),
    ) -> Result<(), ImagesError> {
        let content = Opened {
            size: blob.size,
            open,
        };
        // Whoever has bytes to give has asked before.
        let options = UploadOptions {
            skip_check: true,
            ..UploadOptions::default()
        };
        self.repository
            .push_blob(&blob.digest, &content, &options)?;
        Ok(())
    }

    fn put_stream(
        &self,
        media_type: &str,
        mut stream: &mut (dyn Read + Send),
    ) -> Result<Descriptor, ImagesError> {
        Ok(self.repository.push_stream(media_type, &mut stream)?)
    }

    fn put_manifest(&self, document: &Document) -> Result<(), ImagesError> {
        let which = Which::Digest(document.digest());
        self.repository.push_manifest(which, document)?;
        Ok(())
    }

    fn finish(self: Box<Self>, target: &Document) -> Result<(), ImagesError> {
        if let Some(wanted) = self.reference.digest().filter(|d| *d != target.digest()) {
            return Err(ImagesError::OtherDigest {
                wanted: wanted.clone(),
                found: target.digest().clone(),
            });
        }
        self.repository
            .push_manifest(which(&self.reference), target)?;
        Ok(())
    }
}
