//! Manifests and indexes: what a tag means, and the documents themselves.

use std::fmt;

use carrack_spec::image::{
    DOCUMENT_BYTES_MAX, Descriptor, Index, Manifest, Platform, media_type, parse,
};
use carrack_spec::{Algorithm, Digest};
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

use super::{Ask, At, DOCUMENT_WAIT, Repository, To};
use crate::error::{Error, clean};
use crate::wire::Answer;

/// Most platforms that a message names.
const PLATFORMS_SHOWN_MAX: usize = 32;

/// What a manifest is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// Its tag.
    Tag(&'a str),
    /// Its digest.
    Digest(&'a Digest),
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl Which<'_> {
    fn is_tag(self) -> bool {
        matches!(self, Self::Tag(_))
    }
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A manifest, OCI or docker's.
    Manifest,
    /// An index, or docker's manifest list.
    Index,
}

impl DocumentKind {
    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => Some(Self::Manifest),
            media_type::INDEX | media_type::DOCKER_LIST => Some(Self::Index),
            _ => None,
        }
    }
}

/// A manifest or an index, bit for bit as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    media_type: String,
    digest: Digest,
    bytes: Vec<u8>,
    kind: DocumentKind,
}

impl Document {
    /// A document under its SHA-256 digest. `media_type` counts only where the
    /// document does not name its own.
    ///
    /// # Errors
    /// [`Error::MediaType`], [`Error::Schema1`] or [`Error::Ambiguous`].
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
        Self::with_digest(media_type, digest, bytes)
    }

    fn with_digest(media_type: &str, digest: Digest, bytes: Vec<u8>) -> Result<Self, Error> {
        let shape: Shape = serde_json::from_slice(&bytes).unwrap_or_default();
        // A header field is a hint; what the document says itself is under its digest.
        let media_type = match shape.media_type.as_str() {
            "" => without_parameters(media_type),
            own => own,
        };
        if is_schema1(media_type) || shape.schema_version == 1 {
            return Err(Error::Schema1(digest.to_string()));
        }
        // Some registries call everything JSON, or nothing: then the shape decides.
        let kind = match (
            DocumentKind::of(media_type),
            shape.is_manifest(),
            shape.is_index(),
        ) {
            (_, true, true)
            | (Some(DocumentKind::Manifest), _, true)
            | (Some(DocumentKind::Index), true, _) => {
                return Err(Error::Ambiguous(Box::new(digest)));
            }
            (Some(kind), _, _) => kind,
            (None, true, false) if shape.schema_version == 2 => DocumentKind::Manifest,
            (None, false, true) if shape.schema_version == 2 => DocumentKind::Index,
            (None, _, _) => return Err(Error::MediaType(digest.to_string(), clean(media_type))),
        };
        let media_type = match (DocumentKind::of(media_type), kind) {
            (Some(_), _) => media_type,
            (None, DocumentKind::Manifest) => media_type::MANIFEST,
            (None, DocumentKind::Index) => media_type::INDEX,
        };
        Ok(Self {
            media_type: media_type.to_owned(),
            digest,
            bytes,
            kind,
        })
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is.
    pub fn kind(&self) -> DocumentKind {
        self.kind
    }

    /// A descriptor that points to it.
    pub fn descriptor(&self) -> Descriptor {
        let size = self.bytes.len() as u64;
        Descriptor::new(&self.media_type, self.digest.clone(), size)
    }

    /// The document as a manifest.
    ///
    /// # Errors
    /// [`Error::Document`] when it is none.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        self.parsed()
    }

    /// The document as an index.
    ///
    /// # Errors
    /// [`Error::Document`] when it is none.
    pub fn index(&self) -> Result<Index, Error> {
        self.parsed()
    }

    fn parsed<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        parse(&self.bytes).map_err(|source| Error::Document {
            digest: Box::new(self.digest.clone()),
            source,
        })
    }

    /// The manifest of an index that fits a machine best.
    ///
    /// # Errors
    /// [`Error::NoPlatform`] names what there is.
    pub fn choose(&self, host: &Platform) -> Result<Descriptor, Error> {
        let index = self.index()?;
        index.choose(host).cloned().ok_or_else(|| {
            let platforms = index.manifests.iter().filter_map(|m| m.platform.as_ref());
            let names = platforms.map(ToString::to_string);
            let names: Vec<String> = names.take(PLATFORMS_SHOWN_MAX).collect();
            Error::NoPlatform {
                wanted: host.to_string(),
                available: clean(&names.join(", ")),
            }
        })
    }
}

/// The properties by which kinds of documents differ.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Shape {
    schema_version: u32,
    media_type: String,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Shape {
    fn is_manifest(&self) -> bool {
        self.config.is_some() || self.layers.is_some()
    }

    fn is_index(&self) -> bool {
        self.manifests.is_some()
    }
}

fn is_schema1(media_type: &str) -> bool {
    matches!(
        media_type,
        media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED
    )
}

/// A media type without `; charset=…`.
fn without_parameters(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// What the client can read, best first.
fn accept() -> String {
    [
        media_type::INDEX,
        media_type::MANIFEST,
        media_type::DOCKER_LIST,
        media_type::DOCKER_MANIFEST,
    ]
    .join(", ")
}

/// The digest of bytes in an algorithm.
fn digest_in(algorithm: Algorithm, bytes: &[u8]) -> Option<Digest> {
    match algorithm {
        Algorithm::Sha256 => Some(Digest::from_sha256(Sha256::digest(bytes).into())),
        Algorithm::Sha512 => {
            let hash = Sha512::digest(bytes);
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha512:{hex}").parse().ok()
        }
    }
}

impl Repository {
    /// What a tag or digest points to, without fetching it where the registry says so
    /// in its header fields. Such an answer is a claim: fetch by its digest to be sure.
    ///
    /// # Errors
    /// [`Error`] of the last host that was asked.
    pub fn resolve(&self, which: Which<'_>) -> Result<Descriptor, Error> {
        self.anywhere(which.is_tag(), &mut |endpoint, attempts| {
            let to = self.puller(endpoint);
            match self.head(&to, which, attempts)? {
                Some(descriptor) => Ok(descriptor),
                None => Ok(self.fetch(&to, which, attempts)?.descriptor()),
            }
        })
    }

    /// A manifest or an index, verified where it is asked for by digest.
    ///
    /// # Errors
    /// [`Error`] of the last host that was asked.
    pub fn manifest(&self, which: Which<'_>) -> Result<Document, Error> {
        self.anywhere(which.is_tag(), &mut |endpoint, attempts| {
            self.fetch(&self.puller(endpoint), which, attempts)
        })
    }

    /// The descriptor in the header fields; none when they do not have it.
    pub(super) fn head(
        &self,
        to: &To<'_>,
        which: Which<'_>,
        attempts: u32,
    ) -> Result<Option<Descriptor>, Error> {
        let ask = Ask::new("HEAD")
            .field("Accept", accept())
            .attempts(attempts);
        let path = format!("manifests/{which}");
        let answer = self.inner().ask(to, At::Path(&path), &ask)?;
        if matches!(answer.status(), 405 | 501) {
            return Ok(None);
        }
        let answer = answer.expect(&[200])?;
        let kind = without_parameters(answer.field("content-type").unwrap_or_default());
        if is_schema1(kind) {
            return Err(Error::Schema1(format!("{}:{which}", self.text())));
        }
        let digest = answer.field("docker-content-digest");
        let digest = digest.and_then(|digest| digest.parse::<Digest>().ok());
        let size = answer.field("content-length").and_then(|s| s.parse().ok());
        let (Some(digest), Some(size), Some(_)) = (digest, size, DocumentKind::of(kind)) else {
            return Ok(None);
        };
        match which {
            Which::Digest(expected) if *expected != digest => {
                Err(mismatch(&answer, expected, digest))
            }
            _ => Ok(Some(Descriptor::new(kind, digest, size))),
        }
    }

    /// A document from one endpoint.
    pub(super) fn fetch(
        &self,
        to: &To<'_>,
        which: Which<'_>,
        attempts: u32,
    ) -> Result<Document, Error> {
        let ask = Ask::new("GET").field("Accept", accept()).attempts(attempts);
        let path = format!("manifests/{which}");
        let answer = self.inner().ask(to, At::Path(&path), &ask)?;
        let mut answer = answer.expect(&[200])?;
        let bytes = answer.bytes(DOCUMENT_BYTES_MAX, DOCUMENT_WAIT)?;
        let expected = match which {
            Which::Digest(digest) => Some(digest.clone()),
            // Only a claim, but one that shows a broken cache on the way.
            Which::Tag(_) => answer
                .field("docker-content-digest")
                .and_then(|digest| digest.parse().ok()),
        };
        let algorithm = expected
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let found = digest_in(algorithm, &bytes)
            .ok_or_else(|| answer.protocol("the digest's algorithm is not supported"))?;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(mismatch(&answer, &expected, found));
        }
        let media_type = answer.field("content-type").unwrap_or_default();
        let document = Document::with_digest(media_type, found, bytes);
        document.map_err(|error| match error {
            Error::Schema1(_) => Error::Schema1(format!("{}:{which}", self.text())),
            other => other,
        })
    }
}

fn mismatch(answer: &Answer, expected: &Digest, found: Digest) -> Error {
    Error::Digest {
        asked: Box::new(answer.asked.clone()),
        expected: Box::new(expected.clone()),
        found: Box::new(found),
    }
}
