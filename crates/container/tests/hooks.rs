//! Hooks of all kinds on the real kernel: order, place, state, output, timeout, failure.

mod common;

use carrack_container::Exit;
use carrack_testkit::require;
use common::World;
use serde_json::{Value, json};
use std::path::Path;

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that runs a script with the host's shell.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "MARK=hook"]})
}

/// Each hook appends its kind, mount namespace and the state it got.
fn recorded(world: &mut World, log: &Path) {
    for kind in KINDS {
        let place = match kind {
            // These see the container's file system.
            "startContainer" => "/log".to_owned(),
            _ => log.display().to_string(),
        };
        let script = format!(
            "read -r state; {{ echo \"{kind} $MARK $(readlink /proc/self/ns/mnt)\"; \
             echo \"$state\"; }} >> {place}"
        );
        world.bundle.push(&format!("/hooks/{kind}"), hook(&script));
    }
    world.bundle.push(
        "/mounts",
        json!({"destination": "/log", "source": log, "options": ["bind"]}),
    );
}

#[test]
fn every_hook_runs_in_its_place_with_the_state() {
    let mut world = require!(World::new());
    let log = world.dir().join("log");
    std::fs::write(&log, "").unwrap();
    recorded(&mut world, &log);
    world
        .bundle
        .set("/annotations", json!({"org.example": "value"}));
    world
        .bundle
        .shell("echo program >> /log; readlink /proc/self/ns/mnt");
    let mut live = world.create();
    let text = std::fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = text
        .lines()
        .step_by(2)
        .map(|l| l.split(' ').next().unwrap())
        .collect();
    assert_eq!(order, KINDS[..3], "what runs at create");
    live.container().start().unwrap();
    let exit = live.wait();
    let inside = live.output();
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(exit, Exit::Code(0), "{inside}{text}");
    let pid = live.pid();
    live.delete();
    let text = std::fs::read_to_string(&log).unwrap();
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| *line != "program").collect();
    let mut kinds = Vec::new();
    for pair in lines.chunks(2) {
        let words: Vec<&str> = pair[0].split(' ').collect();
        let kind = words[0];
        kinds.push(kind);
        assert_eq!(words[1], "hook", "the environment");
        let namespace = match kind {
            "createContainer" | "startContainer" => inside.trim().to_owned(),
            _ => own.display().to_string(),
        };
        assert_eq!(words[2], namespace, "{kind}");
        let state: Value = serde_json::from_str(pair[1]).unwrap();
        assert_eq!(state["id"], world.id.as_str(), "{kind}");
        assert_eq!(state["annotations"]["org.example"], "value");
        assert_eq!(state["bundle"], json!(world.bundle.path()));
        let status = state["status"].as_str().unwrap();
        let expected = match kind {
            "startContainer" => "created",
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!(status, expected, "{kind}");
        match kind {
            "poststop" => assert!(state.get("pid").is_none_or(|pid| pid == 0), "{state}"),
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
    }
    kinds.sort_unstable();
    let mut all = KINDS;
    all.sort_unstable();
    assert_eq!(kinds, all);
    let started = text.find("startContainer").unwrap();
    assert!(
        started < text.find("program").unwrap(),
        "before the program: {text}"
    );
}

#[test]
fn a_failing_hook_ends_the_container_and_is_quoted() {
    for kind in &KINDS[..4] {
        let mut world = require!(World::new());
        let path = match *kind {
            "startContainer" => "/bin/busybox",
            _ => "/bin/sh",
        };
        let args = json!({"path": path, "args": ["sh", "-c", "echo bad luck >&2; exit 9"]});
        world.bundle.push(&format!("/hooks/{kind}"), args);
        world.bundle.args(["true"]);
        let error = world.error();
        assert!(error.contains(kind), "{kind}: {error}");
        assert!(error.contains("bad luck"), "{kind}: {error}");
    }
}

#[test]
fn a_failing_start_hook_ends_a_created_container() {
    let mut world = require!(World::new());
    world
        .bundle
        .push("/hooks/startContainer", json!({"path": "/bin/false"}));
    world.bundle.shell("echo ran > /ran");
    let mut live = world.create();
    // The start itself has nobody to tell; the container ends without having run.
    let _ = live.container().start();
    assert_ne!(live.wait(), Exit::Code(0));
    live.delete();
    assert!(!world.bundle.rootfs().join("ran").exists());
}

#[test]
fn a_failure_after_the_end_is_a_warning_only() {
    let mut world = require!(World::new());
    world.bundle.push("/hooks/poststop", hook("exit 1"));
    assert_eq!(world.sh("echo ran"), "ran\n");
}

#[test]
fn a_failure_after_the_start_stops_the_container() {
    let mut world = require!(World::new());
    world.bundle.push("/hooks/poststart", hook("exit 1"));
    world.bundle.args(["sleep", "100"]);
    assert!(world.error().contains("error running poststart hook #0: "));
    let mut live = world.create();
    let error = live.container().start().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("error running poststart hook #0: "),
        "{error}"
    );
    assert_eq!(live.wait(), Exit::Signal(9));
    live.delete();
}

#[test]
fn hooks_find_what_runcs_hooks_find() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/process/env", json!(["ONE=two"]))
        .push(
            "/hooks/createContainer",
            json!({"path": "/bin/sh", "args": ["sh", "-c", "echo here > ./from-hook"]}),
        )
        .push(
            "/hooks/startContainer",
            json!({"path": "/bin/sh", "args": ["sh", "-c", "echo $ONE >> /from-hook"]}),
        );
    assert_eq!(world.sh("cat /from-hook"), "here\ntwo\n");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    for kind in &KINDS[..4] {
        let mut world = require!(World::new());
        let path = match *kind {
            "startContainer" => "/bin/busybox",
            _ => "/bin/sleep",
        };
        world.bundle.push(
            &format!("/hooks/{kind}"),
            json!({"path": path, "args": ["sleep", "100"], "timeout": 1}),
        );
        world.bundle.args(["true"]);
        let started = std::time::Instant::now();
        let error = world.error();
        assert!(error.contains("timeout"), "{kind}: {error}");
        assert!(started.elapsed() < std::time::Duration::from_secs(30));
    }
}

#[test]
fn missing_programs_of_hooks_are_named() {
    for kind in &KINDS[..4] {
        let mut world = require!(World::new());
        world
            .bundle
            .push(&format!("/hooks/{kind}"), json!({"path": "/no/such/hook"}))
            .args(["true"]);
        let error = world.error();
        assert!(error.contains("/no/such/hook"), "{kind}: {error}");
    }
}

#[test]
fn hooks_run_in_order_and_the_first_failure_stops_the_rest() {
    let mut world = require!(World::new());
    let log = world.dir().join("log");
    for script in ["echo 1", "echo 2; exit 1", "echo 3"] {
        let script = format!("{{ {script}; }} >> {}", log.display());
        world.bundle.push("/hooks/createRuntime", hook(&script));
    }
    world.bundle.args(["true"]);
    let error = world.error();
    assert!(
        error.contains("error running createRuntime hook #1: "),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "1\n2\n");
}

#[test]
fn a_hook_can_prepare_what_the_container_sees() {
    require!(common::tools_are_free());
    let mut world = require!(World::new());
    let root = world.bundle.rootfs();
    let script = format!(
        "mkdir -p {0}/made && mount -t tmpfs hook {0}/made && echo by a hook > {0}/made/file",
        root.display()
    );
    world.bundle.push("/hooks/createContainer", hook(&script));
    assert_eq!(world.sh("cat /made/file"), "by a hook\n");
    assert!(
        !root.join("made/file").exists(),
        "its mount is the container's alone"
    );
}

#[test]
fn a_create_runtime_hook_can_reach_the_network_namespace() {
    require!(common::tools_are_free());
    let mut world = require!(World::new());
    require!(carrack_testkit::skip::program("nsenter"));
    require!(carrack_testkit::skip::program("ip"));
    let script = "state=$(cat); pid=${state##*\\\"pid\\\":}; pid=${pid%%[,\\}]*}; \
                  PATH=$PATH:/sbin:/usr/sbin; \
                  nsenter --net=/proc/$pid/ns/net ip link add ck-hook type veth peer name ck-peer";
    world.bundle.push("/hooks/createRuntime", hook(script));
    let text = world.sh("ls /sys/class/net");
    assert!(
        text.contains("ck-hook") && text.contains("ck-peer"),
        "{text}"
    );
}
