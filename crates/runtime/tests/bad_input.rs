//! What is wrong is refused: the exit code, one clear message, nothing left behind.

mod common;

use carrack_testkit::{Bundle, TempDir, require};
use serde_json::json;

#[test]
fn wrong_command_lines_end_with_one_and_wrong_commands_with_three() {
    let runtime = require!(common::runtime());
    for (line, code) in [
        (&["frobnicate"][..], 3),
        (&["state"], 1),
        (&["state", "a", "b"], 1),
        (&["kill", "a", "TERM", "more"], 1),
        (&["run", "--no-such-flag", "a"], 1),
        (&["run", "--bundle"], 1),
        (&["run", "--preserve-fds", "many", "a"], 1),
        (&["run", "--preserve-fds", "999", "a"], 1),
        (&["--log-format", "xml", "list"], 1),
        (&["--root", "/", "list"], 1),
    ] {
        runtime.call(line).code_is(code);
    }
}

#[test]
fn an_error_goes_to_the_log_and_to_standard_error() {
    let runtime = require!(common::runtime());
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let path = log.display().to_string();
    let args = ["--log", &path, "--log-format", "json", "state", "no-such"];
    let output = runtime.call(args).code_is(1);
    assert!(output.stderr.contains("does not exist"), "{output}");
    let text = std::fs::read_to_string(&log).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert_eq!(last["msg"], output.stderr.trim_end());
    assert!(last["time"].as_str().unwrap().contains('T'));
    let plain = runtime.call(["state", "no-such"]).code_is(1);
    assert!(plain.stderr.starts_with("time=\""), "{plain}");
    assert!(plain.stderr.contains(" level=error msg="), "{plain}");
}

#[test]
fn containers_that_do_not_exist_are_not_found() {
    let runtime = require!(common::runtime());
    for line in [
        &["state", "no-such"][..],
        &["start", "no-such"],
        &["kill", "no-such", "KILL"],
        &["delete", "no-such"],
        &["pause", "no-such"],
        &["resume", "no-such"],
        &["ps", "no-such"],
        &["events", "--stats", "no-such"],
        &["update", "--memory", "1g", "no-such"],
        &["checkpoint", "no-such"],
    ] {
        runtime.call(line).code_is(1).fails_with("does not exist");
    }
    runtime
        .call(["exec", "no-such", "true"])
        .code_is(255)
        .fails_with("does not exist");
    runtime.call(["delete", "--force", "no-such"]).ok();
}

#[test]
fn identifiers_are_one_path_component() {
    let runtime = require!(common::runtime());
    let bundle = require!(Bundle::busybox());
    for id in ["", ".", "..", "a/b", "../x", "a b", "é", "a\nb"] {
        let container = runtime.container_named(id, &bundle);
        let output = container.create();
        assert_ne!(output.code(), 0, "{output}");
    }
    assert_eq!(std::fs::read_dir(runtime.root()).unwrap().count(), 0);
}

#[test]
fn configurations_that_are_none_are_refused() {
    let runtime = require!(common::runtime());
    let bundle = require!(Bundle::busybox());
    let container = runtime.container(&bundle);
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let whole = serde_json::to_vec(&bundle.config).unwrap();
    let mut truncated = whole.clone();
    truncated.truncate(whole.len() / 2);
    for text in [&b""[..], b"null", b"[]", b"\xff\xfe", &deep, &truncated] {
        let mut command = container.bundle_command("run", &[]);
        std::fs::write(bundle.path().join("config.json"), text).unwrap();
        let output = carrack_testkit::runtime::finish(&mut command);
        assert_eq!(output.code(), 1, "{output}");
        container.assert_nothing_left();
    }
    let mut command = container.bundle_command("run", &[]);
    std::fs::remove_file(bundle.path().join("config.json")).unwrap();
    carrack_testkit::runtime::finish(&mut command)
        .code_is(1)
        .fails_with("config.json");
    container.assert_nothing_left();
}

#[test]
fn properties_that_cannot_be_are_named() {
    if common::other_runtime() {
        return;
    }
    let runtime = require!(common::runtime());
    for (pointer, value, named) in [
        ("/process/args", json!([]), "args"),
        ("/process/cwd", json!("relative"), "cwd"),
        (
            "/process/capabilities/bounding",
            json!("all"),
            "capabilities.bounding",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]),
            "rlimits",
        ),
        ("/root/path", json!("no-such-dir"), "no-such-dir"),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "pid"}]),
            "namespaces",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mouse"}]),
            "namespaces",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "rootfsPropagation",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_MAYBE"}),
            "seccomp",
        ),
        (
            "/mounts",
            json!([{"destination": "", "type": "tmpfs"}]),
            "mounts",
        ),
        (
            "/linux/resources/memory",
            json!({"limit": "much"}),
            "memory.limit",
        ),
    ] {
        let mut bundle = require!(Bundle::busybox());
        bundle.args(["true"]).set(pointer, value.clone());
        let container = runtime.container(&bundle);
        let output = container.run();
        assert_eq!(output.code(), 1, "{pointer} = {value}: {output}");
        assert!(
            output.stderr.contains(named),
            "{pointer} = {value}: {output}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn unknown_properties_are_no_error() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["true"]).set("/novelty", json!({"deep": [1]}));
    runtime.container(&bundle).run().ok();
}

#[test]
fn an_identifier_that_is_taken_is_refused_and_its_container_lives_on() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    container.run_detached().fails_with("exist");
    container.create().fails_with("exist");
    assert_eq!(container.status(), "running");
}

#[test]
fn programs_that_cannot_run_are_told_in_the_words_engines_look_for() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    std::fs::write(bundle.rootfs().join("plain"), "text").unwrap();
    for (program, words) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/plain", "permission denied"),
    ] {
        bundle.args([program]);
        let container = runtime.container(&bundle);
        let output = container.run();
        assert_eq!(output.code(), 1, "{output}");
        let said = output.stderr.to_lowercase();
        assert!(said.contains(&words.to_lowercase()), "{output}");
        // What is missing is told once.
        let twice = said.contains("not found") && said.contains("no such file");
        assert!(!twice, "{output}");
        container.assert_nothing_left();
    }
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    container
        .exec(&["no-such-program"])
        .code_is(255)
        .fails_with("executable file not found in $PATH");
}

#[test]
fn verbs_that_do_not_fit_the_status_are_refused() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    container.create().ok();
    container.start().ok();
    container
        .start()
        .fails_with("cannot start an already running container");
    container
        .delete(false)
        .fails_with("that is not stopped: running");
    container
        .call("kill", &[], &["NOSUCH"])
        .fails_with("unknown signal");
    container.call("pause", &[], &[]).ok();
    assert_eq!(container.status(), "paused");
    container
        .exec(&["true"])
        .code_is(255)
        .fails_with("cannot exec in a paused container");
    container.call("resume", &[], &[]).ok();
    container.kill("KILL").ok();
    container.wait_status("stopped");
    container.kill("KILL").fails_with("container not running");
    container.call("kill", &["--all"], &["KILL"]).ok();
    container
        .start()
        .fails_with("cannot start a container that has stopped");
    container
        .exec(&["true"])
        .code_is(255)
        .fails_with("stopped container");
    container.delete(false).ok();
    container.assert_nothing_left();
}

#[test]
fn a_restore_without_images_leaves_nothing() {
    let runtime = require!(common::runtime());
    let bundle = require!(Bundle::busybox());
    let container = runtime.container(&bundle);
    let mut command = container.bundle_command("restore", &["--image-path", "/no/such/images"]);
    let output = carrack_testkit::runtime::finish(&mut command);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("/no/such/images"), "{output}");
    container.assert_nothing_left();
}

#[test]
fn descriptors_to_preserve_must_be_there() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["true"]);
    let container = runtime.container(&bundle);
    let command = container.bundle_command("run", &["--preserve-fds", "2"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec 3< /dev/null 4<&-; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    let output = carrack_testkit::runtime::finish(&mut shell).code_is(1);
    assert!(output.stderr.contains("4 is not open"), "{output}");
    container.assert_nothing_left();
}
