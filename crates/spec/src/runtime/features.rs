//! What a runtime can do, as `features` prints it (`features.md`, `features-linux.md`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The features document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Features {
    /// Oldest specification version that is understood.
    pub oci_version_min: String,
    /// Newest specification version that is understood.
    pub oci_version_max: String,
    /// Names of the hooks.
    pub hooks: Vec<String>,
    /// Names of the mount options.
    pub mount_options: Vec<String>,
    /// Features of the Linux platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<LinuxFeatures>,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Annotations of `config.json` that change behaviour in a way a caller must not trust users with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub potentially_unsafe_config_annotations: Vec<String>,
}

/// Features of the Linux platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxFeatures {
    /// Kinds of namespaces.
    pub namespaces: Vec<String>,
    /// Capability names.
    pub capabilities: Vec<String>,
    /// Cgroup drivers and versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupFeatures>,
    /// Seccomp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompFeatures>,
    /// AppArmor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<Enabled>,
    /// SELinux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<Enabled>,
    /// Resource control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdtFeatures>,
    /// NUMA memory policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicyFeatures>,
    /// Extensions of mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_extensions: Option<MountExtensions>,
    /// Network devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_devices: Option<Enabled>,
}

/// A feature that is there or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Whether the runtime was built with it.
    pub enabled: bool,
}

/// Cgroup support.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CgroupFeatures {
    /// cgroup v1.
    pub v1: bool,
    /// cgroup v2.
    pub v2: bool,
    /// The systemd driver.
    pub systemd: bool,
    /// The systemd driver with a user's manager.
    pub systemd_user: bool,
    /// The rdma controller.
    pub rdma: bool,
}

/// Seccomp support.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeccompFeatures {
    /// Whether the runtime was built with it.
    pub enabled: bool,
    /// `SCMP_ACT_…`.
    pub actions: Vec<String>,
    /// `SCMP_CMP_…`.
    pub operators: Vec<String>,
    /// `SCMP_ARCH_…`.
    pub archs: Vec<String>,
    /// Flags that are known.
    pub known_flags: Vec<String>,
    /// Flags that this kernel takes.
    pub supported_flags: Vec<String>,
}

/// Resource control support.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdtFeatures {
    /// Whether the runtime was built with it.
    pub enabled: bool,
    /// `schemata` is understood.
    pub schemata: bool,
    /// `enableMonitoring` is understood.
    pub monitoring: bool,
}

/// NUMA memory policy support.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicyFeatures {
    /// `MPOL_…`.
    pub modes: Vec<String>,
    /// `MPOL_F_…`.
    pub flags: Vec<String>,
}

/// Extensions of mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountExtensions {
    /// Idmapped mounts.
    pub idmap: Enabled,
}
