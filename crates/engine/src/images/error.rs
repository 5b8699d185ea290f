//! What can go wrong between the store and a registry.

use crate::images::transport::PlaceError;
use carrack_registry::credentials::AuthFileError;
use carrack_registry::{ConfigError, ProxyError};
use carrack_spec::image::LAYERS_MAX;
use carrack_spec::runtime::ParseError;
use carrack_spec::{Digest, ReferenceError};
use carrack_store::{ArchiveError, BlobError, ImageError, LayerError, SaveError, StoreError};
use std::path::{Path, PathBuf};

/// An image that cannot be brought from or to a registry.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A configuration file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A configuration file is wrong.
    #[error("{path} cannot be used")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
    /// The configuration does not allow the name, or it is none.
    #[error("cannot look for {name:?}")]
    Name {
        /// As typed.
        name: String,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// What was typed is no reference.
    #[error("{name:?} is no image name")]
    Reference {
        /// As typed.
        name: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A credentials file is wrong.
    #[error("the credentials file {path} cannot be used")]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: AuthFileError,
    },
    /// A credential helper did not do what it is there for.
    #[error("the credential helper docker-credential-{helper} failed{said}")]
    Helper {
        /// The end of its name.
        helper: String,
        /// What it said, after a colon, or nothing.
        said: String,
        /// Why, when the system knows.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A proxy variable is wrong.
    #[error("a proxy variable of the environment cannot be used")]
    Proxy(#[from] ProxyError),
    /// No file to keep credentials in.
    #[error("there is no home directory to keep credentials in; name a file with --authfile")]
    NoAuthFile,
    /// Nobody is logged in.
    #[error("not logged in to {0}")]
    NotLoggedIn(String),
    /// A file of other tools has a login.
    #[error(
        "not logged in to {key} by carrack; {path} has a login for it: name that with --authfile, or log out with what wrote it"
    )]
    LoggedInElsewhere {
        /// The registry, perhaps with a part of its names.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// Credentials cannot be looked up.
    #[error("cannot look up the credentials for {host}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: carrack_registry::credentials::CredentialsError,
    },
    /// What was typed names no transport that there is.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A short name that may be in several registries, where one is needed.
    #[error("the short name {0:?} may be in several registries; type it with its registry")]
    ShortName(String),
    /// A manifest list without images.
    #[error(
        "the manifest list {0:?} has no images; add some with `carrack manifest add {0} IMAGE`"
    )]
    EmptyList(String),
    /// The image of a list that is for this machine is not in the store.
    #[error(
        "the image of the manifest list {list:?} for this machine is at {place}; pull that, or leave out --pull never"
    )]
    MemberElsewhere {
        /// The list.
        list: String,
        /// Where the image is.
        place: String,
    },
    /// The image has no name to push it under.
    #[error("the image {0} has no name; say where to push it")]
    NoName(String),
    /// What is there under a digest, or would be, is something else.
    #[error("the name asks for the digest {wanted}, the image has {found}")]
    OtherDigest {
        /// From the name.
        wanted: Digest,
        /// Of the image.
        found: Digest,
    },
    /// A document in a file is malformed.
    #[error("{path} is malformed")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Images cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// An archive or layout cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The file is there already.
    #[error("{0} exists; images are written to a new file")]
    FileExists(PathBuf),
    /// The directory holds something else.
    #[error("{0} holds something else; name a new or an empty directory")]
    NotOurs(PathBuf),
    /// There is not exactly one image of the name.
    #[error("{path} has no single image {wanted:?}; it has: {names}")]
    Choice {
        /// The layout or archive.
        path: PathBuf,
        /// As typed; empty for any.
        wanted: String,
        /// What there is.
        names: String,
    },
    /// Docker's manifests know no zstd.
    #[error("a manifest in docker's format cannot have zstd layers; use gzip, or the format oci")]
    DockerZstd,
    /// No pipe to compress into.
    #[error("cannot make a pipe")]
    Pipe(#[source] std::io::Error),
    /// Only one image, of one platform, can be there.
    #[error("{0} can hold an image for one platform only")]
    SingleOnly(PathBuf),
    /// Indexes within indexes, or too many of them.
    #[error("{0} has too many manifests, or indexes nested too deeply")]
    TooMany(String),
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(Box<carrack_registry::Error>),
    /// None of the registries that a short name may mean has the image.
    #[error("no image {name:?}: {tried}")]
    Nowhere {
        /// As typed.
        name: String,
        /// What each registry said.
        tried: String,
    },
    /// A document of the image is malformed.
    #[error("the document {digest} of the image is malformed")]
    Document {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Configuration and manifest disagree on the layers, or there are too many.
    #[error(
        "the image has {layers} layers and {diff_ids} diff ids; both must be the same and at most {LAYERS_MAX}"
    )]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// What the reference names is no image that could run.
    #[error("{name} is no container image: its configuration is of type {media_type:?}")]
    Artifact {
        /// The reference.
        name: String,
        /// The type of its configuration.
        media_type: String,
    },
    /// A document cannot be kept.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer cannot be taken in.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The image cannot be found or kept.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImagesError {
    pub(super) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<carrack_registry::Error> for ImagesError {
    fn from(error: carrack_registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}
