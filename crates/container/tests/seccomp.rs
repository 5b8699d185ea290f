//! System call filters on the real kernel: each action by its effect, and a listener that answers.

mod common;

use carrack_container::Exit;
use carrack_testkit::require;
use common::{World, chain, status_line};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// A profile that allows all but one rule.
fn profile(names: &[&str], action: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": action}],
    })
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn errno_rules_answer_with_their_number() {
    let mut world = require!(World::new());
    let mut deny = profile(&MKDIR, "SCMP_ACT_ERRNO");
    world.bundle.set("/linux/seccomp", deny.clone());
    let text = world.sh("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status");
    assert!(text.contains("Operation not permitted"), "{text}");
    assert_eq!(status_line(&text, "Seccomp"), "2");
    deny["syscalls"][0]["errnoRet"] = json!(28);
    world.bundle.set("/linux/seccomp", deny);
    let text = world.sh("mkdir /tmp/x 2>&1; :");
    assert!(text.contains("No space left"), "{text}");
}

#[test]
fn a_filter_can_kill_and_trap() {
    let mut world = require!(World::new());
    for (action, signal) in [
        ("SCMP_ACT_KILL_PROCESS", 31),
        ("SCMP_ACT_KILL", 31),
        ("SCMP_ACT_TRAP", 31),
    ] {
        world
            .bundle
            .set("/linux/seccomp", profile(&MKDIR, action))
            .shell("mkdir /tmp/x; echo $?");
        let ran = world.try_run().unwrap();
        let expected = format!("{}\n", 128 + signal);
        assert!(ran.output.ends_with(&expected), "{action}: {}", ran.output);
    }
}

#[test]
fn log_lets_the_call_through() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/seccomp", profile(&MKDIR, "SCMP_ACT_LOG"));
    assert_eq!(world.sh("mkdir /tmp/x && echo made"), "made\n");
}

#[test]
fn arguments_decide() {
    let mut world = require!(World::new());
    let mut deny = profile(&["kill"], "SCMP_ACT_ERRNO");
    deny["syscalls"][0]["args"] = json!([{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]);
    world.bundle.set("/linux/seccomp", deny);
    let text = world.sh("sleep 5 & kill -USR1 $! 2>&1; kill -0 $! && echo still; kill -9 $!");
    assert!(text.contains("not permitted"), "{text}");
    assert!(text.contains("still"), "{text}");
}

#[test]
fn a_filter_needs_no_rights_with_and_privileges_without_no_new_privileges() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/seccomp", profile(&MKDIR, "SCMP_ACT_ERRNO"));
    world
        .bundle
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    for value in [true, false] {
        world.bundle.set("/process/noNewPrivileges", json!(value));
        let text = world.sh("mkdir /tmp/x 2>&1; cat /proc/self/status");
        assert!(text.contains("Operation not permitted"), "{text}");
        assert_eq!(
            status_line(&text, "NoNewPrivs"),
            if value { "1" } else { "0" }
        );
    }
}

#[test]
fn a_profile_without_the_calls_of_the_way_to_exec_lets_programs_start() {
    let refused = [
        "faccessat2",
        "close_range",
        "openat2",
        "statx",
        "execveat",
        "pidfd_open",
        "getcwd",
    ];
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/seccomp", profile(&refused, "SCMP_ACT_ERRNO"))
        .set("/process/env", json!(["PATH=/missing:/bin"]));
    for value in [true, false] {
        world.bundle.set("/process/noNewPrivileges", json!(value));
        assert_eq!(world.sh("echo ran"), "ran\n", "noNewPrivileges {value}");
    }
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    assert_eq!(live.exec("echo ran"), "ran\n");
    live.delete();
}

#[test]
fn a_start_container_hook_is_filtered_too() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/seccomp", profile(&MKDIR, "SCMP_ACT_ERRNO"))
        .push(
            "/hooks/startContainer",
            json!({"path": "/bin/mkdir", "args": ["mkdir", "/tmp/by-hook"]}),
        )
        .args(["true"]);
    for value in [true, false] {
        world.bundle.set("/process/noNewPrivileges", json!(value));
        assert!(world.error().contains("startContainer"));
    }
    world
        .bundle
        .set("/linux/seccomp", profile(&MKDIR, "SCMP_ACT_KILL_PROCESS"));
    let error = world.error();
    assert!(error.contains("bad system call"), "{error}");
}

#[test]
fn an_exec_is_filtered_too() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/seccomp", profile(&MKDIR, "SCMP_ACT_ERRNO"))
        .args(["sleep", "100"]);
    let mut live = world.start();
    let text = live.exec("mkdir /tmp/x 2>&1; :");
    assert!(text.contains("Operation not permitted"), "{text}");
    live.delete();
}

#[test]
fn a_profile_that_is_wrong_is_an_error_by_field() {
    let mut world = require!(World::new());
    for (change, field) in [
        (json!({"defaultAction": "SCMP_ACT_MAYBE"}), "SCMP_ACT_MAYBE"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}),
            "FAST",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "x"}]}),
            "linux.seccomp",
        ),
        (profile(&["write"], "SCMP_ACT_NOTIFY"), "write"),
        (profile(&["mkdir"], "SCMP_ACT_NOTIFY"), "listenerPath"),
    ] {
        world.bundle.set("/linux/seccomp", change).args(["true"]);
        let error = world.error();
        assert!(error.contains(field), "{error}");
    }
}

/// A listener of seccomp notifications: takes one descriptor and its message.
fn receive(listener: &UnixListener) -> (OwnedFd, Value) {
    let (stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    text.truncate(message.bytes);
    (
        fd.expect("a descriptor"),
        serde_json::from_slice(&text).unwrap(),
    )
}

#[test]
fn notifications_go_to_the_listener_which_answers() {
    for no_new_privileges in [true, false] {
        let mut world = require!(World::new());
        let path = world.dir().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        let mut notify = profile(&MKDIR, "SCMP_ACT_NOTIFY");
        notify["listenerPath"] = json!(path);
        notify["listenerMetadata"] = json!("for the test");
        world.bundle.set("/linux/seccomp", notify);
        world
            .bundle
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        world.bundle.shell("mkdir /tmp/x 2>&1; ls /tmp; echo done");
        let (ran, message) = std::thread::scope(|scope| {
            let answer = scope.spawn(|| {
                let (fd, message) = receive(&listener);
                // Whoever asks gets "no such device": the call never happens.
                let asked = carrack_sys::seccomp::receive_notification(fd.as_fd()).unwrap();
                carrack_sys::seccomp::answer_notification(fd.as_fd(), asked.id, 0, -19).unwrap();
                message
            });
            let ran = world.try_run().unwrap_or_else(|e| panic!("{}", chain(&e)));
            (ran, answer.join().unwrap())
        });
        assert_eq!(ran.exit, Exit::Code(0));
        assert!(ran.output.contains("No such device"), "{}", ran.output);
        assert!(ran.output.ends_with("done\n"), "{}", ran.output);
        assert_eq!(message["metadata"], "for the test");
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["state"]["id"], world.id.as_str());
        assert!(message["pid"].as_i64().unwrap() > 0);
        assert_eq!(message["pid"], message["state"]["pid"]);
    }
}

#[test]
fn a_listener_that_is_not_there_fails_the_container() {
    let mut world = require!(World::new());
    let mut notify = profile(&MKDIR, "SCMP_ACT_NOTIFY");
    notify["listenerPath"] = json!(world.dir().join("nobody"));
    world.bundle.set("/linux/seccomp", notify).args(["true"]);
    let error = world.error();
    assert!(error.contains("nobody"), "{error}");
}
