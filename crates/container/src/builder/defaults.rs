//! What a container gets that nobody asked for, and what it does not get.
//!
//! Names and numbers are facts of the kernel's interface; the choice is the one
//! that container engines have settled on.

use carrack_spec::runtime::Mount;

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

/// Files and directories that tell of the host.
pub const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files and directories that would change the host.
pub const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Which of the usual mounts fit the container.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// sysfs can be mounted: the network namespace belongs to the container's user namespace.
    pub own_sysfs: bool,
    /// Message queues can: the ipc namespace does.
    pub own_ipc: bool,
    /// The group of terminals, 5, has a meaning inside.
    pub tty_group: bool,
}

/// `/proc`, `/dev`, `/sys` and what is in them.
pub fn mounts(fit: Fit) -> Vec<Mount> {
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
    let plain = ["nosuid", "noexec", "nodev"];
    let readonly = ["nosuid", "noexec", "nodev", "ro"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &plain),
        mount("/dev", "tmpfs", "tmpfs", &dev),
        mount("/dev/pts", "devpts", "devpts", &terminals),
        mount("/dev/shm", "tmpfs", "shm", &shm),
    ];
    if fit.own_ipc {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &plain));
    }
    if fit.own_sysfs {
        mounts.push(mount("/sys", "sysfs", "sysfs", &readonly));
    } else {
        // The kernel lets nobody mount a sysfs of a network that is another user namespace's.
        let options = ["rbind", "rslave", "nosuid", "noexec", "nodev", "ro", "rro"];
        mounts.push(mount("/sys", "bind", "/sys", &options));
    }
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &readonly));
    mounts
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}
