//! `features`: what this runtime can do, for engines (`features.md` of the specification).

use crate::args::{Arity, Command};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use carrack_container::facts;
use carrack_spec::capability;
use carrack_spec::runtime::{
    CgroupFeatures, Enabled, Features, IntelRdtFeatures, LinuxFeatures, MemoryPolicyFeatures,
    MountExtensions, OCI_VERSION, SeccompFeatures,
};
use std::collections::BTreeMap;

/// The command.
pub static COMMAND: Command = Command {
    name: "features",
    summary: "print what this runtime can do as JSON",
    arguments: "",
    description: "   The document of features.md of the runtime specification. It does not depend on the host,
   except for the seccomp flags that its kernel takes.",
    flags: &[],
    arity: Arity::Exactly(0),
    hidden: false,
    run,
};

/// The oldest specification whose documents are read.
const OCI_VERSION_MIN: &str = "1.0.0";
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
const NAMESPACES: [&str; 8] = [
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];
/// Annotations that change what the runtime does. Engines must not let users set them freely.
const UNSAFE_ANNOTATIONS: [&str; 3] = ["org.systemd.property.", "run.oci.", "org.criu.config"];

fn run(_: &Context) -> Result<u8, Failure> {
    output::print(&output::json_pretty(&features(), "    ")?)?;
    Ok(0)
}

fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = list.into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

fn features() -> Features {
    let mut annotations = BTreeMap::from([(
        "org.carrack.version".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    )]);
    if let Some(commit) = option_env!("CARRACK_COMMIT") {
        annotations.insert("org.carrack.commit".to_owned(), commit.to_owned());
    }
    Features {
        oci_version_min: OCI_VERSION_MIN.into(),
        oci_version_max: OCI_VERSION.into(),
        hooks: HOOKS.map(str::to_owned).to_vec(),
        mount_options: names(facts::mount_options()),
        linux: Some(linux()),
        annotations,
        potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS.map(str::to_owned).to_vec(),
    }
}

fn linux() -> LinuxFeatures {
    let yes = Enabled { enabled: true };
    LinuxFeatures {
        namespaces: names(NAMESPACES),
        capabilities: capability::NAMES.map(str::to_owned).to_vec(),
        cgroup: Some(CgroupFeatures {
            v1: true,
            v2: true,
            systemd: true,
            systemd_user: true,
            rdma: true,
        }),
        seccomp: Some(seccomp()),
        apparmor: Some(yes),
        selinux: Some(yes),
        intel_rdt: Some(IntelRdtFeatures {
            enabled: true,
            schemata: true,
            monitoring: true,
        }),
        memory_policy: Some(MemoryPolicyFeatures {
            modes: names(facts::MEMORY_MODES.map(|(name, _)| name)),
            flags: names(facts::MEMORY_FLAGS.map(|(name, _)| name)),
        }),
        mount_extensions: Some(MountExtensions { idmap: yes }),
        net_devices: Some(yes),
    }
}

fn seccomp() -> SeccompFeatures {
    let list = |list: &[&str]| names(list.iter().copied());
    // Of `linux/seccomp.h`.
    let bit = |name: &str| match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => 1,
        "SECCOMP_FILTER_FLAG_LOG" => u64::from(carrack_seccomp::FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => u64::from(carrack_seccomp::FLAG_SPEC_ALLOW),
        // Means something only together with a listener.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
            u64::from(carrack_seccomp::FLAG_WAIT_KILLABLE_RECV) | 1 << 3
        }
        _ => u64::MAX,
    };
    let known = carrack_seccomp::FLAGS.iter().copied();
    SeccompFeatures {
        enabled: true,
        actions: list(carrack_seccomp::ACTIONS),
        operators: list(carrack_seccomp::OPERATORS),
        archs: list(carrack_seccomp::ARCHS),
        known_flags: list(carrack_seccomp::FLAGS),
        supported_flags: names(
            known.filter(|name| carrack_sys::seccomp::flag_supported(bit(name))),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_every_kernel_takes_is_supported() {
        let seccomp = seccomp();
        let tsync = "SECCOMP_FILTER_FLAG_TSYNC".to_owned();
        assert!(seccomp.supported_flags.contains(&tsync));
        assert!(seccomp.known_flags.contains(&tsync));
    }

    #[test]
    fn the_lists_are_sorted_and_full() {
        let features = features();
        assert!(features.mount_options.is_sorted());
        assert!(features.mount_options.len() > 50);
        assert_eq!(features.linux.unwrap().namespaces.len(), 8);
    }
}
