//! Referrers: signatures, bills of materials and the like that point to a manifest.
//!
//! Where the registry has no list of its own, an index under the tag `ALGORITHM-HEX`
//! of the subject is it; whoever pushes or deletes a referrer keeps that index up to date. Two who
//! do so at the same moment can lose an entry: the specification has no lock for it.

use carrack_spec::Digest;
use carrack_spec::image::{DOCUMENT_BYTES_MAX, Descriptor, Index, media_type, parse};

use super::{Ask, DOCUMENT_WAIT, Document, DocumentKind, Repository, To, Which};
use crate::error::Error;
use crate::url::escape;

/// Most pages of referrers that are read.
const REFERRER_PAGES_MAX: usize = 100;
/// Most digits of a digest that are in a fallback tag.
const TAG_DIGITS_MAX: usize = 64;

impl Repository {
    /// What refers to a manifest, of one artifact type or of all.
    ///
    /// # Errors
    /// [`Error`] of the last host that was asked.
    pub fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        self.anywhere(false, &mut |endpoint, _| {
            let to = self.puller(endpoint);
            let mut found = match self.listed_referrers(&to, subject, artifact_type)? {
                Some(found) => found,
                None => match self.tagged_referrers(&to, subject)? {
                    Ok(index) => index.manifests,
                    Err(_) => Vec::new(),
                },
            };
            // A registry need not filter; its header field says whether it did.
            if let Some(wanted) = artifact_type {
                found.retain(|descriptor| descriptor.artifact_type == wanted);
            }
            Ok(found)
        })
    }

    /// The registry's own list; none when it has no such thing.
    fn listed_referrers(
        &self,
        to: &To<'_>,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut path = format!("referrers/{subject}");
        if let Some(wanted) = artifact_type {
            path.push_str(&format!("?artifactType={}", escape(wanted)));
        }
        let ask = Ask::new("GET").field("Accept", media_type::INDEX);
        let mut found = Some(Vec::new());
        let pages = REFERRER_PAGES_MAX;
        self.inner()
            .pages(to, &path, &ask, pages, &mut |n, answer| {
                if n == 0 && matches!(answer.status(), 400 | 404 | 405 | 501) {
                    answer.drain();
                    found = None;
                    return Ok(None);
                }
                let mut answer = answer.expect(&[200])?;
                let bytes = answer.bytes(DOCUMENT_BYTES_MAX, DOCUMENT_WAIT)?;
                match (parse::<Index>(&bytes), &mut found) {
                    (Ok(index), Some(found)) => {
                        found.extend(index.manifests);
                        Ok(Some(answer))
                    }
                    // A page of something else at this path is no list of referrers.
                    _ => {
                        found = None;
                        Ok(None)
                    }
                }
            })?;
        Ok(found)
    }

    /// The index under the fallback tag; empty when there is none. `Err` within is something else that
    /// stands there.
    fn tagged_referrers(
        &self,
        to: &To<'_>,
        subject: &Digest,
    ) -> Result<Result<Index, Document>, Error> {
        let tag = fallback_tag(subject);
        match self.fetch(to, Which::Tag(&tag), u32::MAX) {
            Ok(document) if document.kind() == DocumentKind::Index => document.index().map(Ok),
            Ok(document) => Ok(Err(document)),
            Err(error) if error.is_not_found() => Ok(Ok(Index::new(Vec::new()))),
            Err(error) => Err(error),
        }
    }

    /// The same for one who will write it: what is no index is not overwritten.
    fn own_referrers(&self, subject: &Digest) -> Result<Index, Error> {
        let found = self.tagged_referrers(&self.pusher(), subject)?;
        found.map_err(|document| Error::NoReferrers {
            tag: format!("{}:{}", self.text(), fallback_tag(subject)),
            media_type: document.media_type().to_owned(),
        })
    }

    fn put_referrers(&self, subject: &Digest, index: &Index) -> Result<(), Error> {
        let bytes = serde_json::to_vec(index).map_err(|e| Error::Source(e.into()))?;
        let document = Document::new(media_type::INDEX, bytes)?;
        self.put(Which::Tag(&fallback_tag(subject)), &document)?;
        Ok(())
    }

    /// Takes a manifest that was deleted out of the fallback index of its subject, where the registry has
    /// no list of its own.
    pub(super) fn remove_referrer(&self, subject: &Digest, referrer: &Digest) -> Result<(), Error> {
        if self
            .listed_referrers(&self.pusher(), subject, None)?
            .is_some()
        {
            return Ok(());
        }
        let mut index = self.own_referrers(subject)?;
        let before = index.manifests.len();
        index.manifests.retain(|m| m.digest != *referrer);
        match index.manifests.len() == before {
            true => Ok(()),
            false => self.put_referrers(subject, &index),
        }
    }

    /// Notes a pushed manifest in the fallback index of its subject.
    pub(super) fn add_referrer(
        &self,
        subject: &Descriptor,
        document: &Document,
    ) -> Result<(), Error> {
        let mut descriptor = document.descriptor();
        match document.kind() {
            DocumentKind::Manifest => {
                let manifest = document.manifest()?;
                descriptor.artifact_type = match manifest.artifact_type.is_empty() {
                    true => manifest.config.media_type,
                    false => manifest.artifact_type,
                };
                descriptor.annotations = manifest.annotations;
            }
            DocumentKind::Index => {
                let index = document.index()?;
                descriptor.artifact_type = index.artifact_type;
                descriptor.annotations = index.annotations;
            }
        }
        let mut index = self.own_referrers(&subject.digest)?;
        if index
            .manifests
            .iter()
            .any(|m| m.digest == descriptor.digest)
        {
            return Ok(());
        }
        index.manifests.push(descriptor);
        self.put_referrers(&subject.digest, &index)
    }
}

/// The tag under which referrers are listed where the registry does not.
fn fallback_tag(subject: &Digest) -> String {
    let digits: String = subject.hex().chars().take(TAG_DIGITS_MAX).collect();
    format!("{}-{digits}", subject.algorithm().name())
}
