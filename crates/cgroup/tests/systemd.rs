//! The systemd driver against a running service manager: the system's as root, the user's as
//! an ordinary user. Skipped with the reason printed where there is none.

mod common;

use carrack_cgroup::{Driver, Error, Group, Layout, Request};
use carrack_spec::defaults::device_rules;
use carrack_spec::runtime::Resources;
use carrack_testkit::skip;
use common::{Guard, Process, pure_v2, unique};
use std::path::Path;
use std::process::Command;

fn from(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// The layout and whether the user's manager is to be asked.
fn manager() -> Result<(Layout, bool), String> {
    let layout = Layout::detect().map_err(|e| e.to_string())?;
    if !Path::new("/run/systemd/system").exists() {
        return Err("systemd is not running".into());
    }
    let user = !rustix::process::geteuid().is_root();
    if user && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        return Err("no user manager (XDG_RUNTIME_DIR is not set)".into());
    }
    Ok((layout, user))
}

fn request<'a>(id: &'a str, path: &'a str, user: bool) -> Request<'a> {
    Request {
        id,
        path,
        driver: Driver::Systemd { user },
        rootless: user,
        ..Default::default()
    }
}

/// A property of a unit as systemctl prints it.
fn show(unit: &str, property: &str, user: bool) -> String {
    let mut command = Command::new("systemctl");
    if user {
        command.arg("--user");
    }
    let out = command
        .args(["show", "--value", "-p", property, unit])
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[test]
fn a_scope_starts_with_its_process_and_its_limits_and_ends_without_a_trace() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    let id = unique("scope");
    let request = request(&id, "", user);
    let group = Guard(Group::create(&layout, &request).unwrap());
    assert!(group.needs_attach() && !group.exists());
    group
        .apply(&from(
            r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"shares":2048,"quota":50000,"period":100000},"pids":{"limit":33}}"#,
        ))
        .unwrap();
    group.apply_devices(&device_rules()).unwrap();
    assert!(group.entry().is_err());

    let sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    assert!(!group.needs_attach() && group.exists());
    assert_eq!(group.pids(false).unwrap(), [sleeper.pid()]);
    let unit = format!("carrack-{id}.scope");
    assert_eq!(show(&unit, "ActiveState", user), "active");
    assert_eq!(show(&unit, "Delegate", user), "yes");
    assert_eq!(show(&unit, "TasksMax", user), "33");
    assert_eq!(group.read("pids", "pids.max"), "33");
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.memory.limit, Some(64 << 20));
    if pure_v2(&layout) {
        assert_eq!(show(&unit, "MemoryMax", user), "67108864");
        assert_eq!(group.read("", "cpu.max"), "50000 100000");
    }

    // A change reaches systemd as well as the kernel, and survives a reload.
    group
        .apply(&from(
            r#"{"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":44}}"#,
        ))
        .unwrap();
    let mut reload = Command::new("systemctl");
    if user {
        reload.arg("--user");
    }
    assert!(reload.arg("daemon-reload").status().unwrap().success());
    assert_eq!(show(&unit, "TasksMax", user), "44");
    assert_eq!(group.read("pids", "pids.max"), "44");
    assert_eq!(group.stats().unwrap().memory.memory.limit, Some(32 << 20));

    // Found again from the saved paths it can be changed, entered and ended.
    let driver = Driver::Systemd { user };
    let again = Group::open(&layout, &group.paths(), driver);
    again.apply(&from(r#"{"pids":{"limit":55}}"#)).unwrap();
    assert_eq!(show(&unit, "TasksMax", user), "55");
    if !user {
        again.entry().unwrap();
    }
    again.destroy().unwrap();
    assert!(!group.exists());
    assert_eq!(show(&unit, "LoadState", user), "not-found");
}

#[test]
fn device_rules_hold_in_a_scope_also_after_a_reload() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    if user {
        skip!("device rules need root");
    }
    let id = unique("devices");
    let path = format!("machine.slice:test:{id}");
    let group = Guard(Group::create(&layout, &request(&id, &path, user)).unwrap());
    group.apply_devices(&device_rules()).unwrap();
    let sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    let works = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stderr(std::process::Stdio::null());
        group.spawn(&mut command).unwrap().wait().unwrap().success()
    };
    for reload in [false, true] {
        if reload {
            assert!(
                Command::new("systemctl")
                    .arg("daemon-reload")
                    .status()
                    .unwrap()
                    .success()
            );
            group.apply(&from(r#"{"cpu":{"shares":512}}"#)).unwrap();
        }
        assert!(works("exec 3</dev/zero"));
        assert!(!works("exec 3</dev/kmsg"), "kmsg must be denied");
    }
}

#[test]
fn a_scope_lies_in_the_slices_its_name_says_and_escapes_odd_names() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    let id = unique("odd+name");
    let slice = format!("carracktest{}-inner.slice", std::process::id());
    let path = format!("{slice}:pre:{id}");
    let group = Guard(Group::create(&layout, &request(&id, &path, user)).unwrap());
    let sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    let dir = group.paths().into_values().next_back().unwrap();
    let outer = slice.replace("-inner", "");
    let name = id.replace('+', "\\x2b");
    let end = format!("/{outer}/{slice}/pre-{name}.scope");
    assert!(dir.ends_with(&end), "{dir} does not end with {end}");
    assert_eq!(group.pids(true).unwrap(), [sleeper.pid()]);
    group.destroy().unwrap();
    for slice in [&slice, &outer] {
        let mut stop = Command::new("systemctl");
        if user {
            stop.arg("--user");
        }
        stop.args(["stop", slice]).status().unwrap();
    }
}

#[test]
fn a_running_unit_of_the_same_name_is_refused_and_left_alone() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    let id = unique("twice");
    let group = Guard(Group::create(&layout, &request(&id, "", user)).unwrap());
    let sleeper = Process::sleeper();
    // Planned twice before either runs: the second start is the one that fails.
    let second = Group::create(&layout, &request(&id, "", user)).unwrap();
    group.attach(sleeper.pid()).unwrap();
    let other = Process::sleeper();
    let error = second.attach(other.pid()).unwrap_err();
    assert!(matches!(error, Error::Systemd { .. }), "{error}");
    assert!(matches!(
        Group::create(&layout, &request(&id, "", user)).unwrap_err(),
        Error::NotEmpty { .. }
    ));
    assert_eq!(group.pids(true).unwrap(), [sleeper.pid()]);
}

#[test]
fn a_scope_with_a_process_is_not_removed_only_destroyed() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    let id = unique("destroy");
    let group = Guard(Group::create(&layout, &request(&id, "", user)).unwrap());
    let mut sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    assert!(matches!(group.remove().unwrap_err(), Error::Busy { .. }));
    assert!(sleeper.0.try_wait().unwrap().is_none());
    // A delegated scope may have nested groups, and a process may hide in one.
    let inner = group.child("inner").unwrap();
    inner.attach(sleeper.pid()).unwrap();
    group.destroy().unwrap();
    sleeper.0.wait().unwrap();
    assert!(!group.exists());
}

#[test]
fn extra_properties_reach_the_unit_and_wrong_ones_are_refused() {
    let (layout, user) = match manager() {
        Ok(found) => found,
        Err(e) => skip!("{e}"),
    };
    let id = unique("props");
    let properties = [("TimeoutStopSec", "uint64 7"), ("Description", "'a test'")];
    let wanted = Request {
        properties: &properties,
        ..request(&id, "", user)
    };
    let group = Guard(Group::create(&layout, &wanted).unwrap());
    let sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    let unit = format!("carrack-{id}.scope");
    assert_eq!(show(&unit, "Description", user), "a test");
    assert_eq!(show(&unit, "TimeoutStopUSec", user), "7s");
    let wrong = [("NoSuchProperty", "true")];
    let id = unique("wrong");
    let wanted = Request {
        properties: &wrong,
        ..request(&id, "", user)
    };
    let group = Group::create(&layout, &wanted).unwrap();
    let error = group.attach(sleeper.pid()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("NoSuchProperty"), "{source}");
}

#[test]
fn a_missing_manager_is_told_with_where_it_was_looked_for() {
    if Path::new("/run/systemd/private").exists() {
        skip!("systemd is running");
    }
    let Ok(layout) = Layout::detect() else {
        skip!("no cgroups");
    };
    let group = Group::create(&layout, &request("x", "", false)).unwrap();
    let error = group.attach(1).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("/run/systemd/private"), "{source}");
}
