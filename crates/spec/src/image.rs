//! The OCI Image Specification 1.1 and docker's archive index, as data.
//!
//! Only what a client reads or writes is typed; unknown properties are ignored,
//! as the specification demands. Docker's schema 2 documents have the same shape
//! under other media types, so the same types read both. Own types instead of
//! the `oci-spec` crate: five small documents do not pay for its tree of macro
//! crates (see `docs/dependencies.md`).

use crate::Digest;
pub use crate::platform::Platform;
use crate::runtime::{ParseError, null_default, parse_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest index, manifest or image configuration that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// Most layers an image may have; overlayfs mounts at most 500.
pub const LAYERS_MAX: usize = 500;

/// Media types by their registered names.
pub mod media_type {
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer that registries may not hand on.
    pub const DOCKER_FOREIGN_LAYER_GZIP: &str =
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Docker's first manifest format, without configuration and layer digests; not supported.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// The same, signed.
    pub const DOCKER_SCHEMA1_SIGNED: &str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// The content `{}`, where an artifact has no configuration.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// Annotation with the tag (or the whole name) of a manifest in an image layout.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation that containerd writes with the whole name of a manifest.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// Points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Other places that have the blob.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub urls: Vec<String>,
    /// The blob itself in base64, when it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What an artifact's manifest is about.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub artifact_type: String,
    /// Which machine a manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor with the three properties that each has.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            data: None,
            artifact_type: String::new(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// `oci-layout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageLayout {
    /// The layout's version, `1.0.0`.
    pub image_layout_version: String,
}

/// An image index, also a docker manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What the document is about, when it is no image.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub artifact_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What the document is about, when it is no image.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub artifact_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of this configuration and these layers.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `GOARCH`.
    pub architecture: String,
    /// For example `v7`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `GOOS`.
    pub os: String,
    /// Defaults for a container of the image.
    #[serde(deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers by the digests of their uncompressed forms.
    pub rootfs: RootFs,
    /// How the layers came about, lowest first.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub history: Vec<History>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When the step was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was run or copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who made the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Defaults for a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `USER[:GROUP]`, names or numbers.
    #[serde(deserialize_with = "null_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// First part of the command line.
    #[serde(deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// Second part of the command line, replaced by what the user types.
    #[serde(deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "null_default")]
    pub working_dir: String,
    /// Free-form metadata.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Paths that hold data of their own.
    #[serde(deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Ports the image serves, `80/tcp`.
    #[serde(deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Signal that asks the program to end.
    #[serde(deserialize_with = "null_default")]
    pub stop_signal: String,
}

/// The layers of an image configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

/// One image in `manifest.json` of a docker archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ArchiveImage {
    /// Path of the image configuration in the archive.
    pub config: String,
    /// `NAME:TAG`.
    #[serde(deserialize_with = "null_default")]
    pub repo_tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<String>,
}

/// Parses one of this module's documents.
///
/// # Errors
/// [`ParseError`] names the property that is wrong.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ParseError> {
    parse_json(bytes, DOCUMENT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_configuration_with_the_nulls_that_docker_writes() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"User":"","Env":null,
            "Cmd":["sh"],"Entrypoint":null,"WorkingDir":"","Labels":null,"Volumes":{"/data":{}}},
            "rootfs":{"type":"layers","diff_ids":null},"history":[{}]}"#;
        let config: ImageConfig = parse(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        assert!(config.config.volumes.contains_key("/data"));
    }

    #[test]
    fn a_bad_digest_is_named_by_its_path() {
        let text =
            br#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:zz","size":1}]}"#;
        let error = parse::<Index>(text).unwrap_err();
        assert!(error.to_string().contains("manifests[0].digest"), "{error}");
    }

    #[test]
    fn a_manifest_keeps_subject_and_artifact_type_when_written_again() {
        let hex = "a".repeat(64);
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"application/x","config":{{"mediaType":"{}","digest":"sha256:{hex}","size":2,"data":"e30="}},"layers":[],"subject":{{"mediaType":"m","digest":"sha256:{hex}","size":7}},"annotations":{{"a":"b"}}}}"#,
            media_type::MANIFEST,
            media_type::EMPTY
        );
        let manifest: Manifest = parse(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }

    #[test]
    fn truncated_documents_are_errors() {
        let text = br#"{"schemaVersion":2,"config":{"digest":"sha256:"#;
        for end in 0..text.len() {
            assert!(parse::<Manifest>(&text[..end]).is_err());
        }
    }
}
