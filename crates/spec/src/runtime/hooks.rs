//! `hooks`.

use super::null_default;
use serde::{Deserialize, Serialize};

/// Programs to run at the steps of the life cycle, each list in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Runtime namespace, after the namespaces exist, before the root changes (deprecated, still used).
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub prestart: Vec<Hook>,
    /// Runtime namespace, right after `prestart`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub create_runtime: Vec<Hook>,
    /// Container namespaces, before the root changes.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub create_container: Vec<Hook>,
    /// Container namespaces and root, just before the program.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub start_container: Vec<Hook>,
    /// Runtime namespace, after the program started.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub poststart: Vec<Hook>,
    /// Runtime namespace, after the container is deleted.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program, an absolute path.
    pub path: String,
    /// Arguments, the program's name first, as for execv(3).
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub env: Vec<String>,
    /// Seconds until the hook is killed and counts as failed; above zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
