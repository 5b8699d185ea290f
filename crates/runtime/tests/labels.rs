//! Security labels by what they do: a profile of AppArmor that forbids a write and a program,
//! a type of SELinux that may not touch another. The test VM has both modules, one a boot;
//! its SELinux policy has the types of `testvm/policy.cil`.

mod common;

use carrack_testkit::runtime::Output;
use carrack_testkit::{AppArmorProfile, Bundle, Runtime, Skip, require, selinux};
use serde_json::json;
use std::fs;

const TRY_BOTH: &str = "for f in forbidden allowed; do echo x 2>/dev/null >/$f && echo wrote $f; done; \
     /other/busybox echo ran other; cat /proc/self/attr/current";
const FREE: &str = "wrote forbidden\nwrote allowed\nran other\n";

/// A profile that forbids what [`TRY_BOTH`] tries.
fn profile() -> Result<AppArmorProfile, Skip> {
    AppArmorProfile::load("deny /forbidden w,\n deny /other/busybox x,")
}

/// A container with busybox at a second place, no link.
fn bundle() -> Result<Bundle, Skip> {
    let bundle = Bundle::busybox()?;
    let root = bundle.rootfs();
    fs::create_dir(root.join("other")).unwrap();
    fs::copy(root.join("bin/busybox"), root.join("other/busybox")).unwrap();
    Ok(bundle)
}

/// Runs it to its end, after which nothing is left.
fn run(runtime: &Runtime, bundle: &Bundle) -> Output {
    let container = runtime.container(bundle);
    let output = container.run();
    container.assert_nothing_left();
    output
}

#[test]
fn an_apparmor_profile_forbids_a_write_and_a_program() {
    let profile = require!(profile());
    let runtime = require!(common::runtime());
    let mut bundle = require!(bundle());
    bundle.shell(TRY_BOTH);
    run(&runtime, &bundle).ok().stdout_has(FREE);
    bundle.set("/process/apparmorProfile", json!(profile.name()));
    let output = run(&runtime, &bundle).ok();
    let wanted = format!("wrote allowed\n{} (enforce)\n", profile.name());
    assert_eq!(output.stdout, wanted, "{output}");
}

#[test]
fn an_exec_has_the_profile_of_its_container_or_its_own() {
    let profile = require!(profile());
    let runtime = require!(common::runtime());
    let mut bundle = require!(bundle());
    bundle.args(["sleep", "1000"]);
    let attempt = ["sh", "-c", TRY_BOTH];
    let confined = format!("wrote allowed\n{} (enforce)\n", profile.name());
    {
        let container = runtime.container(&bundle);
        container.run_detached().ok();
        container.exec(&attempt).ok().stdout_has(FREE);
        let flags = ["--apparmor", profile.name()];
        let output = container.call("exec", &flags, &attempt).ok();
        assert_eq!(output.stdout, confined, "{output}");
        let current = fs::read_to_string(format!("/proc/{}/attr/current", container.pid()));
        assert_eq!(current.unwrap().trim_end(), "unconfined");
        container.delete(true).ok();
        container.assert_nothing_left();
    }
    bundle.set("/process/apparmorProfile", json!(profile.name()));
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    let output = container.exec(&attempt).ok();
    assert_eq!(output.stdout, confined, "{output}");
    container.delete(true).ok();
    container.assert_nothing_left();
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error() {
    drop(require!(profile()));
    let runtime = require!(common::runtime());
    let mut bundle = require!(bundle());
    bundle.args(["sleep", "1000"]);
    let missing = ["--apparmor", "ckt-no-such-profile"];
    {
        let container = runtime.container(&bundle);
        container.run_detached().ok();
        let output = container.call("exec", &missing, &["true"]);
        output
            .fails_with("apparmorProfile")
            .fails_with("not loaded");
        assert_eq!(container.status(), "running");
        container.delete(true).ok();
        container.assert_nothing_left();
    }
    bundle.set("/process/apparmorProfile", json!("ckt-no-such-profile"));
    run(&runtime, &bundle).fails_with("not loaded");
}

fn labelled() -> Result<(Runtime, Bundle, String), Skip> {
    let label = selinux::label("ckt_t")?;
    let mut bundle = Bundle::busybox()?;
    bundle.set("/process/selinuxLabel", json!(label));
    Ok((common::runtime()?, bundle, label))
}

#[test]
fn a_process_has_its_selinux_label_and_so_has_an_exec() {
    let (runtime, mut bundle, label) = require!(labelled());
    bundle.args(["cat", "/proc/self/attr/current"]);
    let output = run(&runtime, &bundle).ok();
    assert_eq!(output.stdout.trim_end_matches(['\0', '\n']), label);

    bundle.args(["sleep", "1000"]);
    bundle.remove("/process/selinuxLabel");
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    let show = ["cat", "/proc/self/attr/current"];
    let output = container.exec(&show).ok();
    assert!(!output.stdout.contains("ckt_t"), "{output}");
    let flags = ["--process-label", &label];
    let output = container.call("exec", &flags, &show).ok();
    assert_eq!(output.stdout.trim_end_matches(['\0', '\n']), label);
    container.delete(true).ok();
    container.assert_nothing_left();
}

#[test]
fn a_mount_label_allows_or_denies_what_is_mounted() {
    let (runtime, mut bundle, _) = require!(labelled());
    let dirs = ["lower", "upper", "work"].map(|name| bundle.path().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let [lower, upper, work] = dirs.map(|dir| dir.display().to_string());
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    bundle
        .push("/mounts", json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}))
        .push("/mounts", json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": [layers]}))
        .shell("for d in data over; do echo x >/$d/file && echo wrote $d; done; grep -E ' /(data|over) ' /proc/mounts");
    for (kind, may) in [("ckt_file_t", true), ("ckt_denied_t", false)] {
        let label = selinux::file_label(kind);
        bundle.set("/linux/mountLabel", json!(label));
        let output = run(&runtime, &bundle);
        for dir in ["data", "over"] {
            let wrote = output.stdout.contains(&format!("wrote {dir}\n"));
            assert_eq!(wrote, may, "{kind}: {output}");
        }
        if !may {
            assert!(output.stderr.contains("Permission denied"), "{output}");
        }
        let mounts = output.stdout.matches(&format!("context={label}")).count();
        assert_eq!(mounts, 2, "{output}");
    }
}

#[test]
fn labels_that_the_policy_does_not_know_are_errors() {
    let (runtime, mut bundle, label) = require!(labelled());
    bundle.args(["true"]);
    let unknown = label.replace("ckt_t", "ckt_unknown_t");
    bundle.set("/process/selinuxLabel", json!(unknown));
    let output = run(&runtime, &bundle);
    output.fails_with("selinuxLabel").fails_with("policy");

    bundle.set("/process/selinuxLabel", json!(label));
    bundle.set(
        "/linux/mountLabel",
        json!(selinux::file_label("ckt_unknown_t")),
    );
    run(&runtime, &bundle).fails_with("ckt_unknown_t");
}
