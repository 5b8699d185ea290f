//! The OCI Runtime Specification 1.3 for Linux, as data.
//!
//! The types mirror `config.json` field by field (specification files
//! `config.md` and `config-linux.md`). Absent and empty are kept apart only
//! where the specification gives them different meanings. Unknown properties
//! are accepted, as the specification demands of every implementation
//! (`spec.md`, "Extensibility"); what a *known* property says is either carried
//! out or refused by `carrack-container`, never dropped.

mod features;
mod hooks;
mod linux;
mod mounts;
mod place;
mod process;
mod resources;
mod seccomp;
mod state;

pub use features::*;
pub use hooks::*;
pub use linux::*;
pub use mounts::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;
pub use state::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The specification version this crate writes.
pub const OCI_VERSION: &str = "1.3.0";
/// Largest `config.json` that is read, in bytes; the largest seen in the field are below 1 MiB.
pub const CONFIG_BYTES_MAX: usize = 16 << 20;

/// `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The specification version the document follows, `1.x.y`.
    pub oci_version: String,
    /// The process to run; needed by `start`, not by `create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name in the container's UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name in the container's UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Mounts, carried out in this order.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub mounts: Vec<Mount>,
    /// Programs to run at the steps of the life cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free-form metadata, copied to the state.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Settings of the Linux platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Present in documents for Solaris; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solaris: Option<serde_json::Value>,
    /// Present in documents for Windows; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<serde_json::Value>,
    /// Present in documents for virtual machines; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<serde_json::Value>,
    /// Present in documents for z/OS; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zos: Option<serde_json::Value>,
    /// Present in documents for FreeBSD; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freebsd: Option<serde_json::Value>,
}

/// The root file system of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: String,
    /// Make the root mount read-only inside the container.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// A document that is not a `config.json` (or another document of this crate).
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The document is larger than the limit.
    #[error("the document has {bytes} bytes; at most {max} are read")]
    TooLarge {
        /// Size of the document in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The text is not JSON, or a property has the wrong type; `path` names it.
    #[error("at {path}")]
    Json {
        /// Dotted path of the property, `.` for the document itself.
        path: String,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
}

impl Spec {
    /// Parses a `config.json`.
    ///
    /// # Errors
    /// [`ParseError`] names the property that is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ParseError> {
        parse_json(bytes, CONFIG_BYTES_MAX)
    }
}

/// Parses a JSON document of at most `max` bytes into `T`; an error names the
/// property.
///
/// # Errors
/// [`ParseError::TooLarge`] and [`ParseError::Json`].
pub fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], max: usize) -> Result<T, ParseError> {
    if bytes.len() > max {
        return Err(ParseError::TooLarge {
            bytes: bytes.len(),
            max,
        });
    }
    serde_json::from_slice(bytes).map_err(|source| ParseError::Json {
        path: place::of(bytes, source.line(), source.column()),
        source,
    })
}

/// Reads `null` as the type's default: other writers (Go) emit `null` for empty lists and maps.
pub(crate) fn null_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

pub(crate) fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests;
