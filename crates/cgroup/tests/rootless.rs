//! Without rights to cgroups, and with a delegated one. Started as root, each test runs itself
//! again as an ordinary user (a copy of this program, so that the user may read it).

mod common;

use carrack_cgroup::{Driver, Error, Group, Layout, Request};
use carrack_spec::runtime::Resources;
use carrack_testkit::skip;
use common::{Guard, unique};
use std::process::Command;

/// Runs the test of this name as uid 65534; true in the parent, which then is done.
fn ran_as_user(test: &str) -> Result<bool, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let copy = std::env::temp_dir().join(unique("rootless"));
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    std::fs::copy(exe, &copy).map_err(|e| e.to_string())?;
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&copy)
        .args(["--exact", test, "--nocapture"])
        .current_dir("/")
        .output();
    let _ = std::fs::remove_file(&copy);
    let out = out.map_err(|e| format!("setpriv: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    print!("{text}");
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
    Ok(true)
}

fn request(id: &str, rootless: bool) -> Request<'_> {
    Request {
        id,
        driver: Driver::Cgroupfs,
        rootless,
        ..Default::default()
    }
}

#[test]
fn without_rights_a_rootless_group_is_none_and_refuses_limits_by_name() {
    match ran_as_user("without_rights_a_rootless_group_is_none_and_refuses_limits_by_name") {
        Ok(true) => return,
        Ok(false) => {}
        Err(e) => skip!("{e}"),
    }
    let layout = Layout::detect().unwrap();
    let id = unique("none");
    let group = Group::create(&layout, &request(&id, true)).unwrap();
    if !group.is_none() {
        group.remove().unwrap();
        skip!("this user has a delegated cgroup");
    }
    assert!(group.paths().is_empty());
    let entry = group.entry().unwrap();
    assert!(entry.v2.is_none() && entry.v1_tasks.is_empty());
    group.apply(&Resources::default()).unwrap();
    group
        .apply_devices(&carrack_spec::defaults::device_rules())
        .unwrap();
    let limits: Resources = serde_json::from_str(r#"{"memory":{"limit":1048576}}"#).unwrap();
    match group.apply(&limits).unwrap_err() {
        Error::NoRights { field } => assert_eq!(field, "linux.resources.memory"),
        e => panic!("{e}"),
    }
    assert!(group.pids(true).unwrap().is_empty());
    assert!(group.freeze().is_err() && !group.is_frozen().unwrap());
    group.kill(9).unwrap();
    group.stats().unwrap();
    group.destroy().unwrap();
}

#[test]
fn without_rights_a_demanded_group_says_what_to_do() {
    match ran_as_user("without_rights_a_demanded_group_says_what_to_do") {
        Ok(true) => return,
        Ok(false) => {}
        Err(e) => skip!("{e}"),
    }
    let layout = Layout::detect().unwrap();
    let id = unique("demand");
    match Group::create(&layout, &request(&id, false)) {
        Ok(group) => {
            group.remove().unwrap();
            skip!("this user has a delegated cgroup");
        }
        Err(e) => assert!(e.to_string().contains("delegated"), "{e}"),
    }
}

/// Runs where the test is started by a user in a delegated cgroup, such as
/// `systemd-run --user --scope -p Delegate=yes`.
#[test]
fn in_a_delegated_cgroup_limits_hold() {
    if rustix::process::geteuid().is_root() {
        skip!("started as root; delegation is for users");
    }
    let layout = Layout::detect().unwrap();
    let id = unique("delegated");
    let group = match Group::create(&layout, &request(&id, true)) {
        Ok(group) if !group.is_none() => Guard(group),
        _ => skip!("no delegated cgroup"),
    };
    let limits: Resources =
        serde_json::from_str(r#"{"pids":{"limit":20},"memory":{"limit":67108864}}"#).unwrap();
    group.apply(&limits).unwrap();
    let sleeper = group.sleeper();
    assert_eq!(group.pids(false).unwrap(), [sleeper.pid()]);
    assert_eq!(group.stats().unwrap().pids.limit, Some(20));
    group.freeze().unwrap();
    group.thaw().unwrap();
    group.destroy().unwrap();
    assert!(!group.exists());
}
