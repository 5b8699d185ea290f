//! Groups on the real host: made, entered, frozen, killed, removed. Runs as root; what the host
//! lacks is skipped with the reason printed.

mod common;

use carrack_cgroup::{Driver, Error, Group, Request};
use carrack_testkit::{require, skip, wait_until};
use common::{Guard, Process, create, host, unique};
use std::os::unix::process::ExitStatusExt;

#[test]
fn a_group_exists_in_every_hierarchy_until_it_is_removed() {
    let layout = require!(host());
    let group = create(&layout, &format!("/{}", unique("every"))).unwrap();
    let paths = group.paths();
    for dir in paths.values() {
        assert!(
            std::path::Path::new(dir).join("cgroup.procs").exists(),
            "{dir}"
        );
    }
    let entry = group.entry().unwrap();
    let v1 = layout
        .hierarchies()
        .iter()
        .filter(|h| !h.controllers.is_empty());
    assert_eq!(entry.v1_tasks.len(), v1.count());
    assert_eq!(entry.v2.is_some(), layout.v2().is_some());
    group.remove().unwrap();
    for dir in paths.values() {
        assert!(!std::path::Path::new(dir).exists(), "{dir}");
    }
    group.remove().unwrap(); // again is fine
}

#[test]
fn a_parent_that_was_left_without_processors_gets_those_of_its_own() {
    let layout = require!(host());
    let root = std::path::Path::new("/sys/fs/cgroup/cpuset");
    if !root.join("cpuset.cpus").exists() {
        skip!("no v1 cpuset hierarchy");
    }
    let name = unique("bare");
    std::fs::create_dir(root.join(&name)).unwrap();
    let group = create(&layout, &format!("/{name}/below")).unwrap();
    let cpus = std::fs::read_to_string(root.join(&name).join("below/cpuset.cpus"));
    group.remove().unwrap();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(&name));
    }
    assert_ne!(cpus.unwrap().trim(), "");
}

#[test]
fn an_empty_path_is_the_id_below_the_own_cgroup() {
    let layout = require!(host());
    let id = unique("own");
    let request = Request {
        id: &id,
        ..Default::default()
    };
    let group = Guard(Group::create(&layout, &request).unwrap());
    for hierarchy in layout
        .hierarchies()
        .iter()
        .filter(|h| !h.controllers.is_empty())
    {
        let expect = hierarchy
            .mountpoint
            .join(hierarchy.own.trim_start_matches('/'))
            .join(&id);
        assert_eq!(
            group.paths()[&hierarchy.controllers[0]],
            expect.to_string_lossy()
        );
    }
}

#[test]
fn the_saved_paths_open_the_same_group() {
    let layout = require!(host());
    let group = Guard::new(&layout, "saved");
    let sleeper = Process::sleeper();
    group.attach(sleeper.pid()).unwrap();
    let again = Group::open(&layout, &group.paths(), Driver::Cgroupfs);
    assert_eq!(again.paths(), group.paths());
    assert_eq!(again.pids(false).unwrap(), [sleeper.pid()]);
}

#[test]
fn a_populated_group_is_refused_to_a_new_container_and_left_alone() {
    let layout = require!(host());
    let path = format!("/{}", unique("taken"));
    let group = Guard(create(&layout, &path).unwrap());
    let sleeper = group.sleeper();
    let error = create(&layout, &path).unwrap_err();
    assert!(
        matches!(error, Error::NotEmpty { processes: 1, .. }),
        "{error}"
    );
    assert_eq!(group.pids(true).unwrap(), [sleeper.pid()]);
    // Empty again, it is accepted.
    drop(sleeper);
    create(&layout, &path).unwrap();
}

#[test]
fn a_frozen_group_is_refused_to_a_new_container() {
    let layout = require!(host());
    let path = format!("/{}", unique("frozen"));
    let group = Guard(create(&layout, &path).unwrap());
    group.freeze().unwrap();
    assert!(matches!(
        create(&layout, &path).unwrap_err(),
        Error::Frozen { .. }
    ));
    group.thaw().unwrap();
}

#[test]
fn a_frozen_process_stands_still_and_goes_on_after_the_thaw() {
    let layout = require!(host());
    let group = Guard::new(&layout, "freeze");
    let busy = group.shell("while :; do :; done");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", busy.pid())).unwrap();
        stat.rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(11)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(ticks(), before);
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    wait_until("progress after the thaw", || ticks() > before);
}

#[test]
fn signals_reach_every_process_also_in_a_frozen_group() {
    let layout = require!(host());
    let group = Guard::new(&layout, "kill");
    let (mut one, mut two) = (group.sleeper(), group.sleeper());
    group.kill(15).unwrap();
    assert_eq!(one.0.wait().unwrap().signal(), Some(15));
    assert_eq!(two.0.wait().unwrap().signal(), Some(15));
    let mut three = group.sleeper();
    group.freeze().unwrap();
    group.kill(9).unwrap();
    assert_eq!(three.0.wait().unwrap().signal(), Some(9));
}

#[test]
fn removal_of_a_populated_group_fails_with_its_processes() {
    let layout = require!(host());
    let group = Guard::new(&layout, "busy");
    let sleeper = group.sleeper();
    match group.remove().unwrap_err() {
        Error::Busy { pids, .. } => assert_eq!(pids, [sleeper.pid()]),
        e => panic!("{e}"),
    }
}

#[test]
fn destroy_reaches_a_process_that_hides_in_a_nested_group() {
    let layout = require!(host());
    let group = Guard::new(&layout, "nested");
    let deep = group.child("a").unwrap().child("b").unwrap();
    let forker = "while :; do sleep 0.01 & sleep 0.01; done";
    let mut command = std::process::Command::new("sh");
    let mut hidden = Process(deep.spawn(command.args(["-c", forker])).unwrap());
    assert!(group.pids(false).unwrap().is_empty());
    assert!(group.pids(true).unwrap().contains(&hidden.pid()));
    group.destroy().unwrap();
    assert_eq!(hidden.0.wait().unwrap().signal(), Some(9));
    assert!(!group.exists() && !deep.exists());
}

#[test]
fn a_hundred_groups_are_made_at_the_same_time() {
    let layout = require!(host());
    let parent = unique("parallel");
    let threads: Vec<_> = (0..100)
        .map(|n| {
            let (layout, path) = (layout.clone(), format!("/{parent}/{n}"));
            std::thread::spawn(move || {
                let group = create(&layout, &path).unwrap();
                group.entry().unwrap();
                group.remove().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    create(&layout, &format!("/{parent}"))
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let layout = require!(host());
    // The last hierarchy refuses: the same name is populated there alone.
    let name = unique("undo");
    let last = layout.hierarchies().last().unwrap();
    let dir = last.mountpoint.join(&name);
    std::fs::create_dir(&dir).unwrap();
    let sleeper = Process::sleeper();
    std::fs::write(dir.join("cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert!(create(&layout, &format!("/{name}")).is_err());
    for hierarchy in layout.hierarchies().iter().filter(|h| *h != last) {
        assert!(!hierarchy.mountpoint.join(&name).exists());
    }
    drop(sleeper);
    create(&layout, &format!("/{name}"))
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn sub_groups_stay_below_the_group() {
    let layout = require!(host());
    let group = Guard::new(&layout, "sub");
    assert!(group.sub("../x").is_err());
    assert!(group.child("a/b").is_err());
    assert!(group.sub_of(&["nonsense"], "x").is_err());
    let sub = group.sub("/a/b").unwrap();
    for (key, dir) in sub.paths() {
        assert_eq!(dir, format!("{}/a/b", group.paths()[&key]));
    }
}

#[test]
fn a_nested_group_of_a_populated_one_takes_processes_and_explains_missing_limits() {
    let layout = require!(host());
    let group = Guard::new(&layout, "inner");
    let _outer = group.sleeper();
    let inner = group.child("inner").unwrap();
    let mut command = std::process::Command::new("sleep");
    let _hidden = Process(inner.spawn(command.arg("1000")).unwrap());
    if common::pure_v2(&layout) {
        let limits = carrack_cgroup::Limits::new().pids_max(5);
        let error = inner.limit(&limits).unwrap_err().to_string();
        assert!(error.contains("holds processes itself"), "{error}");
    }
    group.destroy().unwrap();
}
