//! What a configuration must and must not say, checked before anything is made.
//!
//! Pure. Every rule names the property and the reason. Rules that depend on the
//! machine (a controller that is missing, a mount source) are where the thing is used.

use crate::error::Error;
use crate::userns;
use carrack_spec::runtime::{Linux, NamespaceKind, Spec};

/// Checks the document.
pub fn spec(spec: &Spec) -> Result<(), Error> {
    version(&spec.oci_version)?;
    for (name, present) in [
        ("solaris", spec.solaris.is_some()),
        ("windows", spec.windows.is_some()),
        ("vm", spec.vm.is_some()),
        ("zos", spec.zos.is_some()),
        ("freebsd", spec.freebsd.is_some()),
    ] {
        if present {
            return Err(Error::invalid(
                name,
                "this runtime runs Linux containers only",
            ));
        }
    }
    if spec.root.as_ref().is_none_or(|root| root.path.is_empty()) {
        return Err(Error::invalid("root.path", "is missing"));
    }
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::invalid("process", "is missing"))?;
    if !process.command_line.is_empty() {
        return Err(Error::invalid(
            "process.commandLine",
            "is for Windows; use process.args",
        ));
    }
    hooks(spec)?;
    crun_annotations(spec)?;
    let empty = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&empty);
    namespaces(spec, linux)?;
    sysctls(linux)?;
    net_devices(linux)
}

fn version(text: &str) -> Result<(), Error> {
    let mut parts = text.split(['.', '-', '+']);
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<u32>().ok());
    match (
        number(parts.next()),
        number(parts.next()),
        number(parts.next()),
    ) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        _ if text.is_empty() => Err(Error::invalid("ociVersion", "is missing")),
        _ => Err(Error::invalid(
            "ociVersion",
            format!("{text:?} is none of 1.x.y, which this runtime follows"),
        )),
    }
}

/// Annotations of crun (`run.oci.…`) that change what runs or what confines it, and that nobody
/// here carries out.
const REFUSED_ANNOTATIONS: [&str; 8] = [
    "delegate-cgroup",
    "handler",
    "pidfd_receiver",
    "seccomp.plugins",
    "seccomp.receiver",
    "seccomp_bpf_data",
    "seccomp_fail_unknown_syscall",
    "systemd.force_cgroup_v1",
];

/// Kinds of SELinux mount options, for `run.oci.mount_context_type`.
const CONTEXT_TYPES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// `docs/runtime-cli.md` has the list for people.
fn crun_annotations(spec: &Spec) -> Result<(), Error> {
    const PREFIX: &str = "run.oci.";
    for (whole, value) in &spec.annotations {
        let Some(name) = whole.strip_prefix(PREFIX) else {
            continue;
        };
        let refuse = |reason: String| {
            let field = format!("annotations[{whole:?}]");
            Err(Error::invalid(field, reason))
        };
        match name {
            "keep_original_groups" => {}
            "mount_context_type" if CONTEXT_TYPES.contains(&value.as_str()) => {}
            "mount_context_type" => {
                return refuse(format!("{value:?} is none of {}", CONTEXT_TYPES.join(", ")));
            }
            // No sub-cgroup is what there is here anyway.
            "systemd.subgroup" if value.is_empty() => {}
            name if REFUSED_ANNOTATIONS.contains(&name) => {
                return refuse("this runtime does not have that extension of crun".to_owned());
            }
            _ => log::warn!("config.json: annotations[{whole:?}] means nothing to this runtime"),
        }
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<(), Error> {
    let Some(hooks) = &spec.hooks else {
        return Ok(());
    };
    for (name, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (index, hook) in list.iter().enumerate() {
            let field = |part: &str| format!("hooks.{name}[{index}].{part}");
            if !hook.path.starts_with('/') {
                return Err(Error::invalid(
                    field("path"),
                    format!("{:?} is not absolute", hook.path),
                ));
            }
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err(Error::invalid(field("timeout"), "must be above zero"));
            }
        }
    }
    Ok(())
}

/// Whether the container has its own namespace of a kind: a new one or one joined by path.
pub fn has(linux: &Linux, kind: NamespaceKind) -> bool {
    linux
        .namespaces
        .iter()
        .any(|namespace| namespace.kind == kind)
}

/// Whether a new namespace of the kind is made.
pub fn makes(linux: &Linux, kind: NamespaceKind) -> bool {
    linux
        .namespaces
        .iter()
        .any(|namespace| namespace.kind == kind && namespace.path.is_empty())
}

/// The file of the kind of namespace that is joined.
pub fn path_of(linux: &Linux, kind: NamespaceKind) -> Option<&str> {
    let joined = |namespace: &&carrack_spec::runtime::Namespace| {
        namespace.kind == kind && !namespace.path.is_empty()
    };
    let found = linux.namespaces.iter().find(joined)?;
    Some(&found.path)
}

fn namespaces(spec: &Spec, linux: &Linux) -> Result<(), Error> {
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if linux
            .namespaces
            .iter()
            .take(index)
            .any(|earlier| earlier.kind == namespace.kind)
        {
            return Err(Error::invalid(
                field,
                format!("{:?} is listed twice", namespace.kind),
            ));
        }
        if !namespace.path.is_empty() && !namespace.path.starts_with('/') {
            return Err(Error::invalid(
                field,
                format!("path {:?} is not absolute", namespace.path),
            ));
        }
    }
    let needs = |field: &str, asked: bool, kind: NamespaceKind, what: &str| {
        if asked && !has(linux, kind) {
            return Err(Error::invalid(
                field,
                format!("needs a {what} namespace in linux.namespaces"),
            ));
        }
        Ok(())
    };
    use NamespaceKind::{Mount, Network, Time, User, Uts};
    needs("hostname", !spec.hostname.is_empty(), Uts, "uts")?;
    needs("domainname", !spec.domainname.is_empty(), Uts, "uts")?;
    needs("mounts", true, Mount, "mount")?;
    needs(
        "linux.netDevices",
        !linux.net_devices.is_empty(),
        Network,
        "network",
    )?;
    needs(
        "linux.timeOffsets",
        !linux.time_offsets.is_empty(),
        Time,
        "time",
    )?;
    for (clock, offset) in &linux.time_offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(
                "linux.timeOffsets",
                format!("{clock:?} is neither monotonic nor boottime"),
            ));
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(Error::invalid(
                "linux.timeOffsets",
                format!("{} nanoseconds are a second or more", offset.nanosecs),
            ));
        }
    }
    if !linux.time_offsets.is_empty() && !makes(linux, Time) {
        return Err(Error::invalid(
            "linux.timeOffsets",
            "a time namespace that is joined keeps its offsets",
        ));
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    needs("linux.uidMappings", mapped, User, "user")?;
    if makes(linux, User) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return Err(Error::invalid(
            "linux.uidMappings",
            "a new user namespace needs uidMappings and gidMappings",
        ));
    }
    userns::validate(&linux.uid_mappings, "linux.uidMappings")?;
    userns::validate(&linux.gid_mappings, "linux.gidMappings")
}

/// Kernel parameters that belong to a namespace, by name or prefix.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.auto_msgmni",
];

fn sysctls(linux: &Linux) -> Result<(), Error> {
    use NamespaceKind::{Ipc, Network, User, Uts};
    for name in linux.sysctl.keys() {
        let field = || format!("linux.sysctl[{name:?}]");
        let refuse = |reason: &str| Err(Error::invalid(field(), reason));
        // `net/ipv4/conf/eth0.1/x` and `net.ipv4.conf.eth0/1.x` are both in use: the first separator tells.
        let dotted = sysctl_path(name).replace('.', "\u{1}").replace('/', ".");
        if dotted
            .split('.')
            .any(|part| part.is_empty() || part == "\u{1}\u{1}" || part == "\u{1}")
        {
            return refuse("is no name of a kernel parameter");
        }
        let in_ipc = IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let (kind, what) = if in_ipc {
            (Ipc, "an ipc")
        } else if dotted.starts_with("net.") {
            (Network, "a network")
        } else if dotted == "kernel.domainname" {
            (Uts, "a uts")
        } else if dotted.starts_with("user.") {
            (User, "a user")
        } else if dotted == "kernel.hostname" {
            return refuse("is set by hostname");
        } else {
            return refuse("belongs to no namespace: it would change the host");
        };
        if !has(linux, kind) {
            return refuse(&format!("needs {what} namespace of the container's own"));
        }
    }
    Ok(())
}

/// The path of a kernel parameter below `/proc/sys`: whichever of `.` and `/`
/// comes first is the separator, and the other stands for itself (sysctl.d(5)).
pub fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    }
}

/// Longest interface name, `IFNAMSIZ` without its terminator.
const INTERFACE_BYTES_MAX: usize = 15;

fn net_devices(linux: &Linux) -> Result<(), Error> {
    let fits = |name: &str| {
        !name.is_empty()
            && name.len() <= INTERFACE_BYTES_MAX
            && name != "."
            && name != ".."
            && !name.contains(['/', ':'])
            && !name.contains(char::is_whitespace)
    };
    for (host, device) in &linux.net_devices {
        let renamed = device.name.is_empty() || fits(&device.name);
        if !fits(host) || !renamed {
            return Err(Error::invalid(
                "linux.netDevices",
                format!("{host:?} -> {:?} is no interface name", device.name),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(linux: &str) -> Result<(), Error> {
        let json = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"process":{{"args":["x"],"cwd":"/","user":{{"uid":0,"gid":0}}}},"linux":{linux}}}"#
        );
        spec(&Spec::from_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn a_plain_container_is_fine() {
        check(r#"{"namespaces":[{"type":"mount"},{"type":"pid"}]}"#).unwrap();
    }

    #[test]
    fn contradictions_are_refused_by_field() {
        for (linux, field) in [
            (r#"{}"#, "mounts"),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#,
                "linux.namespaces[1]",
            ),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"pid","path":"rel"}]}"#,
                "linux.namespaces[1]",
            ),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#,
                "linux.uidMappings",
            ),
            (
                r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "linux.uidMappings",
            ),
            (
                r#"{"namespaces":[{"type":"mount"}],"timeOffsets":{"monotonic":{"secs":1}}}"#,
                "linux.timeOffsets",
            ),
            (
                r#"{"namespaces":[{"type":"mount"}],"sysctl":{"net.ipv4.ip_forward":"1"}}"#,
                "linux.sysctl",
            ),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"ipc"}],"sysctl":{"kernel.panic":"1"}}"#,
                "linux.sysctl",
            ),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"network"}],"sysctl":{"net/../kernel/panic":"1"}}"#,
                "linux.sysctl",
            ),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"network"}],"netDevices":{"a/b":{}}}"#,
                "linux.netDevices",
            ),
        ] {
            let error = check(linux).unwrap_err().to_string();
            assert!(error.contains(field), "{linux}: {error}");
        }
    }

    #[test]
    fn both_separators_of_parameter_names_work() {
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
    }

    #[test]
    fn extensions_of_crun_are_carried_out_or_refused() {
        let of = |name: &str, value: &str| {
            let json = format!(r#"{{"annotations":{{"{name}":"{value}"}}}}"#);
            crun_annotations(&Spec::from_json(json.as_bytes()).unwrap())
        };
        for (name, value) in [
            ("run.oci.keep_original_groups", "1"),
            ("run.oci.mount_context_type", "rootcontext"),
            ("run.oci.systemd.subgroup", ""),
            ("run.oci.hooks.stdout", "/tmp/x"),
            ("org.example", "1"),
        ] {
            of(name, value).unwrap();
        }
        for (name, value) in [
            ("run.oci.mount_context_type", "file"),
            ("run.oci.handler", "krun"),
            ("run.oci.seccomp_bpf_data", "AAAA"),
        ] {
            let error = of(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn versions_are_checked() {
        for good in ["1.0.0", "1.2.1", "1.3.0-dev", "1.0.2+x"] {
            version(good).unwrap();
        }
        for bad in ["", "2.0.0", "1", "one"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
