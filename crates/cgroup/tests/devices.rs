//! Device rules on the real kernel: what is denied cannot be opened or made, on v1 and on v2
//! (also the v2 side of a hybrid host, as device programs need no controller). Runs as root.

mod common;

use carrack_cgroup::{Driver, Group, Layout};
use carrack_spec::defaults::device_rules;
use carrack_spec::runtime::DeviceRule;
use carrack_testkit::{require, skip};
use common::{Guard, host};
use std::collections::BTreeMap;
use std::process::Command;

fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
    DeviceRule {
        allow,
        kind: kind.into(),
        major: (major >= 0).then_some(major),
        minor: (minor >= 0).then_some(minor),
        access: access.into(),
    }
}

/// Whether a shell command succeeds inside the group.
fn works(group: &Group, script: &str) -> bool {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(std::process::Stdio::null());
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    group.spawn(&mut command).unwrap().wait().unwrap().success()
}

/// The same expectations whatever carries the rules out.
fn check_rules(group: &Group) {
    assert!(works(group, ": <&0; read -r x </dev/zero & kill $!; true"));
    // The shell itself needs /dev/null here and there, so that stays allowed.
    let null = rule(true, "c", 1, 3, "rwm");
    group
        .apply_devices(&[rule(false, "a", -1, -1, "rwm"), null.clone()])
        .unwrap();
    assert!(works(group, "head -c 0 /dev/null"));
    assert!(!works(group, "exec 3</dev/zero"), "zero must be denied");
    let node = std::env::temp_dir().join(common::unique("node"));
    let mknod = format!("mknod {} c 1 5; s=$?; rm -f {0}; exit $s", node.display());
    assert!(!works(group, &mknod), "mknod must be denied");

    // Read but not write.
    group
        .apply_devices(&[
            rule(false, "a", -1, -1, "rwm"),
            null.clone(),
            rule(true, "c", 1, 5, "r"),
        ])
        .unwrap();
    assert!(works(group, "exec 3</dev/zero"));
    assert!(!works(group, "exec 3>/dev/zero"));

    // Everything but zero, and the update replaced what stood before.
    group
        .apply_devices(&[
            rule(true, "a", -1, -1, "rwm"),
            rule(false, "c", 1, 5, "rwm"),
        ])
        .unwrap();
    assert!(!works(group, "exec 3</dev/zero"));
    assert!(works(group, "exec 3</dev/full"));

    // What every container gets; without a rule for everything in front the rest is denied.
    group.apply_devices(&device_rules()).unwrap();
    assert!(works(group, "exec 3<>/dev/zero"));
    assert!(works(group, &mknod));
    assert!(!works(group, "exec 3</dev/kmsg"), "kmsg must be denied");
}

#[test]
fn rules_decide_on_the_hierarchy_of_this_host() {
    let layout = require!(host());
    check_rules(&Guard::new(&layout, "devices"));
}

/// A group that only has its v2 side, so that the program is used on a hybrid host too.
fn v2_only(layout: &Layout, group: &Group) -> Group {
    let paths: BTreeMap<String, String> = group
        .paths()
        .into_iter()
        .filter(|(key, _)| key.is_empty())
        .collect();
    Group::open(layout, &paths, Driver::Cgroupfs)
}

#[test]
fn rules_decide_as_a_program_on_v2() {
    let layout = require!(host());
    if layout.v2().is_none() {
        skip!("no v2 hierarchy");
    }
    let group = Guard::new(&layout, "program");
    let v2 = v2_only(&layout, &group);
    match v2.apply_devices(&device_rules()) {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
            skip!("loading eBPF is not permitted: {e}")
        }
        other => other.unwrap(),
    }
    check_rules(&v2);
    // However often it is updated, one program of ours is attached.
    let dir = std::fs::File::open(&group.paths()[""]).unwrap();
    let filters = carrack_sys::bpf::device_filters(std::os::fd::AsFd::as_fd(&dir)).unwrap();
    assert_eq!(filters.len(), 1);
}
