//! The `config.json` that tests start from: what engines usually ask for, with
//! every namespace but user and time.

use serde_json::{Value, json};

/// A whole configuration that runs `sh` in a private root file system.
pub fn default() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "testkit",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "cwd": "/",
            "env": ["PATH=/bin", "HOME=/root"],
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities(),
                "effective": capabilities(),
                "permitted": capabilities(),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        },
        "mounts": mounts(),
        "linux": {
            "namespaces": namespaces(),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn namespaces() -> Value {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

fn capabilities() -> Value {
    json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"])
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
            ]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"]
        ),
    ])
}

/// What an ordinary user cannot have is taken out, and a user namespace with one id put in.
pub fn rootless(config: &mut Value, uid: u32, gid: u32) {
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("uidMappings".into(), map(uid));
        linux.insert("gidMappings".into(), map(gid));
        if let Some(list) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            list.push(json!({"type": "user"}));
        }
    }
    let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) else {
        return;
    };
    for mount in mounts {
        // One id is mapped, so group 5 has no meaning inside.
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|option| option != "gid=5");
        }
    }
}
