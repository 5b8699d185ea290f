//! Pushing manifests, and deleting.

use carrack_spec::Digest;
use carrack_spec::image::Descriptor;

use super::{Ask, At, Document, Repository, Which};
use crate::error::Error;
use crate::wire::Source;

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another repository of its own.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What became of a pushed manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Its digest.
    pub digest: Digest,
    /// For a manifest with a subject: whether the registry lists it among the referrers
    /// itself. Otherwise the client did, under the fallback tag.
    pub lists_referrers: bool,
}

impl Repository {
    /// Whether the registry has a blob, in this repository.
    ///
    /// # Errors
    /// [`Error`] of the registry, except that there is no such blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let answer = self
            .inner()
            .ask(&self.pusher(), At::Path(&path), &Ask::new("HEAD"))?;
        match answer.status() {
            404 => Ok(false),
            _ => answer.expect(&[200]).map(|_| true),
        }
    }

    /// Whether the registry has a manifest, in this repository.
    ///
    /// # Errors
    /// [`Error`] of the registry, except that there is no such manifest.
    pub fn has_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        let to = self.pusher();
        let which = Which::Digest(digest);
        let found = match self.head(&to, which, u32::MAX) {
            // The header fields do not say it.
            Ok(None) => self.fetch(&to, which, u32::MAX).map(|_| ()),
            other => other.map(|_| ()),
        };
        match found {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a manifest or an index under a tag or under its digest. What it points to
    /// must be there already.
    ///
    /// A manifest with a subject is made known as its referrer, by the registry or by
    /// the fallback tag of the distribution specification.
    ///
    /// # Errors
    /// [`Error`] of the registry; [`Error::Digest`] when it stored something else.
    pub fn push_manifest(
        &self,
        which: Which<'_>,
        document: &Document,
    ) -> Result<PushedManifest, Error> {
        let (digest, lists) = self.put(which, document)?;
        let Some(subject) = subject(document)? else {
            return Ok(PushedManifest {
                digest,
                lists_referrers: true,
            });
        };
        if !lists {
            self.add_referrer(&subject, document)?;
        }
        Ok(PushedManifest {
            digest,
            lists_referrers: lists,
        })
    }

    /// Puts a document; its digest, and whether the registry noticed its subject.
    pub(super) fn put(
        &self,
        which: Which<'_>,
        document: &Document,
    ) -> Result<(Digest, bool), Error> {
        let path = format!("manifests/{which}");
        let ask = Ask::new("PUT")
            .field("Content-Type", document.media_type())
            .source(Source::Bytes(document.bytes()));
        let answer = self.inner().ask(&self.pusher(), At::Path(&path), &ask)?;
        let answer = answer.expect(&[200, 201, 202])?;
        let stored = answer.field("docker-content-digest");
        if let Some(stored) = stored.and_then(|stored| stored.parse::<Digest>().ok())
            && stored.algorithm() == document.digest().algorithm()
            && stored != *document.digest()
        {
            return Err(Error::Digest {
                asked: Box::new(answer.asked),
                expected: Box::new(document.digest().clone()),
                found: Box::new(stored),
            });
        }
        let lists = answer.field("oci-subject").is_some();
        answer.drain();
        Ok((document.digest().clone(), lists))
    }

    /// Deletes a manifest by its digest, or only a tag where the registry can do that. One with a subject
    /// is taken out of the fallback list of its referrers.
    ///
    /// # Errors
    /// [`Error`] of the registry; status 405 means that it does not delete.
    pub fn delete_manifest(&self, which: Which<'_>) -> Result<(), Error> {
        let path = format!("manifests/{which}");
        let Which::Digest(digest) = which else {
            return self.delete(&path);
        };
        // What it was about is known as long as it is there only.
        let subject = match self.fetch(&self.deleter(), which, u32::MAX) {
            Ok(document) => subject(&document)?,
            Err(_) => None,
        };
        self.delete(&path)?;
        match subject {
            Some(subject) => self.remove_referrer(&subject.digest, digest),
            None => Ok(()),
        }
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// As [`Self::delete_manifest`].
    pub fn delete_blob(&self, digest: &Digest) -> Result<(), Error> {
        self.delete(&format!("blobs/{digest}"))
    }

    fn delete(&self, path: &str) -> Result<(), Error> {
        let to = self.deleter();
        let answer = self.inner().ask(&to, At::Path(path), &Ask::new("DELETE"))?;
        answer.expect(&[200, 202, 204])?.drain();
        Ok(())
    }
}

/// The subject of a manifest or an index.
fn subject(document: &Document) -> Result<Option<Descriptor>, Error> {
    Ok(match document.kind() {
        super::DocumentKind::Manifest => document.manifest()?.subject,
        super::DocumentKind::Index => document.index()?.subject,
    })
}
