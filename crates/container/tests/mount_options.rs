//! Options of mounts: what means nothing is refused, what is done to a mount later reaches
//! that mount and no other.

mod common;

use carrack_testkit::require;
use common::World;
use serde_json::{Value, json};

fn at(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

/// The lines of the container's mounts below `/a`, as place and options.
const SHOW: &str = "cut -d' ' -f5,6 /proc/self/mountinfo | grep ^/a; :";

#[test]
fn options_that_mean_nothing_for_a_mount_are_refused() {
    let bind = |options: &[&str]| json!({"destination": "/a", "type": "bind", "source": "/etc", "options": options});
    for (mount, word) in [
        (bind(&["rbind", "readonly"]), "readonly"),
        (bind(&["bind", "size=1m", "readonli"]), "readonli"),
        (bind(&["bind", "tmpcopyup"]), "tmpcopyup"),
        (at("/a", "cgroup", &["idmap"]), "id mappings"),
        (at("/a", "cgroup", &["tmpcopyup"]), "tmpcopyup"),
        (at("/a", "cgroup", &["size=1m"]), "size=1m"),
        (at("/a", "tmpfs", &["sise=1m"]), "sise=1m"),
    ] {
        let mut world = require!(World::new());
        world.bundle.push("/mounts", mount).args(["true"]);
        let error = world.error();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_file_on_a_directory_is_told_as_such() {
    let mut world = require!(World::new());
    let mount = json!({"destination": "/etc", "type": "bind", "source": "/etc/passwd", "options": ["bind"]});
    world.bundle.push("/mounts", mount).args(["true"]);
    let error = world.error();
    assert!(error.to_lowercase().contains("not a directory"), "{error}");
}

#[test]
fn a_remount_changes_what_is_there() {
    let mut world = require!(World::new());
    let bind =
        json!({"destination": "/a/bind", "type": "bind", "source": "/etc", "options": ["rbind"]});
    for mount in [
        at("/a/tmpfs", "tmpfs", &["size=64k"]),
        at("/a/tmpfs", "tmpfs", &["remount", "size=128k", "ro"]),
        bind,
        at("/a/bind", "none", &["remount", "bind", "ro", "nosuid"]),
        at("/a/both", "tmpfs", &["size=64k"]),
        at("/a/both/below", "tmpfs", &[]),
        at("/a/both", "none", &["remount", "bind", "ro"]),
    ] {
        world.bundle.push("/mounts", mount);
    }
    let text = world.sh(
        "cut -d' ' -f5,6 /proc/self/mountinfo | grep ^/a | sort; df /a/tmpfs | grep -c ' 128 '",
    );
    // What is bound from the host keeps the host's choice of access times.
    assert_eq!(
        text.replace("noatime", "relatime"),
        "/a/bind ro,nosuid,relatime\n/a/both ro,relatime\n/a/both/below rw,relatime\n\
         /a/tmpfs ro,relatime\n1\n"
    );
}

#[test]
fn recursive_options_reach_every_kind_of_file_system() {
    let mut world = require!(World::new());
    for kind in ["proc", "sysfs", "mqueue", "devpts"] {
        let mount = at(&format!("/a/{kind}"), kind, &["rro", "rnosuid", "rprivate"]);
        world.bundle.push("/mounts", mount);
    }
    let text = world.sh(SHOW);
    assert_eq!(text.matches(" ro,nosuid,relatime\n").count(), 4, "{text}");
}

#[test]
fn recursive_options_of_a_cgroup_mount_reach_every_hierarchy() {
    for namespace in [false, true] {
        let mut world = require!(World::new());
        world
            .bundle
            .push("/mounts", at("/a", "cgroup", &["rro", "rnodev"]));
        if namespace {
            world.bundle.without_namespace("cgroup");
            world
                .bundle
                .push("/linux/namespaces", json!({"type": "cgroup"}));
        }
        let text = world.sh(SHOW);
        let attributes = |line: &str| line.contains(" ro,") && line.contains("nodev");
        assert!(!text.is_empty() && text.lines().all(attributes), "{text}");
    }
}

#[test]
fn a_directory_moved_meanwhile_does_not_lead_the_delayed_read_only_astray() {
    let mut world = require!(World::new());
    for mount in [
        at("/a/one", "tmpfs", &["ro"]),
        at("/a/other", "tmpfs", &[]),
        at("/a/groups", "cgroup", &["ro"]),
    ] {
        world.bundle.push("/mounts", mount);
    }
    // A hook in the place of somebody who shares the root file system: it runs once all is mounted.
    let rootfs = world.bundle.rootfs();
    let script = format!(
        "cd {}/a && mv one moved && ln -s /a/other one && mv groups away && ln -s /a/other groups",
        rootfs.display()
    );
    world.bundle.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}),
    );
    let text = world.sh(SHOW);
    assert!(text.contains("/a/moved ro,"), "{text}");
    assert!(text.contains("/a/other rw,"), "{text}");
    let groups = text.lines().find(|line| line.starts_with("/a/away "));
    assert!(groups.is_some_and(|line| line.contains(" ro,")), "{text}");
}

#[test]
fn an_unbindable_root_may_have_protected_paths() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/rootfsPropagation", json!("runbindable"))
        .set("/linux/readonlyPaths", json!(["/etc"]))
        .set("/linux/maskedPaths", json!(["/proc/keys"]));
    let text = world.sh(
        "touch /etc/x 2>&1; grep ' / / ' /proc/self/mountinfo; grep ' / ' /proc/self/mountinfo",
    );
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.contains("unbindable"), "{text}");
}
