//! What a container gets that nobody asked for, and what it does not get.
//!
//! Names and numbers are facts of the kernel's interface; the choice is the one
//! that container engines have settled on and their users rely on.

use crate::runtime::{DeviceRule, Mount};

/// `PATH` of a process that sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities of root in a container.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Paths that tell too much about the host, or act on it when merely read.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths whose writing acts on the host.
pub const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The devices that every container has (`config-linux.md`, "Default Devices"): path, major and
/// minor number.
pub const DEVICES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];

/// Device access that every container has, as runc and crun allow it: making any node, and using
/// the default devices, the console and pseudo-terminals.
///
/// A runtime appends the rules to those of the configuration.
pub fn device_rules() -> Vec<DeviceRule> {
    let rule = |kind: &str, major, minor, access: &str| DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    let nodes = ["c", "b"].map(|kind| rule(kind, None, None, "m"));
    let devices = DEVICES.map(|(_, major, minor)| (major, Some(minor)));
    // console, ptmx, and every pseudo-terminal.
    let terminals = [(5, Some(1)), (5, Some(2)), (136, None)];
    let used = devices.into_iter().chain(terminals);
    let used = used.map(|(major, minor)| rule("c", Some(major), minor, "rwm"));
    nodes.into_iter().chain(used).collect()
}

/// Which of the usual mounts fit a container.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// sysfs can be mounted: the network namespace belongs to the container's user namespace.
    pub own_sysfs: bool,
    /// Message queues can: the ipc namespace does.
    pub own_ipc: bool,
    /// The group of terminals, 5, has a meaning inside.
    pub tty_group: bool,
    /// sysfs and cgroups can be written, for a privileged container.
    pub writable: bool,
}

/// `/proc`, `/dev`, `/sys` and what is in them.
pub fn mounts(fit: Fit) -> Vec<Mount> {
    let safe = ["nosuid", "noexec", "nodev"];
    let access = if fit.writable { "rw" } else { "ro" };
    let mut terminals = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if fit.tty_group {
        terminals.push("gid=5");
    }
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    let mut mounts = vec![
        Mount::new("/proc", "proc", "proc", &safe),
        Mount::new("/dev", "tmpfs", "tmpfs", &dev),
        Mount::new("/dev/pts", "devpts", "devpts", &terminals),
        Mount::new("/dev/shm", "tmpfs", "shm", &shm),
    ];
    if fit.own_ipc {
        mounts.push(Mount::new("/dev/mqueue", "mqueue", "mqueue", &safe));
    }
    let [nosuid, noexec, nodev] = safe;
    if fit.own_sysfs {
        let options = [nosuid, noexec, nodev, access];
        mounts.push(Mount::new("/sys", "sysfs", "sysfs", &options));
    } else {
        // The kernel lets nobody mount a sysfs of a network that is another user namespace's.
        let options = ["rbind", "rslave", nosuid, noexec, nodev, "ro", "rro"];
        mounts.push(Mount::new("/sys", "bind", "/sys", &options));
    }
    let options = [nosuid, noexec, nodev, "relatime", access];
    mounts.push(Mount::new("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Fit = Fit {
        own_sysfs: true,
        own_ipc: true,
        tty_group: true,
        writable: false,
    };

    #[test]
    fn defaults_are_known_capabilities() {
        for name in CAPABILITIES {
            assert!(crate::capability::number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_host_is_not_written_unless_asked_for() {
        let writable = |fit| {
            let mounts = mounts(fit).into_iter();
            mounts
                .filter(|m| m.options.iter().any(|option| option == "rw"))
                .map(|m| m.destination)
                .collect::<Vec<_>>()
        };
        assert!(writable(FULL).is_empty());
        let open = Fit {
            writable: true,
            ..FULL
        };
        assert_eq!(writable(open), ["/sys", "/sys/fs/cgroup"]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let poor = mounts(Fit {
            own_sysfs: false,
            own_ipc: false,
            tty_group: false,
            writable: false,
        });
        assert!(poor.iter().all(|m| m.kind != "mqueue" && m.kind != "sysfs"));
        let options = poor.iter().flat_map(|m| &m.options);
        assert!(options.into_iter().all(|option| option != "gid=5"));
    }

    #[test]
    fn every_default_device_may_be_used() {
        let rules = device_rules();
        for (path, major, minor) in DEVICES {
            let allows = |rule: &DeviceRule| {
                rule.allow
                    && rule.major == Some(major)
                    && rule.minor == Some(minor)
                    && rule.access == "rwm"
            };
            assert!(rules.iter().any(allows), "{path}");
        }
    }
}
