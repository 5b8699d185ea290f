//! `mounts`.

use super::{IdMapping, null_default};
use serde::{Deserialize, Serialize};

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where, inside the container; resolved inside the root file system.
    pub destination: String,
    /// File system type; `bind` or absent for bind mounts.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Device, path or name; a relative path of a bind mount is relative to the bundle.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options as in fstab(5), with those of the specification.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub options: Vec<String>,
    /// User mappings of an idmapped mount.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// Group mappings of an idmapped mount.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// A mount from its parts.
    pub fn new(destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Self::default()
        }
    }
}
