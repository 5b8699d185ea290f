//! From settings to a configuration: pure, and the only place that knows both.

use super::{ContainerBuilder, Network, Sharing};
use crate::error::Error;
use crate::validate;
use carrack_spec::defaults::{self, Fit};
use carrack_spec::runtime::{
    DeviceRule, IdMapping, Linux, Namespace, NamespaceKind, OCI_VERSION, Root, Spec,
};
use std::path::Path;

/// The group of terminals in every distribution.
const TTY_GROUP: u32 = 5;

/// The configuration of a container with these settings.
pub fn spec(builder: &ContainerBuilder) -> Result<Spec, Error> {
    if let Some((setting, reason)) = &builder.mistake {
        return Err(Error::Setting {
            setting,
            reason: reason.clone(),
        });
    }
    let mut spec = Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(builder.process.first_process()?),
        root: Some(Root {
            path: text("root", &builder.root)?,
            readonly: builder.read_only,
        }),
        hostname: builder.hostname.clone().unwrap_or_default(),
        domainname: builder.domainname.clone().unwrap_or_default(),
        annotations: builder.annotations.clone(),
        linux: Some(linux(builder)?),
        ..Spec::default()
    };
    if builder.default_mounts {
        spec.mounts = defaults::mounts(fit(builder));
    }
    // A mount of the caller's at a usual place stands in for the usual one.
    let taken = |destination: &str| builder.mounts.iter().any(|m| m.destination == destination);
    spec.mounts.retain(|mount| !taken(&mount.destination));
    spec.mounts.extend(builder.mounts.iter().cloned());
    let hooks = &builder.hooks;
    if *hooks != carrack_spec::runtime::Hooks::default() {
        spec.hooks = Some(hooks.clone());
    }
    validate::spec(&spec)?;
    Ok(spec)
}

fn linux(builder: &ContainerBuilder) -> Result<Linux, Error> {
    let mut resources = builder.limits.build()?;
    resources.devices.insert(
        0,
        DeviceRule {
            allow: false,
            access: "rwm".into(),
            ..DeviceRule::default()
        },
    );
    for device in &builder.devices {
        let kind = if device.kind == "u" {
            "c"
        } else {
            &device.kind
        };
        if kind != "p" {
            resources.devices.push(DeviceRule {
                allow: true,
                kind: kind.to_owned(),
                major: Some(device.major),
                minor: Some(device.minor),
                access: "rwm".into(),
            });
        }
    }
    let protect = |defaults: &[&str], more: &[String]| {
        let defaults = defaults.iter().filter(|_| builder.default_protection);
        let defaults = defaults.map(|&path| path.to_owned());
        defaults.chain(more.iter().cloned()).collect::<Vec<_>>()
    };
    Ok(Linux {
        uid_mappings: builder.uid_maps.clone(),
        gid_mappings: builder.gid_maps.clone(),
        sysctl: builder.sysctl.clone(),
        resources: Some(resources),
        cgroups_path: builder.cgroup.clone(),
        namespaces: namespaces(builder)?,
        devices: builder.devices.clone(),
        seccomp: builder.seccomp.clone(),
        masked_paths: protect(&defaults::MASKED_PATHS, &builder.masked),
        readonly_paths: protect(&defaults::READONLY_PATHS, &builder.readonly),
        time_offsets: builder.time_offsets.clone(),
        ..Linux::default()
    })
}

fn namespaces(builder: &ContainerBuilder) -> Result<Vec<Namespace>, Error> {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network as Net, Pid, Time, User, Uts};
    let mut list = Vec::with_capacity(8);
    let mut add = |kind, path| list.push(Namespace { kind, path });
    add(Mount, String::new());
    match &builder.network {
        Network::None => add(Net, String::new()),
        Network::Host => {}
        Network::Join(path) => add(Net, text("network", path)?),
    }
    let asked = |kind| match kind {
        User => !builder.uid_maps.is_empty() || !builder.gid_maps.is_empty(),
        Time => !builder.time_offsets.is_empty(),
        _ => true,
    };
    for kind in [User, Pid, Ipc, Uts, Cgroup, Time] {
        match builder.sharing.get(&kind) {
            Some(Sharing::Caller) => {}
            Some(Sharing::Path(path)) => add(kind, text("join", path)?),
            None if asked(kind) => add(kind, String::new()),
            None => {}
        }
    }
    Ok(list)
}

fn fit(builder: &ContainerBuilder) -> Fit {
    let joined = |kind| builder.sharing.contains_key(&kind);
    let own_user = !builder.uid_maps.is_empty();
    let user = own_user || joined(NamespaceKind::User);
    let in_map = |map: &IdMapping| TTY_GROUP.wrapping_sub(map.container_id) < map.size;
    Fit {
        own_sysfs: !user || builder.network == Network::None,
        own_ipc: !user || !joined(NamespaceKind::Ipc),
        tty_group: !user || builder.gid_maps.iter().any(in_map),
        writable: false,
    }
}

fn text(setting: &'static str, path: &Path) -> Result<String, Error> {
    let found = path.to_str().map(str::to_owned);
    found.ok_or_else(|| Error::Setting {
        setting,
        reason: format!("{path:?} is not UTF-8"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{HookStage, Stdio};
    use carrack_cgroup::Limits;
    use carrack_spec::runtime::{Device, Hook};

    fn builder() -> ContainerBuilder {
        ContainerBuilder::new("/r").command(["true"])
    }

    fn kinds(spec: &Spec) -> Vec<NamespaceKind> {
        let linux = spec.linux.as_ref().unwrap();
        linux.namespaces.iter().map(|n| n.kind).collect()
    }

    #[test]
    fn the_defaults_are_safe() {
        let spec = builder().build().unwrap();
        use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
        assert_eq!(kinds(&spec), [Mount, Network, Pid, Ipc, Uts, Cgroup]);
        let process = spec.process.unwrap();
        assert!(process.no_new_privileges);
        assert_eq!(process.capabilities.unwrap().effective.len(), 14);
        let linux = spec.linux.unwrap();
        assert!(linux.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert!(!linux.resources.unwrap().devices[0].allow);
    }

    #[test]
    fn what_is_built_is_what_is_read_back() {
        let spec = builder()
            .env("A", "1")
            .memory_limit("1GiB")
            .map_ids(0, 100_000, 65_536)
            .seccomp_json(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)
            .time_offset("boottime", 60)
            .build()
            .unwrap();
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(Spec::from_json(&text).unwrap(), spec);
    }

    #[test]
    fn shared_and_joined_namespaces_are_told_apart() {
        let spec = builder()
            .share(NamespaceKind::Pid)
            .join(NamespaceKind::Ipc, "/proc/1/ns/ipc")
            .network(Network::Host)
            .build()
            .unwrap();
        assert!(!kinds(&spec).contains(&NamespaceKind::Pid));
        assert!(!kinds(&spec).contains(&NamespaceKind::Network));
        let linux = spec.linux.unwrap();
        let ipc = linux
            .namespaces
            .iter()
            .find(|n| n.kind == NamespaceKind::Ipc);
        assert_eq!(ipc.unwrap().path, "/proc/1/ns/ipc");
    }

    #[test]
    fn a_user_keeps_only_what_was_added_by_name() {
        let spec = builder()
            .user(1000, 1000)
            .add_capability("net_admin")
            .drop_capability("CAP_MKNOD")
            .build()
            .unwrap();
        let caps = spec.process.unwrap().capabilities.unwrap();
        assert_eq!(caps.bounding.len(), 14);
        assert!(!caps.bounding.contains(&"CAP_MKNOD".to_owned()));
        assert_eq!(caps.ambient, ["CAP_NET_ADMIN"]);
        assert_eq!(caps.permitted, caps.ambient);
    }

    #[test]
    fn all_capabilities_can_be_dropped_but_one() {
        let spec = builder()
            .drop_capability("ALL")
            .add_capability("KILL")
            .build()
            .unwrap();
        let caps = spec.process.unwrap().capabilities.unwrap();
        assert_eq!(
            (caps.bounding, caps.effective),
            (vec!["CAP_KILL".to_owned()], vec!["CAP_KILL".to_owned()])
        );
    }

    #[test]
    fn an_own_mount_replaces_the_usual_one() {
        let spec = builder().tmpfs("/dev/shm", "1MiB").build().unwrap();
        let shm: Vec<_> = spec
            .mounts
            .iter()
            .filter(|m| m.destination == "/dev/shm")
            .collect();
        assert_eq!(shm.len(), 1);
        assert!(shm[0].options.contains(&"size=1048576".to_owned()));
    }

    #[test]
    fn a_device_comes_with_the_right_to_use_it() {
        let fuse = Device {
            kind: "c".into(),
            path: "/dev/fuse".into(),
            major: 10,
            minor: 229,
            ..Device::default()
        };
        let linux = builder().device(fuse).build().unwrap().linux.unwrap();
        let rule = linux.resources.unwrap().devices[1].clone();
        assert_eq!(
            (rule.allow, rule.major, rule.minor),
            (true, Some(10), Some(229))
        );
    }

    #[test]
    fn mistakes_name_their_setting() {
        for (builder, name) in [
            (ContainerBuilder::new("/r"), "command"),
            (builder().memory_limit("much"), "memory_limit"),
            (builder().tmpfs("/t", "big"), "tmpfs"),
            (builder().env("A=B", "c"), "env"),
            (builder().add_capability("CAP_FLY"), "add_capability"),
            (builder().seccomp_json("{"), "seccomp_json"),
            (builder().share(NamespaceKind::Mount), "share"),
            (builder().limits(Limits::new().cpu_quota(-1.0)), "cpu_quota"),
            (builder().map_users(0, 0, 1), "gidMappings"),
            (builder().time_offset("noon", 1), "timeOffsets"),
            (builder().sysctl("kernel.panic", "1"), "kernel.panic"),
            (
                builder().hook(HookStage::Poststop, Hook::default()),
                "poststop",
            ),
            (
                builder()
                    .stdin(Stdio::Null)
                    .hostname("x")
                    .share(NamespaceKind::Uts),
                "hostname",
            ),
        ] {
            let error = builder.build().unwrap_err();
            let source = std::error::Error::source(&error).map(|e| e.to_string());
            let text = format!("{error}: {}", source.unwrap_or_default());
            assert!(text.contains(name), "{text}");
        }
    }
}
