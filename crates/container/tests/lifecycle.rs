//! The life of a container on the real kernel, its cgroups and what is refused when.

mod common;

use carrack_container::spec::runtime::{Resources, Status};
use carrack_container::{CreateOptions, Error, Exit, RuntimeOptions};
use carrack_testkit::bundle::copy_program;
use carrack_testkit::{TempDir, User, leaks, require, skip, unique};
use common::{World, chain, status_line};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

fn resources(value: serde_json::Value) -> Resources {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_container_that_waits_for_start_ends_when_it_is_asked_to() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    let mut live = world.create();
    live.kill(15);
    assert_eq!(live.wait(), Exit::Code(143));
    assert_eq!(live.container().status().unwrap(), Status::Stopped);
    live.delete();
    // The program finds the signal as it would have been.
    world.bundle.args(["grep", "SigCgt", "/proc/self/status"]);
    assert_eq!(world.run(), "SigCgt:\t0000000000000000\n");
}

#[test]
fn what_does_not_fit_the_status_is_refused() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    let mut live = world.create();
    let container = live.container();
    assert_eq!(container.status().unwrap(), Status::Created);
    assert!(matches!(container.resume(), Err(Error::WrongStatus { .. })));
    container.start().unwrap();
    assert_eq!(container.status().unwrap(), Status::Running);
    assert!(matches!(container.start(), Err(Error::WrongStatus { .. })));
    assert!(matches!(container.resume(), Err(Error::WrongStatus { .. })));
    container.pause().unwrap();
    assert_eq!(container.status().unwrap(), Status::Paused);
    assert!(matches!(container.pause(), Err(Error::WrongStatus { .. })));
    assert!(matches!(
        live.try_exec("true", |_| {}),
        Err(Error::WrongStatus { .. })
    ));
    let same = world.runtime.load(&world.id).unwrap();
    assert!(matches!(same.delete(false), Err(Error::NotStopped { .. })));
    // Nobody needs to thaw it first.
    live.kill(9);
    assert_eq!(live.wait(), Exit::Signal(9));
    let container = live.container();
    assert_eq!(container.status().unwrap(), Status::Stopped);
    assert!(matches!(
        container.kill(15, false),
        Err(Error::NotRunning { .. })
    ));
    assert!(matches!(container.pause(), Err(Error::WrongStatus { .. })));
    let none = Resources::default();
    assert!(matches!(
        container.update(&none, None),
        Err(Error::WrongStatus { .. })
    ));
    assert!(matches!(
        live.try_exec("true", |_| {}),
        Err(Error::NotRunning { .. })
    ));
    live.delete();
    assert!(matches!(
        world.runtime.load(&world.id),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn one_of_many_creates_of_an_id_wins() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    world.bundle.write();
    let results: Vec<_> = std::thread::scope(|scope| {
        let world = &world;
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let options = CreateOptions {
                        bundle: world.bundle.path().to_owned(),
                        stdio: Some(common::streams(&tempfile::tempfile().unwrap())),
                        ..CreateOptions::default()
                    };
                    world.runtime.create(&world.id, options)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for result in refused {
        assert!(matches!(result, Err(Error::Exists { .. })), "{result:?}");
    }
    for created in made.into_iter().flatten() {
        created.container.delete(true).unwrap();
    }
    world.assert_nothing_left();
}

#[test]
fn a_paused_container_can_be_deleted_by_force() {
    let mut world = require!(World::new());
    world.bundle.shell("sleep 100 & sleep 100");
    let mut live = world.start();
    live.container().pause().unwrap();
    live.delete();
}

#[test]
fn processes_that_escaped_into_child_groups_are_removed_too() {
    let mut world = require!(World::new());
    world.bundle.without_namespace("pid");
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let group = live.container().cgroup().unwrap();
    let inner = group.child("inner").unwrap().child("most").unwrap();
    let pid = live.pid();
    let mut other = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    inner.attach(i32::try_from(other.id()).unwrap()).unwrap();
    assert!(live.container().processes().unwrap().contains(&pid));
    live.kill(9);
    live.wait();
    drop(live);
    assert!(!other.wait().unwrap().success(), "it was killed");
    world.assert_nothing_left();
}

#[test]
fn limits_are_in_force_and_can_be_changed() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/linux/resources",
        json!({
            "memory": {"limit": 33_554_432}, "pids": {"limit": 10},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
            "devices": [{"allow": false, "access": "rwm"}],
        }),
    );
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let stats = live.container().cgroup().unwrap().stats().unwrap();
    assert_eq!(stats.memory.memory.limit, Some(33_554_432));
    assert_eq!(stats.pids.limit, Some(10));
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done";
    let (_, text) = live.try_exec(script, |_| {}).unwrap();
    assert!(text.contains("fork"), "{text}");
    let more = resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}}));
    live.container().update(&more, None).unwrap();
    let stats = live.container().cgroup().unwrap().stats().unwrap();
    assert_eq!(stats.memory.memory.limit, Some(67_108_864));
    assert_eq!(stats.pids.limit, Some(50));
    live.delete();
}

#[test]
fn groups_are_where_the_path_says() {
    let mut world = require!(World::new());
    let parent = unique();
    world.bundle.set(
        "/linux/cgroupsPath",
        json!(format!("/{parent}/{}", world.id)),
    );
    world.bundle.args(["sleep", "100"]);
    let live = world.start();
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", live.pid())).unwrap();
    let wanted = format!(":/{parent}/{}", world.id);
    assert!(
        text.lines()
            .all(|line| line.ends_with(&wanted) || line.contains("misc")),
        "{text}"
    );
    live.delete();
    for directory in leaks::cgroups(&parent) {
        std::fs::remove_dir(directory).unwrap();
    }
    world
        .bundle
        .set("/linux/cgroupsPath", json!("/../../escape"))
        .args(["true"]);
    let text = match world.try_run() {
        Err(error) => chain(&error),
        Ok(_) => String::new(),
    };
    assert!(!Path::new("/sys/fs/escape").exists(), "{text}");
}

#[test]
fn impossible_limits_fail_the_create_by_name() {
    let mut world = require!(World::new());
    world.bundle.args(["true"]);
    for (value, name) in [
        (json!({"cpu": {"cpus": "4096"}}), "cpus"),
        (json!({"memory": {"limit": 1024, "swap": 10}}), "swap"),
        (
            json!({"devices": [{"allow": true, "type": "x", "access": "rwm"}]}),
            "x",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "7MB", "limit": 1}]}),
            "7MB",
        ),
    ] {
        world.bundle.set("/linux/resources", value);
        let error = world.error();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn device_rules_hold_in_a_user_namespace_too() {
    let mut world = require!(World::new());
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user"}));
    world.bundle.set("/linux/uidMappings", map.clone());
    world.bundle.set("/linux/gidMappings", map);
    world.bundle.chown(200_000, 200_000);
    require!(skip::exists("/dev/kmsg"));
    let node = world.dir().join("node");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &node,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 11),
    )
    .unwrap();
    rustix::fs::chmod(&node, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    world.bundle.push(
        "/mounts",
        json!({"destination": "/dev/kmsg", "source": node, "options": ["bind", "dev"]}),
    );
    let text = world.sh("echo -n > /dev/kmsg 2>&1; echo x > /dev/null && echo null");
    assert!(text.contains("Operation not permitted"), "{text}");
    assert!(text.ends_with("null\n"), "{text}");
}

#[test]
fn a_device_bound_into_a_user_namespace_is_the_one_asked_for() {
    let mut world = require!(World::new());
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user"}));
    world.bundle.set("/linux/uidMappings", map.clone());
    world.bundle.set("/linux/gidMappings", map);
    world.bundle.chown(200_000, 200_000);
    world.bundle.args(["true"]);
    // The host has another device by this name.
    world.bundle.set(
        "/linux/devices",
        json!([{"type": "c", "path": "/dev/null", "major": 1, "minor": 11}]),
    );
    let error = world.error();
    assert!(error.contains("/dev/null"), "{error}");
}

#[test]
fn limits_of_a_user_namespace_are_set_from_outside() {
    let mut world = require!(World::new());
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user"}));
    world.bundle.set("/linux/uidMappings", map.clone());
    world.bundle.set("/linux/gidMappings", map);
    world.bundle.chown(200_000, 200_000);
    world.bundle.set("/process/oomScoreAdj", json!(300));
    world.bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]),
    );
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let text =
        live.exec("ulimit -n; ulimit -Hn; cat /proc/1/oom_score_adj /proc/self/oom_score_adj");
    assert_eq!(text, "77\n88\n300\n300\n");
    live.delete();
}

#[test]
fn cache_allocation_without_hardware_is_an_error() {
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        carrack_testkit::skip!("this machine has resctrl mounted");
    }
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"}))
        .args(["true"]);
    let error = world.error();
    assert!(
        error.contains("intelRdt") || error.contains("resctrl"),
        "{error}"
    );
}

#[test]
fn a_pid_file_is_whole_and_a_failed_one_leaves_nothing() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    let path = world.dir().join("pid");
    let file = path.clone();
    let live = world.made(false, |options| options.pid_file = Some(file));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        live.pid().to_string()
    );
    live.delete();
    let error = world
        .try_run_with(|options| options.pid_file = Some("/no/such/dir/pid".into()))
        .err()
        .expect("no such directory");
    assert!(
        chain(&error).contains("/no/such/dir/pid"),
        "{}",
        chain(&error)
    );
}

#[test]
fn descriptors_are_preserved_by_number() {
    let mut world = require!(World::new());
    // Numbers belong to the whole process, so this needs one of its own.
    const INNER: &str = "CARRACK_TEST_PRESERVE";
    if std::env::var_os(INNER).is_none() {
        let script = "exec 3</dev/zero; exec \"$0\" --exact \"$1\" --nocapture";
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg("descriptors_are_preserved_by_number")
            .env(INNER, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    world
        .bundle
        .shell("head -c 4 <&3 | wc -c; ls /proc/self/fd | wc -l");
    for start in [true, false] {
        let mut live = world.made(start, |options| options.preserve_fds = 1);
        if !start {
            live.container().start().unwrap();
        }
        assert_eq!(live.wait(), Exit::Code(0));
        assert_eq!(live.output(), "4\n5\n", "it works, and is the only one");
        live.delete();
    }
}

#[test]
fn a_failed_step_leaves_nothing_and_says_where() {
    let mut world = require!(World::new());
    world.bundle.args(["true"]);
    let good = world.bundle.config.clone();
    for (pointer, value, expected) in [
        ("/root/path", json!("no-rootfs"), "no-rootfs"),
        ("/mounts/0/type", json!("nofs"), "nofs"),
        ("/mounts/0/options", json!(["bogus=1"]), "/proc"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        (
            "/process/apparmorProfile",
            json!("no-such-profile"),
            "AppArmor",
        ),
        ("/process/args", json!([]), "process.args"),
        ("/hostname", json!("x".repeat(100)), "host name"),
        ("/ociVersion", json!("9.0.0"), "ociVersion"),
        (
            "/linux/personality",
            json!({"domain": "HURD"}),
            "personality",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "timeOffsets",
        ),
    ] {
        world.bundle.config = good.clone();
        world.bundle.set(pointer, value);
        let error = world.error();
        let found = error.to_lowercase().contains(&expected.to_lowercase());
        assert!(found, "{pointer}: {error}");
    }
}

#[test]
fn the_root_may_be_a_link_and_an_absolute_path() {
    let mut world = require!(World::new());
    let link = world.dir().join("link");
    std::os::unix::fs::symlink(world.bundle.rootfs(), &link).unwrap();
    world.bundle.set("/root/path", json!(link));
    assert_eq!(world.sh("echo in"), "in\n");
}

/// The interface as an ordinary user sees it: a copy of this test program runs as one.
#[test]
fn an_ordinary_user_can_run_a_container() {
    const INNER: &str = "CARRACK_TEST_ROOTLESS";
    let name = "an_ordinary_user_can_run_a_container";
    if let Some(root) = std::env::var_os(INNER) {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let runtime = carrack_container::Runtime::new(
            carrack_container::Runtime::default_root(),
            RuntimeOptions::default(),
        );
        let mut running = carrack_container::ContainerBuilder::new(root)
            .command([
                "sh",
                "-c",
                "id -u; id -g; hostname; touch /made && ls /sys/class/net",
            ])
            .hostname("rootless")
            .map_users(0, uid, 1)
            .map_groups(0, gid, 1)
            .stdout(carrack_container::Stdio::Piped)
            .spawn(&runtime, "user")
            .unwrap_or_else(|e| panic!("{}", chain(&e)))
            .delete_on_drop();
        let output = running.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "0\n0\nrootless\nlo\n"
        );
        return;
    }
    let user = require!(User::plain());
    let bundle = require!(carrack_testkit::Bundle::busybox());
    bundle.chown(user.uid(), user.gid());
    let dir = TempDir::new();
    let program = dir.path().join("program");
    copy_program(&std::env::current_exe().unwrap(), &program).unwrap();
    let output = user
        .command(&program)
        .args(["--exact", name, "--nocapture"])
        .env(INNER, bundle.rootfs())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(bundle.rootfs().join("made").exists());
}

/// As rootless engines call the runtime: root, but only of a user namespace of their own.
#[test]
fn root_of_a_user_namespace_can_run_a_container() {
    const INNER: &str = "CARRACK_TEST_NESTED";
    let name = "root_of_a_user_namespace_can_run_a_container";
    if let Some(root) = std::env::var_os(INNER) {
        let state = std::env::var_os("XDG_RUNTIME_DIR").unwrap();
        let runtime =
            carrack_container::Runtime::new(Path::new(&state).join("s"), RuntimeOptions::default());
        let mut running = carrack_container::ContainerBuilder::new(root)
            .command([
                "sh",
                "-c",
                "id -u; echo x > /dev/null && head -c 3 /dev/zero | wc -c",
            ])
            .user(5, 6)
            .stdout(carrack_container::Stdio::Piped)
            .spawn(&runtime, "nested")
            .unwrap_or_else(|e| panic!("{}", chain(&e)))
            .delete_on_drop();
        let output = running.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "5\n3\n");
        return;
    }
    let user = require!(User::with_subordinate_ids());
    let unshare = require!(skip::program("unshare"));
    let flags = ["--user", "--mount", "--map-root-user", "--map-auto"];
    let works = user
        .command(&unshare)
        .args(flags)
        .arg("true")
        .status()
        .unwrap();
    if !works.success() {
        carrack_testkit::skip!("unshare cannot map subordinate ids here");
    }
    let bundle = require!(carrack_testkit::Bundle::busybox());
    bundle.chown(user.uid(), user.gid());
    let dir = TempDir::new();
    let program = dir.path().join("program");
    copy_program(&std::env::current_exe().unwrap(), &program).unwrap();
    let output = user
        .command(&unshare)
        .args(flags)
        .arg(&program)
        .args(["--exact", name, "--nocapture"])
        .env(INNER, bundle.rootfs())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_thousand_lines_of_output_do_not_block_anybody() {
    let mut world = require!(World::new());
    let text = world.sh("seq 1 100000 | tail -1");
    assert_eq!(text, "100000\n");
}

#[test]
fn containers_end_with_their_process_1() {
    let mut world = require!(World::new());
    world.bundle.shell("sleep 1000 & sleep 1000 & exit 5");
    let started = Instant::now();
    let mut live = world.start();
    assert_eq!(live.wait(), Exit::Code(5));
    assert!(live.container().processes().unwrap().is_empty());
    live.delete();
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_state_is_that_of_the_specification() {
    let mut world = require!(World::new());
    world.bundle.set("/annotations", json!({"a": "b"}));
    world.bundle.args(["sleep", "100"]);
    let mut live = world.create();
    let state = serde_json::to_value(live.container().state().unwrap()).unwrap();
    assert_eq!(state["id"], world.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], live.pid());
    assert_eq!(state["bundle"], json!(world.bundle.path()));
    assert_eq!(state["annotations"], json!({"a": "b"}));
    let status = std::fs::read_to_string(format!("/proc/{}/status", live.pid())).unwrap();
    assert_eq!(
        status_line(&status, "NSpid").split_whitespace().last(),
        Some("1")
    );
    live.delete();
}
