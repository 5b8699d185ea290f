//! Checkpoint and restore with the real criu. Where `criu check` fails, as it does when criu is older
//! than the kernel, each test says so and is skipped.

mod labels;
mod options;
mod world;

use carrack_container::{CheckpointOptions, Console, CreateOptions, Error, RestoreOptions};
use carrack_spec::runtime::Status;
use carrack_testkit::{TempDir, require};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use world::{World, line, null, reap, stop, tell, told};

#[test]
fn a_process_goes_on_where_it_was_checkpointed() {
    let world = require!(World::counting());
    let created = world.run(null());
    world.wait_past(3);
    let first = created.container.record().init_process_pid;
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    assert_eq!(told(created.container.status()), Status::Stopped);
    let at = world.count();
    told(created.container.delete(false));
    world.assert_nothing_left();
    assert!(world.images().join("descriptors.json").exists());

    let restored = world.restore(null());
    let next = world.wait_past(at);
    assert!(next < at + 100, "it began anew: {at}, then {next}");
    assert_eq!(told(restored.container.status()), Status::Running);
    let record = restored.container.record().clone();
    assert_ne!(record.init_process_pid, 0);
    assert_ne!(record.init_process_pid, first);
    let pids = told(restored.container.processes());
    assert!(pids.contains(&record.init_process_pid), "{pids:?}");
    let loaded = told(world.runtime().load(&world.id));
    assert_eq!(loaded.record().init_process_pid, record.init_process_pid);
    told(restored.container.pause());
    told(restored.container.resume());
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn a_container_may_run_on_after_its_checkpoint() {
    let world = require!(World::counting());
    let created = world.run(null());
    let at = world.wait_past(3);
    let options = CheckpointOptions {
        leave_running: true,
        ..world.dump()
    };
    told(created.container.checkpoint(options));
    world.wait_past(at + 3);
    assert_eq!(told(created.container.status()), Status::Running);
    stop(created.container);
    world.assert_nothing_left();
}

#[test]
fn memory_can_be_stored_ahead_of_the_checkpoint() {
    let world = require!(World::counting());
    let created = world.run(null());
    let at = world.wait_past(3);
    let mut options = CheckpointOptions {
        pre_dump: true,
        ..world.dump()
    };
    options.criu.images = world.dir.path().join("before");
    match created.container.checkpoint(options) {
        Err(Error::System { what, .. }) if what.contains("not supported") => {
            stop(created.container);
            carrack_testkit::skip!("{what}");
        }
        other => told(other),
    }
    world.wait_past(at);
    let options = CheckpointOptions {
        parent: Some("../before".into()),
        ..world.dump()
    };
    told(created.container.checkpoint(options));
    reap(&created);
    assert!(world.images().join("parent").is_dir());
    let at = world.count();
    told(created.container.delete(false));
    let restored = world.restore(null());
    world.wait_past(at);
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn pipes_of_the_standard_streams_are_joined_again() {
    let mut world = require!(World::new());
    world
        .bundle
        .shell("while read line; do echo got $line; done");
    let (input, mut to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let [_, _, errors] = null();
    let created = world.run([input.into(), output.into(), errors]);
    to.write_all(b"one\n").unwrap();
    assert_eq!(line(&mut from), "got one");
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);

    let (input, mut to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let [_, _, errors] = null();
    let restored = world.restore([input.into(), output.into(), errors]);
    to.write_all(b"two\n").unwrap();
    assert_eq!(line(&mut from), "got two");
    // The end of its input is the end of it.
    drop(to);
    reap(&restored);
    assert_eq!(told(restored.container.status()), Status::Stopped);
    told(restored.container.delete(false));
    world.assert_nothing_left();
}

#[test]
fn bind_mounts_and_limits_are_those_of_the_bundle() {
    let mut world = require!(World::counting());
    let outside = TempDir::new();
    let file = outside.path().join("file");
    std::fs::write(&file, "from outside").unwrap();
    let bind = |source: &Path, destination: &str| json!({"destination": destination, "source": source, "type": "bind", "options": ["rbind", "ro"]});
    world
        .bundle
        .push("/mounts", bind(outside.path(), "/deep/dir"))
        .push("/mounts", bind(&file, "/etc/one-file"))
        .set("/linux/resources/pids", json!({"limit": 77}));
    let created = world.run(null());
    world.wait_past(3);
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);
    // As when the container moves: the mount points are not in the new copy of the image.
    std::fs::remove_dir_all(world.bundle.rootfs().join("deep")).unwrap();
    std::fs::remove_file(world.bundle.rootfs().join("etc/one-file")).unwrap();

    let at = world.count();
    let restored = world.restore(null());
    world.wait_past(at);
    let root = format!(
        "/proc/{}/root",
        restored.container.record().init_process_pid
    );
    for path in ["deep/dir/file", "etc/one-file"] {
        let path = Path::new(&root).join(path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "from outside");
        assert!(
            File::create(&path).is_err(),
            "{} can be written",
            path.display()
        );
    }
    let stats = restored.container.cgroup().unwrap().stats().unwrap();
    let shown = format!("{stats:?}");
    assert!(shown.contains("77"), "no limit of 77 processes in {shown}");
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn a_terminal_comes_back_with_the_processes() {
    let mut world = require!(World::new());
    world
        .bundle
        .shell("stty -echo; echo ready; while read line; do echo got $line; done")
        .set("/process/terminal", json!(true));
    world.bundle.write();
    let options = CreateOptions {
        bundle: world.bundle.path().to_owned(),
        console: Console::Master,
        ..CreateOptions::default()
    };
    let mut created = told(world.runtime().run(&world.id, options));
    let mut master = File::from(created.console.take().unwrap());
    assert_eq!(line(&mut master).trim(), "ready");
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);
    drop(master);

    let options = RestoreOptions {
        console: Console::Master,
        ..world.restore_options(null())
    };
    let mut restored = told(world.runtime().restore(&world.id, options));
    let mut master = File::from(restored.console.take().expect("no terminal"));
    master.write_all(b"two\n").unwrap();
    assert_eq!(line(&mut master).trim(), "got two");
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn hooks_run_again_when_namespaces_are_there_again() {
    let mut world = require!(World::counting());
    let told_by_hook = world.dir.path().join("hook");
    let script = format!("cat >>{}; echo >>{0}", told_by_hook.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    world.bundle.set("/hooks/createRuntime", hook);
    let created = world.run(null());
    world.wait_past(3);
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);
    let restored = world.restore(null());
    let text = std::fs::read_to_string(&told_by_hook).unwrap();
    let states: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(states.len(), 2, "{text}");
    assert_eq!(
        states[1]["pid"].as_i64(),
        Some(restored.container.record().init_process_pid.into())
    );
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn a_restore_that_fails_quotes_criu_and_leaves_nothing() {
    let world = require!(World::counting());
    let created = world.run(null());
    world.wait_past(3);
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);
    let image = std::fs::read_dir(world.images())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("/mm-"))
        .unwrap();
    std::fs::write(&image, "no image").unwrap();
    let error = world
        .runtime()
        .restore(&world.id, world.restore_options(null()))
        .unwrap_err();
    let text = tell(&error);
    assert!(text.contains("criu cannot restore"), "{text}");
    assert!(text.contains("restore.log"), "{text}");
    assert!(text.contains("Error"), "{text}");
    world.assert_nothing_left();
}

#[test]
fn a_container_that_does_not_run_cannot_be_checkpointed() {
    let world = require!(World::counting());
    world.bundle.write();
    let options = CreateOptions {
        bundle: world.bundle.path().to_owned(),
        stdio: Some(null()),
        ..CreateOptions::default()
    };
    let created = told(world.runtime().create(&world.id, options));
    let error = created.container.checkpoint(world.dump()).unwrap_err();
    assert!(tell(&error).contains("created"), "{}", tell(&error));
    assert!(!world.images().exists());
    stop(created.container);
    world.assert_nothing_left();
}
