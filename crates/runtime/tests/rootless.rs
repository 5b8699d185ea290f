//! The runtime as an ordinary user, and as root of a user namespace that is no root outside.
//!
//! Each test makes a user of its own, with and without subordinate ids, who has no right to any
//! cgroup. The program is copied to the user's home, and state is where it is by default: below
//! `XDG_RUNTIME_DIR`.

mod common;

use carrack_testkit::bundle::copy_program;
use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{Bundle, Skip, TempDir, User, leaks, require, skip, unique};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user, the user's copy of the program, and one bundle of the user's.
struct World {
    user: User,
    program: PathBuf,
    bundle: Bundle,
    id: String,
}

impl World {
    /// One id is mapped: no help from newuidmap.
    fn single() -> Result<World, Skip> {
        let user = User::plain()?;
        let bundle = Bundle::busybox_rootless(user.uid(), user.gid())?;
        World::over(user, bundle)
    }

    /// The user's own id as root, and 65536 subordinate ids above.
    fn many() -> Result<World, Skip> {
        let user = User::with_subordinate_ids()?;
        let mut bundle = Bundle::busybox_rootless(user.uid(), user.gid())?;
        let first = user.subordinate_first().unwrap_or(0);
        for (field, own) in [("uidMappings", user.uid()), ("gidMappings", user.gid())] {
            let maps = json!([
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": first, "size": 65536},
            ]);
            bundle.set(&format!("/linux/{field}"), maps);
        }
        World::over(user, bundle)
    }

    fn over(user: User, bundle: Bundle) -> Result<World, Skip> {
        skip::exists("/proc/self/ns/user")?;
        let program = user.home().join("carrack-runtime");
        copy_program(Path::new(&common::program()), &program).unwrap();
        Ok(World {
            user,
            program,
            bundle,
            id: unique(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.user.command(&self.program);
        command.args(args);
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args))
    }

    fn begin(&self, verb: &[&str]) -> Output {
        self.bundle.write();
        let mut command = self.command(verb);
        command
            .arg("--bundle")
            .arg(self.bundle.path())
            .arg(&self.id);
        finish(&mut command)
    }

    fn run(&self) -> Output {
        self.begin(&["run"])
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).ok().stdout).unwrap()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let mut left = leaks::of(&self.id, self.bundle.path());
        let state = self
            .user
            .runtime_dir()
            .join("carrack-runtime")
            .join(&self.id);
        if state.exists() {
            left.push(state.display().to_string());
        }
        let own = processes_of(self.user.uid());
        left.extend(own.iter().map(|pid| format!("process {pid}")));
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).output();
    }
}

/// Live processes of a user, who has none but those of the test.
fn processes_of(uid: u32) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        // Who reaps a detached container's init is none of the runtime's business.
        .filter(|pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|text| !text.contains("State:\tZ"))
        })
        .collect()
}

#[test]
fn one_id_is_mapped_without_help() {
    let mut world = require!(World::single());
    world.bundle.shell(
        "id -u; id -g; cat /proc/self/setgroups; touch /made; hostname; cat /proc/self/uid_map",
    );
    let output = world.run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..4], ["0", "0", "deny", "testkit"], "{output}");
    let map: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(map, ["0", &world.user.uid().to_string(), "1"]);
    use std::os::unix::fs::MetadataExt;
    let made = world.bundle.rootfs().join("made");
    assert_eq!(std::fs::metadata(made).unwrap().uid(), world.user.uid());
    world.assert_nothing_left();
}

#[test]
fn many_ids_are_mapped_by_newuidmap() {
    let mut world = require!(World::many());
    world
        .bundle
        .shell("echo x >/tmp/file; id -u; id -G; stat -c %u:%g /tmp /tmp/file; cat /proc/self/setgroups")
        .set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 5]}));
    let output = world.run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines,
        ["1000", "1000 5 2000", "0:0", "1000:1000", "allow"],
        "{output}"
    );
    use std::os::unix::fs::MetadataExt;
    let made = world.bundle.rootfs().join("tmp/file");
    let expected = world.user.subordinate_first().unwrap() + 999;
    assert_eq!(u64::from(std::fs::metadata(made).unwrap().uid()), expected);
    world.assert_nothing_left();
}

#[test]
fn ids_that_are_not_the_users_are_refused_with_the_helpers_words() {
    let mut world = require!(World::many());
    let maps = json!([{"containerID": 0, "hostID": 0, "size": 10}]);
    world.bundle.set("/linux/uidMappings", maps);
    world.run().fails_with("newuidmap");
    world.assert_nothing_left();
}

#[test]
fn a_container_of_a_user_has_a_whole_life() {
    for world in [World::single(), World::many()] {
        let mut world = require!(world);
        world.bundle.args(["sleep", "100"]);
        world.begin(&["create"]).ok();
        assert_eq!(world.state()["status"], "created");
        world.call(&["list"]).ok().stdout_has(&world.id);
        let owner = world.call(&["list", "--format", "json"]).ok();
        let list: Value = serde_json::from_str(&owner.stdout).unwrap();
        assert_eq!(list[0]["owner"], world.user.name(), "{owner}");
        world.call(&["start", &world.id]).ok();
        assert_eq!(world.state()["status"], "running");
        world
            .call(&[
                "exec",
                "--env",
                "A=b",
                "--cwd",
                "/tmp",
                &world.id,
                "sh",
                "-c",
                "pwd; echo $A; id -u; kill -0 1",
            ])
            .ok()
            .stdout_is("/tmp\nb\n0\n");
        world
            .call(&["exec", &world.id, "sh", "-c", "exit 7"])
            .code_is(7);
        world.call(&["kill", &world.id, "KILL"]).ok();
        world.call(&["delete", "--force", &world.id]).ok();
        world.assert_nothing_left();
    }
}

#[test]
fn delete_by_force_ends_a_running_container() {
    let mut world = require!(World::single());
    world.bundle.shell("sleep 100 & sleep 100");
    world.begin(&["run", "--detach"]).ok();
    world.call(&["delete", &world.id]).fails_with("not stopped");
    world.call(&["delete", "--force", &world.id]).ok();
    world.assert_nothing_left();
}

#[test]
fn the_configuration_of_spec_rootless_runs() {
    let world = require!(World::single());
    let home = world.user.home();
    finish(world.command(&["spec", "--rootless"]).current_dir(&home)).ok();
    let text = std::fs::read_to_string(home.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["process"]["args"] = json!(["sh", "-c", "id -u; ls /sys/class >/dev/null && echo sys"]);
    config["process"]["terminal"] = json!(false);
    config["root"]["path"] = json!(world.bundle.rootfs());
    std::fs::write(home.join("config.json"), config.to_string()).unwrap();
    let mut command = world.command(&["run", &world.id]);
    finish(command.current_dir(&home))
        .ok()
        .stdout_is("0\nsys\n");
    world.assert_nothing_left();
}

#[test]
fn mounts_and_devices_work_without_rights_outside() {
    let mut world = require!(World::single());
    let outside = TempDir::new();
    std::fs::write(outside.path().join("file"), "of the host").unwrap();
    std::os::unix::fs::chown(outside.path(), Some(world.user.uid()), None).unwrap();
    let bind = |to: &str, options: &[&str]| json!({"destination": to, "source": outside.path(), "type": "bind", "options": options});
    world
        .bundle
        .push("/mounts", bind("/there", &["rbind", "rw"]))
        .push("/mounts", bind("/seen", &["bind", "ro", "nosuid", "nodev"]))
        .push("/mounts", json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777"]}))
        .shell(
            "cat /there/file; echo; echo new >/there/new; echo no >/seen/no || echo read-only; \
             dd if=/dev/zero of=/scratch/x bs=1k count=100 2>/dev/null || echo full; \
             echo x >/dev/null; test -c /dev/null && test -c /dev/urandom && echo devices; \
             head -c 3 /dev/zero | wc -c; test -d /sys/class && echo sys; echo no >/proc/sys/kernel/hostname || echo proc",
        );
    let output = world.run().ok();
    let expected = "of the host\nread-only\nfull\ndevices\n3\nsys\nproc\n";
    assert_eq!(output.stdout, expected, "{output}");
    let new = std::fs::read_to_string(outside.path().join("new")).unwrap();
    assert_eq!(new, "new\n");
    world.assert_nothing_left();
}

#[test]
fn hooks_run_as_the_user() {
    let mut world = require!(World::single());
    let file = world.user.home().join("hooks");
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        let script = format!("cat >/dev/null; echo {kind} $(id -u) >>{}", file.display());
        let hook =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
        world.bundle.push(&format!("/hooks/{kind}"), hook);
    }
    world.bundle.args(["true"]);
    world.run().ok();
    let told = std::fs::read_to_string(&file).unwrap();
    let uid = world.user.uid();
    let expected = format!(
        "prestart {uid}\ncreateRuntime {uid}\ncreateContainer 0\npoststart {uid}\npoststop {uid}\n"
    );
    assert_eq!(told, expected);
    world.assert_nothing_left();
}

#[test]
fn limits_that_nobody_can_set_are_an_error_that_says_so() {
    let mut world = require!(World::single());
    world
        .bundle
        .args(["true"])
        .set("/linux/resources", json!({"memory": {"limit": 64 << 20}}));
    world.run().fails_with("cgroup");
    world.assert_nothing_left();
}

#[test]
fn a_failed_start_leaves_nothing() {
    let mut world = require!(World::single());
    world.bundle.args(["no-such-program"]);
    world.run().fails_with("executable file not found");
    world.assert_nothing_left();
    world.bundle.args(["true"]).push(
        "/mounts",
        json!({"destination": "/x", "source": "/no/such", "type": "bind", "options": ["bind"]}),
    );
    world.run().fails_with("/no/such");
    world.assert_nothing_left();
}

#[test]
fn without_a_user_namespace_an_ordinary_user_is_told_what_is_needed() {
    let mut world = require!(World::single());
    world
        .bundle
        .args(["true"])
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    world.run().fails_with("user namespace");
    world.assert_nothing_left();
}

/// `unshare` to a user namespace in which the user is root, as an engine without root starts its runtime.
fn as_inner_root(world: &World, args: &[&str]) -> Output {
    world.bundle.write();
    let mut command = world.user.command("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(&world.program)
        .arg("--root")
        .arg(world.user.runtime_dir().join("carrack-runtime"))
        .args(args);
    finish(&mut command)
}

#[test]
fn root_of_a_user_namespace_runs_containers_in_it() {
    let mut world = require!(World::single());
    require!(skip::program("unshare"));
    world
        .bundle
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .shell("id -u; hostname; touch /made; echo x >/dev/null; echo $$");
    let bundle = world.bundle.path().display().to_string();
    as_inner_root(&world, &["run", "--bundle", &bundle, &world.id])
        .ok()
        .stdout_is("0\ntestkit\n1\n");
    world.assert_nothing_left();
}

#[test]
fn root_of_a_user_namespace_makes_another_one() {
    let mut world = require!(World::single());
    require!(skip::program("unshare"));
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    world
        .bundle
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .shell("id -u; hostname; echo x >/dev/null");
    let bundle = world.bundle.path().display().to_string();
    as_inner_root(&world, &["run", "--bundle", &bundle, &world.id])
        .ok()
        .stdout_is("0\ntestkit\n");
    world.assert_nothing_left();
}

#[test]
fn the_state_of_another_user_cannot_be_read() {
    let mut world = require!(World::single());
    world.bundle.args(["sleep", "100"]);
    world.begin(&["run", "--detach"]).ok();
    let state: &Path = &world.user.runtime_dir();
    let other = require!(User::plain());
    let program = other.home().join("carrack-runtime");
    copy_program(&world.program, &program).unwrap();
    let mut command = other.command(&program);
    command.arg("--root").arg(state.join("carrack-runtime"));
    finish(command.args(["state", &world.id])).fails_with("ermission denied");
    world.call(&["delete", "--force", &world.id]).ok();
    world.assert_nothing_left();
}
