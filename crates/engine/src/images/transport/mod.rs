//! Where images come from and go to, blob by blob: one interface over registries, layouts and archives.
//!
//! | written as | what it is | reads | writes |
//! |---|---|---|---|
//! | `docker://NAME` | a registry; the transport of a bare name | yes | yes |
//! | `oci:DIR[:REF]` | an OCI image layout | yes | yes, beside what is there |
//! | `oci-archive:FILE[:REF]` | the same in a tar file | yes | a new file |
//! | `docker-archive:FILE[:NAME]` | what `docker save` writes | yes | a new file |
//! | `dir:DIR` | documents and blobs as plain files | yes | yes, in place of what is there |
//!
//! Contract: a [`Source`] gives documents and blobs as they are and verifies both against their digests; a
//! [`Sink`] keeps them as they are. [`Sink::finish`] puts the document that the name leads to last, so
//! whoever reads the sink meanwhile sees the image whole or not at all.

mod archive;
mod files;
mod layout;
mod output;
mod registry;
mod sink;

pub(super) use registry::{RegistrySink, RegistrySource};

use crate::images::{Access, ImagesError};
use carrack_registry::{Document, Pushed};
use carrack_spec::Reference;
use carrack_spec::image::{DOCUMENT_BYTES_MAX, Descriptor};
use carrack_store::{Digesting, Store};
use sink::FilesSink;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of a blob.
pub type Bytes<'a> = Box<dyn Read + Send + 'a>;

/// A place, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name in a registry.
    Registry(String),
    /// An OCI image layout: directory, name of the image in it.
    Layout(PathBuf, Option<String>),
    /// An OCI image layout in a tar file.
    LayoutArchive(PathBuf, Option<String>),
    /// A docker archive.
    DockerArchive(PathBuf, Option<String>),
    /// A directory of plain files.
    Dir(PathBuf),
}

/// What is typed is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A transport of others.
    #[error(
        "the transport {0:?} is not one of docker://, oci:, oci-archive:, docker-archive: and dir:"
    )]
    Transport(String),
    /// No path.
    #[error("{0:?} names no file or directory")]
    NoPath(String),
}

/// Transports that other tools know and that could be taken for an image's name.
const FOREIGN: [&str; 6] = [
    "containers-storage",
    "docker-daemon",
    "docker",
    "ostree",
    "sif",
    "tarball",
];

impl Place {
    /// A place that names its transport; none for a bare name.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn with_transport(typed: &str) -> Result<Option<Self>, PlaceError> {
        if let Some(name) = typed.strip_prefix("docker://") {
            return Ok(Some(Self::Registry(name.to_owned())));
        }
        let Some((transport, rest)) = typed.split_once(':') else {
            return Ok(None);
        };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned()).filter(|n| !n.is_empty())),
            None => (rest, None),
        };
        let place = match transport {
            "oci" => Self::Layout(path.into(), name),
            "oci-archive" => Self::LayoutArchive(path.into(), name),
            "docker-archive" => Self::DockerArchive(path.into(), name),
            "dir" => Self::Dir(rest.into()),
            _ if FOREIGN.contains(&transport) => {
                return Err(PlaceError::Transport(transport.to_owned()));
            }
            _ => return Ok(None),
        };
        match path.is_empty() {
            true => Err(PlaceError::NoPath(typed.to_owned())),
            false => Ok(Some(place)),
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    /// A bare name is one in a registry.
    fn from_str(typed: &str) -> Result<Self, PlaceError> {
        Ok(Self::with_transport(typed)?.unwrap_or_else(|| Self::Registry(typed.to_owned())))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(name) => return write!(f, "docker://{name}"),
            Self::Layout(path, name) => ("oci", path, name.as_ref()),
            Self::LayoutArchive(path, name) => ("oci-archive", path, name.as_ref()),
            Self::DockerArchive(path, name) => ("docker-archive", path, name.as_ref()),
            Self::Dir(path) => ("dir", path, None),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

/// Where an image comes from.
pub trait Source: Send + Sync {
    /// The document that the name leads to.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn target(&self) -> Result<Document, ImagesError>;

    /// A manifest that an index names.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, ImagesError>;

    /// The bytes of a configuration or layer, from an offset on. Read to their end from the start they
    /// are verified.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Bytes<'_>, ImagesError>;

    /// The name that the image has there, or that follows from the place.
    fn reference(&self) -> Option<Reference>;
}

/// Where an image goes to.
pub trait Sink: Send + Sync {
    /// Looks whether the sink has a blob, or gets it without its bytes; none when it needs them.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn obtain(&self, blob: &Descriptor) -> Result<Option<Pushed>, ImagesError>;

    /// Takes a blob whose digest is known; `open` gives the bytes from an offset on and may be called again.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put<'a>(
        &self,
        blob: &Descriptor,
        open: &(dyn Fn(u64) -> std::io::Result<Bytes<'a>> + Sync),
    ) -> Result<(), ImagesError>;

    /// Takes a blob whose digest is known at its end only.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put_stream(
        &self,
        media_type: &str,
        stream: &mut (dyn Read + Send),
    ) -> Result<Descriptor, ImagesError>;

    /// Takes a manifest that the index names which follows.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put_manifest(&self, document: &Document) -> Result<(), ImagesError>;

    /// Takes the document that the name leads to, and ends.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn finish(self: Box<Self>, target: &Document) -> Result<(), ImagesError>;
}

/// Opens a place to read from.
///
/// # Errors
/// [`ImagesError`].
pub(super) fn source(
    place: &Place,
    access: &Access,
    store: &Store,
) -> Result<Box<dyn Source>, ImagesError> {
    Ok(match place {
        Place::Registry(name) => Box::new(RegistrySource::open(access, name)?),
        Place::Layout(path, name) | Place::LayoutArchive(path, name) => {
            Box::new(layout::open(store, path, name.as_deref())?)
        }
        Place::DockerArchive(path, name) => Box::new(archive::open(store, path, name.as_deref())?),
        Place::Dir(path) => Box::new(files::open_dir(store, path)?),
    })
}

/// Opens a place to write to. `mount_from` names repositories of the same registry that may have the blobs.
///
/// # Errors
/// [`ImagesError`].
pub(super) fn sink(
    place: &Place,
    access: &Access,
    store: &Store,
    mount_from: Vec<String>,
) -> Result<Box<dyn Sink>, ImagesError> {
    Ok(match place {
        Place::Registry(name) => Box::new(RegistrySink::open(access, name, mount_from)?),
        Place::Layout(path, name) => Box::new(FilesSink::layout(path, name.clone())?),
        Place::LayoutArchive(path, name) => {
            Box::new(FilesSink::layout_archive(store, path, name.clone())?)
        }
        Place::DockerArchive(path, name) => {
            Box::new(FilesSink::docker_archive(store, path, name.as_deref())?)
        }
        Place::Dir(path) => Box::new(FilesSink::dir(path)?),
    })
}

/// A document of this digest.
fn document(descriptor: &Descriptor, bytes: Vec<u8>) -> Result<Document, ImagesError> {
    let document = Document::new(&descriptor.media_type, bytes)?;
    match *document.digest() == descriptor.digest {
        true => Ok(document),
        false => Err(carrack_store::BlobError::Mismatch {
            wanted: descriptor.digest.clone(),
            found: document.digest().clone(),
        }
        .into()),
    }
}

/// A whole small blob.
pub(super) fn small(source: &dyn Source, blob: &Descriptor) -> Result<Vec<u8>, ImagesError> {
    if blob.size > DOCUMENT_BYTES_MAX as u64 {
        return Err(carrack_store::BlobError::TooLarge(blob.digest.clone()).into());
    }
    let mut bytes = Vec::new();
    source
        .blob(blob, 0)?
        .take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| carrack_store::BlobError::Read {
            digest: blob.digest.clone(),
            source,
        })?;
    Ok(bytes)
}

/// A stream that must have the size and digest of its descriptor: otherwise its end is an error.
struct Verified<R> {
    input: Option<Digesting<R>>,
    blob: Descriptor,
}

impl<R: Read> Verified<R> {
    fn new(input: R, blob: &Descriptor) -> Self {
        Self {
            input: Some(Digesting::new(input)),
            blob: blob.clone(),
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let Some(input) = &mut self.input else {
            return Ok(0);
        };
        let got = input.read(buf)?;
        if got > 0 || buf.is_empty() {
            return Ok(got);
        }
        let Some((digest, size)) = self.input.take().map(Digesting::finish) else {
            return Ok(0);
        };
        let wrong = match (size == self.blob.size, digest == self.blob.digest) {
            (true, true) => return Ok(0),
            (false, _) => format!("it has {size} bytes, not {}", self.blob.size),
            (true, false) => format!("it has the digest {digest}"),
        };
        let text = format!("the blob {} is damaged: {wrong}", self.blob.digest);
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_their_transport() {
        for (typed, shown) in [
            ("docker://a/b:1", "docker://a/b:1"),
            ("debian:12", "docker://debian:12"),
            ("localhost:5000/a", "docker://localhost:5000/a"),
            ("oci:/x/y:latest", "oci:/x/y:latest"),
            ("oci:x", "oci:x"),
            (
                "oci-archive:a.tar:host:5/a:b",
                "oci-archive:a.tar:host:5/a:b",
            ),
            ("docker-archive:a.tar:", "docker-archive:a.tar"),
            ("dir:a:b", "dir:a:b"),
        ] {
            let place: Place = typed.parse().unwrap();
            assert_eq!(place.to_string(), shown);
        }
        for bad in ["docker-daemon:x:y", "oci:", "dir:", "containers-storage:x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_blob_that_is_not_what_it_should_be_ends_with_an_error() {
        let (digest, size) = {
            let mut right = Digesting::new(&b"right"[..]);
            right.drain().unwrap();
            right.finish()
        };
        let blob = Descriptor::new("x", digest, size);
        let read = |bytes: &[u8]| Verified::new(bytes, &blob).read_to_end(&mut Vec::new());
        assert_eq!(read(b"right").unwrap(), 5);
        assert!(read(b"wrong").is_err() && read(b"righ").is_err() && read(b"right!").is_err());
    }
}
