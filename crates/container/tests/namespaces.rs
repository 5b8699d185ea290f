//! Namespaces on the real kernel: new, shared, joined by path; user namespaces with maps;
//! clocks; network devices.

mod common;

use carrack_testkit::{require, skip, unique, wait_until};
use common::{World, status_line, user_namespace};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn own(file: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
    link.to_string_lossy().into_owned()
}

fn links(world: &mut World) -> String {
    world.sh("for k in pid net mnt ipc uts cgroup time user; do readlink /proc/self/ns/$k; done")
}

#[test]
fn each_namespace_is_new_or_the_callers_as_listed() {
    let mut world = require!(World::new());
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "time"}));
    let all = links(&mut world);
    for (_, file) in KINDS {
        assert!(!all.contains(&own(file)), "{file} is new: {all}");
    }
    assert!(
        all.contains(&own("user")),
        "the user namespace is the caller's"
    );
    for (kind, file) in KINDS {
        if kind == "mount" {
            continue;
        }
        let mut world = require!(World::new());
        world.bundle.without_namespace(kind);
        if kind == "uts" {
            world.bundle.remove("/hostname");
        }
        if kind == "network" {
            // sysfs shows the network of whoever mounts it; that is fine for real root.
        }
        let some = links(&mut world);
        assert!(some.contains(&own(file)), "{file} is shared: {some}");
    }
}

#[test]
fn a_container_without_a_pid_namespace_is_no_process_1_and_is_killed_whole() {
    let mut world = require!(World::new());
    world.bundle.without_namespace("pid");
    world.bundle.shell("sleep 100 & sleep 100 & echo $$; wait");
    let mut live = world.start();
    let pid = live.expect("\n").trim().parse::<i32>().unwrap();
    assert_eq!(pid, live.pid());
    live.container().kill(9, false).unwrap();
    live.wait();
    wait_until("end of the others", || {
        live.container().processes().unwrap().is_empty()
    });
    live.delete();
}

#[test]
fn namespaces_are_joined_by_path() {
    let mut first = require!(World::new());
    first.bundle.args(["sleep", "100"]);
    first.bundle.set("/hostname", json!("first"));
    first
        .bundle
        .push("/linux/namespaces", json!({"type": "time"}));
    first.bundle.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 5_000_000}}),
    );
    let live = first.start();
    for (kind, file) in KINDS {
        if kind == "mount" {
            continue;
        }
        let mut world = require!(World::new());
        world.bundle.without_namespace(kind);
        if kind == "uts" {
            world.bundle.remove("/hostname");
        }
        let path = format!("/proc/{}/ns/{file}", live.pid());
        let wanted = std::fs::read_link(&path).unwrap();
        world
            .bundle
            .push("/linux/namespaces", json!({"type": kind, "path": path}));
        let seen = links(&mut world);
        assert!(seen.contains(&*wanted.to_string_lossy()), "{kind}: {seen}");
        if kind == "uts" {
            assert_eq!(world.sh("hostname"), "first\n");
        }
        if kind == "time" {
            let uptime = world.sh("cut -d. -f1 /proc/uptime");
            assert!(
                uptime.trim().parse::<u64>().unwrap() >= 5_000_000,
                "{uptime}"
            );
        }
        if kind == "pid" {
            assert!(world.sh("ps").contains("sleep 100"));
        }
    }
    live.delete();
}

#[test]
fn all_namespaces_can_be_joined_at_once_with_their_user_namespace() {
    let mut first = require!(World::new());
    user_namespace(&mut first);
    first.bundle.args(["sleep", "100"]);
    let live = first.start();
    let mut world = require!(World::new());
    world.bundle.chown(200_000, 200_000);
    world
        .bundle
        .set("/linux/namespaces", json!([{"type": "mount"}]));
    world.bundle.remove("/hostname");
    for (kind, file) in [
        ("user", "user"),
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ] {
        let path = format!("/proc/{}/ns/{file}", live.pid());
        world
            .bundle
            .push("/linux/namespaces", json!({"type": kind, "path": path}));
    }
    let seen = links(&mut world);
    for file in ["user", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = std::fs::read_link(format!("/proc/{}/ns/{file}", live.pid())).unwrap();
        assert!(seen.contains(&*link.to_string_lossy()), "{file}: {seen}");
    }
    assert_eq!(world.sh("id -u"), "0\n");
    // Its own mappings may be named too, and idmapped mounts are mapped by it.
    let own = first.bundle.config["linux"]["uidMappings"].clone();
    world.bundle.set("/linux/uidMappings", own.clone());
    world.bundle.set("/linux/gidMappings", own);
    world.bundle.push(
        "/mounts",
        json!({"destination": "/mapped", "type": "bind", "source": "/etc", "options": ["bind", "idmap"]}),
    );
    assert_eq!(world.sh("stat -c %u /mapped/passwd"), "0\n");
    let others = json!([{"containerID": 0, "hostID": 1_000_000, "size": 5}]);
    world.bundle.set("/linux/uidMappings", others);
    let error = world.error();
    assert!(error.contains("linux.uidMappings"), "{error}");
    live.delete();
}

#[test]
fn a_new_user_namespace_joins_others_of_the_host() {
    let mut first = require!(World::new());
    first.bundle.args(["sleep", "100"]);
    let live = first.start();
    let mut world = require!(World::new());
    user_namespace(&mut world);
    world.bundle.without_namespace("ipc");
    let path = format!("/proc/{}/ns/ipc", live.pid());
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "ipc", "path": path}));
    // A message queue file system belongs to the user namespace of its ipc namespace.
    drop_mount(&mut world, "/dev/mqueue");
    let wanted = std::fs::read_link(&path).unwrap();
    let seen = links(&mut world);
    assert!(seen.contains(&*wanted.to_string_lossy()), "{seen}");
    live.delete();
}

#[test]
fn a_path_that_is_no_namespace_of_the_kind_is_an_error() {
    let mut world = require!(World::new());
    world.bundle.without_namespace("ipc");
    world.bundle.push(
        "/linux/namespaces",
        json!({"type": "ipc", "path": "/proc/self/ns/net"}),
    );
    let error = world.error();
    assert!(error.contains("ipc"), "{error}");
    world.bundle.without_namespace("ipc");
    world.bundle.push(
        "/linux/namespaces",
        json!({"type": "ipc", "path": "/no/such"}),
    );
    let error = world.error();
    assert!(error.contains("/no/such"), "{error}");
}

fn drop_mount(world: &mut World, destination: &str) {
    let mounts = world.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != destination);
}

#[test]
fn a_user_namespace_has_its_maps_devices_and_mounts() {
    let mut world = require!(World::new());
    user_namespace(&mut world);
    let text = world.sh(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /made; stat -c %u /made; \
         stat -c %t:%T /dev/null; echo gone > /dev/null; head -c 4 /dev/zero | wc -c; \
         stat -c %g /dev/pts/ptmx; cat /proc/self/setgroups",
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "0", "200000", "65536", "0", "200000", "65536", "0", "0", "1:3", "4", "0", "allow"
        ]
    );
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(world.bundle.rootfs().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (200_000, 200_000));
}

#[test]
fn a_user_namespace_sees_idmapped_mounts_with_its_own_ids() {
    let mut world = require!(World::new());
    user_namespace(&mut world);
    let shared = world.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "x").unwrap();
    world.bundle.push(
        "/mounts",
        json!({"destination": "/mapped", "source": shared, "options": ["bind", "idmap"]}),
    );
    world.bundle.push(
        "/mounts",
        json!({"destination": "/plain", "source": shared, "options": ["bind"]}),
    );
    let text = world.sh("stat -c %u /mapped/file /plain/file; touch /mapped/new");
    assert_eq!(text, "0\n65534\n");
    use std::os::unix::fs::MetadataExt;
    let new = std::fs::metadata(shared.join("new")).unwrap();
    assert_eq!(new.uid(), 0, "what root inside makes is root's on disk");
}

#[test]
fn two_ranges_of_ids_are_mapped() {
    let mut world = require!(World::new());
    user_namespace(&mut world);
    let map = json!([
        {"containerID": 0, "hostID": 200_000, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 10},
    ]);
    world.bundle.set("/linux/uidMappings", map.clone());
    world.bundle.set("/linux/gidMappings", map);
    world.bundle.set(
        "/process/user",
        json!({"uid": 1001, "gid": 1002, "additionalGids": [1003]}),
    );
    world.bundle.args(["sleep", "100"]);
    let live = world.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", live.pid())).unwrap();
    assert!(
        status_line(&status, "Uid").starts_with("300001\t300001"),
        "{status}"
    );
    assert!(
        status_line(&status, "Gid").starts_with("300002"),
        "{status}"
    );
    assert_eq!(status_line(&status, "Groups"), "300003");
    live.delete();
}

#[test]
fn exec_enters_every_namespace() {
    let mut world = require!(World::new());
    user_namespace(&mut world);
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let text = live.exec(
        "for k in pid net mnt ipc uts cgroup user; do readlink /proc/self/ns/$k; done; id -u",
    );
    for file in ["pid", "net", "mnt", "ipc", "uts", "cgroup", "user"] {
        let link = std::fs::read_link(format!("/proc/{}/ns/{file}", live.pid())).unwrap();
        assert!(text.contains(&*link.to_string_lossy()), "{file}: {text}");
    }
    assert!(text.ends_with("\n0\n"), "{text}");
    live.delete();
}

#[test]
fn clocks_are_shifted_also_for_an_exec() {
    let mut world = require!(World::new());
    require!(skip::exists("/proc/self/ns/time"));
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "time"}));
    world.bundle.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}}),
    );
    let shown = "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets";
    let text = world.sh(shown);
    let mut lines = text.lines();
    assert!(lines.next().unwrap().parse::<u64>().unwrap() >= 1_000_000);
    let rest: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    assert_eq!(rest, ["monotonic", "7", "0", "boottime", "1000000", "5"]);
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let uptime = live.exec("cut -d. -f1 /proc/uptime");
    assert!(
        uptime.trim().parse::<u64>().unwrap() >= 1_000_000,
        "{uptime}"
    );
    live.delete();
    let mut first = require!(World::new());
    user_namespace(&mut first);
    first.bundle.args(["sleep", "100"]);
    let live = first.start();
    let user = json!({"type": "user", "path": format!("/proc/{}/ns/user", live.pid())});
    world.bundle.chown(200_000, 200_000);
    world.bundle.push("/linux/namespaces", user);
    assert!(world.sh(shown).lines().next() >= Some("1000000"));
    live.delete();
    world.bundle.without_namespace("user");
    user_namespace(&mut world);
    assert!(world.sh(shown).lines().next() >= Some("1000000"));
}

#[test]
fn a_new_network_has_loopback_up_and_nothing_else() {
    let mut world = require!(World::new());
    let text = world.sh("ls /sys/class/net; ip link show lo; ping -c 1 -W 1 127.0.0.1 || ip addr");
    assert!(text.starts_with("lo\n"), "{text}");
    assert!(text.contains("UP"), "{text}");
    assert!(
        text.contains("inet 127.0.0.1/8") || text.contains("1 packets received"),
        "{text}"
    );
}

/// A network namespace of a test, with a name for ip(8).
struct Net(String);

impl Net {
    fn new() -> Net {
        let name = unique();
        ip(&["netns", "add", &name]);
        Net(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    fn ip(&self, args: &[&str]) -> String {
        ip(&[&["-n", self.0.as_str()], args].concat())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn network_devices_move_in_under_a_new_name_with_their_addresses() {
    let mut world = require!(World::new());
    require!(skip::program("ip"));
    require!(common::tools_are_free());
    // The runtime's own network: the test's thread visits it, as devices move from there.
    let net = Net::new();
    net.ip(&["link", "add", "ck0", "type", "veth", "peer", "name", "ck1"]);
    net.ip(&["addr", "add", "10.99.0.1/24", "dev", "ck0"]);
    net.ip(&["link", "set", "ck0", "up"]);
    net.ip(&["link", "set", "ck1", "up"]);
    world.bundle.set(
        "/linux/netDevices",
        json!({"ck0": {"name": "eth0"}, "ck1": {}}),
    );
    world.bundle.shell("ip -o addr; ip -o link");
    let file = std::fs::File::open(net.path()).unwrap();
    let text = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            use std::os::fd::AsFd;
            carrack_sys::clone::setns(file.as_fd(), carrack_sys::clone::ns::NET).unwrap();
            world.run()
        });
        inside.join().unwrap()
    });
    assert!(text.contains("10.99.0.1/24"), "{text}");
    assert!(text.contains("eth0@"), "{text}");
    assert!(text.contains("ck1@"), "{text}");
}

#[test]
fn network_devices_go_back_when_the_container_does_not_start() {
    let mut world = require!(World::new());
    require!(skip::program("ip"));
    require!(common::tools_are_free());
    let net = Net::new();
    net.ip(&["link", "add", "ck0", "type", "veth", "peer", "name", "ck1"]);
    net.ip(&["addr", "add", "10.99.0.1/24", "dev", "ck0"]);
    net.ip(&["link", "set", "ck0", "up"]);
    for (devices, program) in [
        // The kernel moves it before it finds that the name is taken.
        (json!({"ck0": {"name": "lo"}}), "true"),
        (
            json!({"ck0": {"name": "e0"}, "ck1": {"name": "e0"}}),
            "true",
        ),
        (json!({"ck0": {"name": "e0"}, "ck1": {}}), "no-such-program"),
    ] {
        world
            .bundle
            .set("/linux/netDevices", devices)
            .args([program]);
        let file = std::fs::File::open(net.path()).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd;
                carrack_sys::clone::setns(file.as_fd(), carrack_sys::clone::ns::NET).unwrap();
                world.error()
            });
            inside.join().unwrap()
        });
        net.ip(&["link", "show", "ck1"]);
        let text = net.ip(&["-o", "addr", "show", "dev", "ck0", "up"]);
        assert!(text.contains("10.99.0.1/24"), "{text}");
    }
}

#[test]
fn a_network_device_that_is_missing_is_an_error() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/netDevices", json!({"ck-none": {"name": "eth0"}}))
        .args(["true"]);
    let error = world.error();
    assert!(error.contains("ck-none"), "{error}");
}
