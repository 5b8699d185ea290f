//! `spec`: writes a `config.json` to start from.

use crate::args::{Arity, Command, Flag};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use carrack_spec::defaults::{self, Fit};
use carrack_spec::runtime::*;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

static BUNDLE: Flag = Flag::text(
    "bundle",
    "DIR",
    "the bundle to write config.json into (default: the current directory)",
)
.short('b');
static ROOTLESS: Flag = Flag::switch(
    "rootless",
    "write one that an ordinary user can run: a user namespace, no network namespace, no limits",
);

/// The command.
pub static COMMAND: Command = Command {
    name: "spec",
    summary: "write a config.json to start from",
    arguments: "",
    description:
        "   Writes config.json into the bundle; one that is there already is left alone. The
   container it describes runs sh at a terminal, on a read-only root file system in the
   directory rootfs, with three capabilities and namespaces of its own.",
    flags: &[&BUNDLE, &ROOTLESS],
    arity: Arity::Exactly(0),
    hidden: false,
    run,
};

/// Capabilities of the example's process.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
/// What the example masks: runc's list, shorter than the default of the engines.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
fn run(context: &Context) -> Result<u8, Failure> {
    let directory = context
        .matches
        .text(&BUNDLE)
        .map_or(Path::new("."), Path::new);
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut spec = example(unified);
    if context.matches.on(&ROOTLESS) {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        make_rootless(&mut spec, uid, gid);
    }
    let text = output::json_pretty(&spec, "\t")?;
    let path = directory.join("config.json");
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::State(format!(
            "File {} exists. Remove it first",
            path.display()
        ))),
        Err(error) => Err(Failure::file("write", path, error)),
    }
}

fn strings<const N: usize>(list: [&str; N]) -> Vec<String> {
    list.map(str::to_owned).to_vec()
}

/// The example; with `unified`, for a host with cgroup v2 alone.
fn example(unified: bool) -> Spec {
    Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(process()),
        root: Some(Root {
            path: "rootfs".into(),
            readonly: true,
        }),
        hostname: "carrack".into(),
        mounts: mounts(),
        linux: Some(linux(unified)),
        ..Spec::default()
    }
}

fn process() -> Process {
    let capabilities = strings(CAPABILITIES);
    Process {
        terminal: true,
        args: strings(["sh"]),
        env: vec![format!("PATH={}", defaults::PATH), "TERM=xterm".to_owned()],
        cwd: "/".into(),
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            hard: 1024,
            soft: 1024,
        }],
        no_new_privileges: true,
        ..Process::default()
    }
}

/// The usual ones; people who edit the example find no options at `/proc`, as runc has it.
fn mounts() -> Vec<Mount> {
    let mut mounts = defaults::mounts(Fit {
        own_sysfs: true,
        own_ipc: true,
        tty_group: true,
        writable: false,
    });
    for mount in mounts.iter_mut().filter(|mount| mount.kind == "proc") {
        mount.options.clear();
    }
    mounts
}

fn linux(unified: bool) -> Linux {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let mut kinds = vec![Pid, Network, Ipc, Uts, Mount];
    if unified {
        kinds.push(Cgroup);
    }
    Linux {
        namespaces: kinds.into_iter().map(namespace).collect(),
        resources: Some(Resources {
            devices: vec![DeviceRule {
                allow: false,
                access: "rwm".into(),
                ..DeviceRule::default()
            }],
            ..Resources::default()
        }),
        masked_paths: strings(MASKED),
        readonly_paths: strings(defaults::READONLY_PATHS),
        ..Linux::default()
    }
}

fn namespace(kind: NamespaceKind) -> Namespace {
    Namespace {
        kind,
        path: String::new(),
    }
}

/// Takes out what an ordinary user may not do, and maps the user to root.
fn make_rootless(spec: &mut Spec, uid: u32, gid: u32) {
    if let Some(linux) = &mut spec.linux {
        linux
            .namespaces
            .retain(|namespace| namespace.kind != NamespaceKind::Network);
        linux.namespaces.push(namespace(NamespaceKind::User));
        let single = |host_id| {
            vec![IdMapping {
                container_id: 0,
                host_id,
                size: 1,
            }]
        };
        linux.uid_mappings = single(uid);
        linux.gid_mappings = single(gid);
        linux.resources = None;
    }
    for mount in &mut spec.mounts {
        if mount.destination == "/sys" {
            // sysfs belongs to the network namespace, which is the host's.
            mount.kind = "none".into();
            mount.source = "/sys".into();
            mount.options = strings(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        } else {
            // Only one id is mapped.
            let fits = |option: &String| !option.starts_with("uid=") && !option.starts_with("gid=");
            mount.options.retain(fits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_survives_a_round_trip() {
        for unified in [false, true] {
            let spec = example(unified);
            let text = output::json_pretty(&spec, "\t").unwrap();
            assert_eq!(Spec::from_json(text.as_bytes()).unwrap(), spec);
        }
    }

    #[test]
    fn the_rootless_example_needs_no_rights() {
        let mut spec = example(true);
        make_rootless(&mut spec, 1000, 1001);
        let linux = spec.linux.unwrap();
        let kinds: Vec<_> = linux.namespaces.iter().map(|n| n.kind).collect();
        assert!(!kinds.contains(&NamespaceKind::Network));
        assert!(kinds.contains(&NamespaceKind::User));
        assert_eq!(linux.uid_mappings[0].host_id, 1000);
        assert_eq!(linux.gid_mappings[0].host_id, 1001);
        assert!(linux.resources.is_none());
        let all = spec.mounts.iter().flat_map(|m| &m.options);
        assert!(all.clone().all(|option| option != "gid=5"));
        assert_eq!(spec.mounts.iter().filter(|m| m.source == "/sys").count(), 1);
    }
}
