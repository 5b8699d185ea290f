//! Data that Carrack reads and writes, as types: identifiers, digests, image
//! references and the OCI runtime and image documents.
//!
//! Contract: everything here is pure. No I/O, no clock, no environment, no
//! `unsafe`. A raw string or document crosses this crate once, at the edge, and
//! inner code sees only the parsed type. Parsing never panics, whatever the bytes.
//!
//! ```
//! use carrack_spec::{ContainerId, runtime::Spec};
//!
//! let id: ContainerId = "web-1".parse().unwrap();
//! assert_eq!(id.as_str(), "web-1");
//! let spec = Spec::from_json(br#"{"ociVersion":"1.3.0","root":{"path":"rootfs"}}"#).unwrap();
//! assert_eq!(spec.root.unwrap().path, "rootfs");
//! ```

pub mod capability;
pub mod defaults;
mod digest;
mod id;
pub mod image;
pub mod platform;
mod reference;
pub mod runtime;
mod size;

pub use digest::{Algorithm, Digest, DigestError};
pub use id::{ContainerId, ContainerIdError, ID_BYTES_MAX};
pub use reference::{
    DEFAULT_HOST, DEFAULT_TAG, NAME_BYTES_MAX, Reference, ReferenceError, TAG_BYTES_MAX,
};
pub use size::parse_size;
