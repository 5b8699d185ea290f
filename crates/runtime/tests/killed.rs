//! A `create` or `run` that is killed at each of its steps, and one that runs out of something:
//! `delete --force` then finds all that is left, and a failed call leaves nothing by itself.

mod common;

use carrack_testkit::runtime::finish;
use carrack_testkit::temp::mount_points;
use carrack_testkit::{Bundle, Runtime, TempDir, leaks, require, skip, unique};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The system calls at which a kill is tried: those that make something, or hand it on.
const CALLS: &str = "mkdir mkdirat openat write renameat2,rename,renameat clone3 sendmsg recvmsg \
    open_tree mount_setattr mknodat,mknod socketpair pidfd_send_signal fchownat bpf";
/// How often a call is made at most before one stops to count.
const REPEATS_MAX: u32 = 60;

/// A bundle with limits, a bind mount and hooks: much to leave behind.
fn bundle() -> Result<Bundle, carrack_testkit::Skip> {
    let mut bundle = Bundle::busybox()?;
    let etc = json!({"destination": "/mnt", "source": "/etc", "type": "bind", "options": ["rbind", "ro"]});
    let hook = json!({"path": "/bin/true"});
    bundle
        .args(["sleep", "1000"])
        .push("/mounts", etc)
        .push("/hooks/createRuntime", hook)
        .set("/linux/resources/pids", json!({"limit": 50}));
    Ok(bundle)
}

/// Runs `create` under strace, killed at the `count`th of a call. `None` when it made fewer of them.
fn killed_at(runtime: &Runtime, bundle: &Bundle, id: &str, call: &str, count: u32) -> Option<()> {
    let mut command = Command::new("strace");
    command
        .args(["-q", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=KILL:when={count}"))
        .arg(runtime.program())
        .arg("--root")
        .arg(runtime.root())
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(id)
        .stdin(Stdio::null());
    let output = finish(&mut command);
    match output.code() {
        0 => None,
        137 => Some(()),
        _ => panic!("{call} {count}: {output}"),
    }
}

/// What is left once `delete --force` had its say; the container need not be known to it.
fn left_after_delete(runtime: &Runtime, bundle: &Bundle, id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let output = runtime.call(["delete", "--force", id]);
    if output.code() != 0 {
        problems.push(output.to_string());
    }
    problems.extend(leaks::of(id, bundle.path()));
    if runtime.root().join(id).exists() {
        problems.push(format!("state of {id}"));
    }
    problems
}

#[test]
fn a_create_killed_at_any_step_can_be_deleted_without_a_trace() {
    let runtime = require!(common::runtime());
    require!(skip::strace());
    let bundle = require!(bundle());
    bundle.write();
    // The first of all makes what later ones find: the cache of compiled filters.
    runtime.container(&bundle).create().ok();
    let mounts = mount_points().len();
    let mut tried = 0;
    for call in CALLS.split_whitespace() {
        for count in 1..REPEATS_MAX {
            let id = unique();
            let killed = killed_at(&runtime, &bundle, &id, call, count);
            let left = left_after_delete(&runtime, &bundle, &id);
            assert!(
                left.is_empty(),
                "killed at {call} number {count}: {left:#?}"
            );
            if killed.is_none() {
                break;
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "only {tried} steps were tried");
    assert_eq!(mount_points().len(), mounts);
    println!("killed at {tried} steps");
}

#[test]
fn a_create_killed_at_any_time_can_be_deleted_without_a_trace() {
    let runtime = require!(common::runtime());
    let bundle = require!(bundle());
    bundle.write();
    for step in 0..40 {
        let id = unique();
        let mut command = runtime.command(["create", "--bundle"]);
        command.arg(bundle.path()).arg(&id);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(400 * step));
        let _ = child.kill();
        child.wait().unwrap();
        let left = left_after_delete(&runtime, &bundle, &id);
        assert!(left.is_empty(), "killed after {} µs: {left:#?}", 400 * step);
    }
}

#[test]
fn a_killed_run_takes_no_deeper_hold_than_a_create() {
    let runtime = require!(common::runtime());
    let bundle = require!(bundle());
    for step in 0..20 {
        let id = unique();
        bundle.write();
        let mut command = runtime.command(["run", "--bundle"]);
        command.arg(bundle.path()).arg(&id);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(1500 * step));
        let _ = child.kill();
        child.wait().unwrap();
        let left = left_after_delete(&runtime, &bundle, &id);
        assert!(
            left.is_empty(),
            "killed after {} µs: {left:#?}",
            1500 * step
        );
    }
}

/// Mounts a tmpfs of a size in a directory; goes away with the directory.
fn small_tmpfs(dir: &Path, options: &str) {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "small"])
        .arg(dir)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cannot mount a tmpfs"
    );
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    require!(skip::root());
    let bundle = require!(bundle());
    bundle.write();
    // From no room for a directory to room for all but the last file.
    for options in [
        "size=4k,nr_inodes=1",
        "size=4k,nr_inodes=2",
        "size=4k,nr_inodes=3",
        "size=8k,nr_inodes=20",
        "size=4k,nr_inodes=4",
    ] {
        let dir = TempDir::new();
        small_tmpfs(dir.path(), options);
        let id = unique();
        let root = dir.path().join("state");
        let call = |args: &[&str]| {
            let mut command = Command::new(common::program());
            command
                .arg("--root")
                .arg(&root)
                .args(args)
                .stdin(Stdio::null());
            finish(&mut command)
        };
        let bundle_path = bundle.path().display().to_string();
        let output = call(&["create", "--bundle", &bundle_path, &id]);
        let output = output.fails_with("No space left on device".to_lowercase().as_str());
        assert!(output.stderr.contains("state"), "{output}");
        assert_eq!(
            leaks::of(&id, bundle.path()),
            Vec::<String>::new(),
            "{options}"
        );
        assert!(!root.join(&id).exists(), "{options}: state is left");
    }
}

#[test]
fn a_state_root_that_cannot_be_made_is_told() {
    require!(skip::root());
    let bundle = require!(bundle());
    bundle.write();
    let dir = TempDir::new();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    small_tmpfs(
        &{
            let path = dir.path().join("ro");
            std::fs::create_dir(&path).unwrap();
            path
        },
        "ro",
    );
    for root in [file.join("state"), dir.path().join("ro/state")] {
        let id = unique();
        let mut command = Command::new(common::program());
        command
            .arg("--root")
            .arg(&root)
            .args(["create", "--bundle"]);
        command.arg(bundle.path()).arg(&id).stdin(Stdio::null());
        let output = finish(&mut command).code_is(1);
        assert!(
            output.stderr.contains(&root.display().to_string()),
            "{output}"
        );
        assert_eq!(leaks::of(&id, bundle.path()), Vec::<String>::new());
    }
}

#[test]
fn a_limit_of_namespaces_is_told_by_its_name() {
    require!(skip::root());
    require!(skip::program("unshare"));
    let bundle = require!(bundle());
    bundle.write();
    for kind in ["net", "pid", "uts", "ipc"] {
        let dir = TempDir::new();
        let id = unique();
        // The limits of a user namespace are its own: nobody else feels them.
        let script = format!(
            "echo 0 >/proc/sys/user/max_{kind}_namespaces || exit 99; exec {} --root {} run --bundle {} {id}",
            common::program(),
            dir.path().join("state").display(),
            bundle.path().display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        let output = finish(command.stdin(Stdio::null()));
        if output.code() == 99 {
            carrack_testkit::skip!("the limits of a user namespace cannot be set here");
        }
        let output = output.fails_with("/proc/sys/user");
        assert_eq!(
            leaks::of(&id, bundle.path()),
            Vec::<String>::new(),
            "{output}"
        );
        assert!(!dir.path().join("state").join(&id).exists(), "{output}");
    }
}
