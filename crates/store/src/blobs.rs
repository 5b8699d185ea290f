//! Blobs: small documents by their digest, verified while they are copied in and when they are read.

use crate::digesting::digest_of;
use crate::durable;
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use carrack_spec::image::DOCUMENT_BYTES_MAX;
use carrack_spec::{Algorithm, Digest};
use std::io::Read;
use std::path::PathBuf;

/// A blob that cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not those that the digest names.
    #[error("blob {wanted} has the digest {found}; the source is damaged, fetch it again")]
    Mismatch {
        /// The digest asked for.
        wanted: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The blob is larger than any document may be.
    #[error("blob {0} is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge(Digest),
    /// Only SHA-256 is verified.
    #[error("blob {0}: only sha256 digests can be verified")]
    Algorithm(Digest),
    /// The store has no such blob.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// A document cannot be written.
    #[error("cannot write a document")]
    Write(#[source] std::io::Error),
    /// The bytes cannot be read.
    #[error("cannot read blob {digest}")]
    Read {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks that `bytes` are what `wanted` names.
pub(crate) fn verify(wanted: &Digest, bytes: &[u8]) -> Result<(), BlobError> {
    if wanted.algorithm() != Algorithm::Sha256 {
        return Err(BlobError::Algorithm(wanted.clone()));
    }
    let found = digest_of(bytes);
    match found == *wanted {
        true => Ok(()),
        false => Err(BlobError::Mismatch {
            wanted: wanted.clone(),
            found,
        }),
    }
}

impl Store {
    /// Keeps a document under its digest, protected by `lease`, with which it goes unless a record comes to
    /// name it.
    ///
    /// # Errors
    /// [`BlobError`]; the store is unchanged then.
    pub fn put_blob(&self, lease: &Lease, digest: &Digest, bytes: &[u8]) -> Result<(), BlobError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(BlobError::TooLarge(digest.clone()));
        }
        verify(digest, bytes)?;
        if lease.protect_blob(digest)? {
            return Ok(());
        }
        let (temporary, path) = (lease.temporary(), self.blob_path(digest));
        durable::prepare(&temporary, bytes)?;
        let held = self.committing()?;
        lease.announce("blob", digest)?;
        std::fs::rename(&temporary, &path).map_err(StoreError::io("put in place", &path))?;
        lease.put(digest);
        drop(held);
        Ok(path.parent().map_or(Ok(()), durable::sync_directory)?)
    }

    /// Writes a document and keeps it; gives its digest and size.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn put_document(
        &self,
        lease: &Lease,
        document: &impl serde::Serialize,
    ) -> Result<(Digest, u64), BlobError> {
        let bytes = serde_json::to_vec(document).map_err(|e| BlobError::Write(e.into()))?;
        let digest = digest_of(&bytes);
        self.put_blob(lease, &digest, &bytes)?;
        Ok((digest, bytes.len() as u64))
    }

    /// True when the store has the document. Only a lease or an image keeps it there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Reads a document and verifies it.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => BlobError::Missing(digest.clone()),
            _ => BlobError::Read {
                digest: digest.clone(),
                source,
            },
        };
        let file = std::fs::File::open(self.blob_path(digest)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(DOCUMENT_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(BlobError::TooLarge(digest.clone()));
        }
        verify(digest, &bytes)?;
        Ok(bytes)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }
}
