//! Each choice of a checkpoint and of a restore, by what it changes.

use crate::world::{World, line, null, reap, stop, tell, told};
use carrack_container::{CgroupsMode, CheckpointOptions, Created, Error};
use carrack_spec::ContainerId;
use carrack_spec::runtime::Status;
use carrack_testkit::bundle::copy_program;
use carrack_testkit::{Skip, TempDir, Terminal, leaks, require, skip, wait_for};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Starts it with a pipe as standard output and waits for the line `ready`.
fn run_until_ready(world: &World) -> Created {
    let (mut from, output) = std::io::pipe().unwrap();
    let [input, _, errors] = null();
    let created = world.run([input, output.into(), errors]);
    assert_eq!(line(&mut from), "ready");
    created
}

/// A checkpoint without the choice fails and says the words; the container runs on.
fn refused(created: &Created, options: CheckpointOptions, words: &str) {
    let error = tell(&created.container.checkpoint(options).unwrap_err());
    assert!(error.contains("criu cannot checkpoint"), "{error}");
    assert!(error.contains(words), "no {words:?} in: {error}");
    assert_eq!(told(created.container.status()), Status::Running);
}

/// Checkpoints and deletes.
fn store(created: Created, options: CheckpointOptions) {
    told(created.container.checkpoint(options));
    reap(&created);
    stop(created.container);
}

#[test]
fn a_user_namespace_comes_back_with_its_ids() {
    let mut world = require!(World::counting());
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    world.bundle.chown(200_000, 200_000);
    let created = world.run(null());
    let at = world.wait_past(3);
    store(created, world.dump());
    let restored = world.restore(null());
    world.wait_past(at);
    let init = restored.container.record().init_process_pid;
    let map = std::fs::read_to_string(format!("/proc/{init}/uid_map")).unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "200000", "65536"]);
    stop(restored.container);
    world.assert_nothing_left();
}

/// Where the container has this test program, and the variable that tells it to play its part.
const PROGRAM: &str = "bin/test-program";
const INSIDE: &str = "CARRACK_TEST_INSIDE";

/// A container whose init is this test program, in the test `name`.
fn playing(name: &str) -> Result<World, Skip> {
    let mut world = World::new()?;
    let program = world.bundle.rootfs().join(PROGRAM);
    copy_program(&std::env::current_exe().unwrap(), &program).unwrap();
    let program = format!("/{PROGRAM}");
    let name = format!("options::{name}");
    world
        .bundle
        .args([&program, "--exact", &name, "--nocapture"])
        .push("/process/env", json!(format!("{INSIDE}=1")));
    Ok(world)
}

#[test]
fn file_locks_are_held_again() {
    if std::env::var_os(INSIDE).is_some() {
        let file = File::create("/lock").unwrap();
        file.lock().unwrap();
        std::fs::write("/ready", "").unwrap();
        std::thread::sleep(carrack_testkit::wait::PATIENCE * 10);
        drop(file);
        return;
    }
    let world = require!(playing("file_locks_are_held_again"));
    let created = world.run(null());
    let root = world.bundle.rootfs();
    wait_for("a lock", || root.join("ready").exists().then_some(()));
    refused(&created, world.dump(), "file-locks");
    let mut options = world.dump();
    options.criu.file_locks = true;
    store(created, options);
    let lock = File::open(root.join("lock")).unwrap();
    lock.try_lock().expect("the lock is held by nobody");
    lock.unlock().unwrap();
    let mut options = world.restore_options(null());
    options.criu.file_locks = true;
    let restored = told(world.runtime().restore(&world.id, options));
    assert!(lock.try_lock().is_err(), "nobody holds the lock");
    stop(restored.container);
    world.assert_nothing_left();
}

/// A network namespace with a loopback device, held by a process.
struct Network(Child);

impl Network {
    fn new() -> Network {
        let child = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; echo; exec sleep 1000",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        line(child.stdout.as_mut().unwrap());
        Network(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Whether criu's lock is still there: before 4.1 it cannot take it back when `iptables`
    /// stands over nftables.
    fn is_locked(&self) -> bool {
        let net = format!("--net={}", self.path());
        let shown = Command::new("nsenter")
            .args([&net, "iptables", "-S"])
            .output();
        String::from_utf8_lossy(&shown.unwrap().stdout).contains("-j CRIU")
    }

    /// Connects to [`PORT`], sends the words and closes.
    fn says(&self, words: &str) {
        let script = format!("printf {words} >/dev/tcp/127.0.0.1/{PORT}");
        let status = Command::new("nsenter")
            .args([&format!("--net={}", self.path()), "bash", "-c", &script])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn established_connections_go_on() {
    if std::env::var_os(INSIDE).is_some() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut from, _) = listener.accept().unwrap();
        for count in 0..u8::MAX {
            to.write_all(&[count]).unwrap();
            let mut byte = [0];
            from.read_exact(&mut byte).unwrap();
            std::fs::write("/count.new", format!("{}\n", byte[0])).unwrap();
            std::fs::rename("/count.new", "/count").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        return;
    }
    let mut world = require!(playing("established_connections_go_on"));
    for program in ["iptables-restore", "ip"] {
        require!(skip::program(program));
    }
    let network = Network::new();
    world.bundle.without_namespace("network").push(
        "/linux/namespaces",
        json!({"type": "network", "path": network.path()}),
    );
    let created = world.run(null());
    world.wait_past(2);
    let error = tell(&created.container.checkpoint(world.dump()).unwrap_err());
    if error.contains("Operation not supported") {
        stop(created.container);
        carrack_testkit::skip!("criu does not know the sockets of this kernel");
    }
    refused(&created, world.dump(), "tcp-established");
    let at = world.count();
    world.wait_past(at);
    let mut options = world.dump();
    options.criu.tcp_established = true;
    store(created, options);
    let at = world.count();
    let mut options = world.restore_options(null());
    options.criu.tcp_established = true;
    let restored = told(world.runtime().restore(&world.id, options));
    if network.is_locked() {
        stop(restored.container);
        carrack_testkit::skip!("criu before 4.1 leaves the network locked");
    }
    world.wait_past(at + 1);
    stop(restored.container);
    world.assert_nothing_left();
}

/// The port of the only listener in a network namespace of its own.
const PORT: u16 = 7000;

#[test]
fn connections_that_nobody_accepted_are_left_out_when_asked() {
    if std::env::var_os(INSIDE).is_some() {
        let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
        std::fs::write("/ready", "").unwrap();
        wait_for("leave to accept", || {
            Path::new("/go").exists().then_some(())
        });
        let (mut from, _) = listener.accept().unwrap();
        let mut said = String::new();
        from.read_to_string(&mut said).unwrap();
        std::fs::write("/said.new", said).unwrap();
        std::fs::rename("/said.new", "/said").unwrap();
        std::thread::sleep(carrack_testkit::wait::PATIENCE * 10);
        return;
    }
    let name = "connections_that_nobody_accepted_are_left_out_when_asked";
    let mut world = require!(playing(name));
    for program in ["iptables-restore", "ip", "bash", "nsenter"] {
        require!(skip::program(program));
    }
    let network = Network::new();
    world.bundle.without_namespace("network").push(
        "/linux/namespaces",
        json!({"type": "network", "path": network.path()}),
    );
    let created = world.run(null());
    let root = world.bundle.rootfs();
    wait_for("a listener", || root.join("ready").exists().then_some(()));
    network.says("before");
    let error = tell(&created.container.checkpoint(world.dump()).unwrap_err());
    assert!(error.contains("In-flight connection"), "{error}");
    let options = CheckpointOptions {
        tcp_skip_in_flight: true,
        ..world.dump()
    };
    match created.container.checkpoint(options) {
        Err(error) if tell(&error).contains("Operation not supported") => {
            stop(created.container);
            carrack_testkit::skip!("criu does not know the sockets of this kernel");
        }
        dumped => told(dumped),
    }
    reap(&created);
    stop(created.container);
    let restored = world.restore(null());
    if network.is_locked() {
        stop(restored.container);
        carrack_testkit::skip!("criu before 4.1 leaves the network locked");
    }
    network.says("after");
    std::fs::write(root.join("go"), "").unwrap();
    wait_for("what the accepted connection said", || {
        (std::fs::read_to_string(root.join("said")).ok()? == "after").then_some(())
    });
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn a_terminal_of_the_outside_needs_leave() {
    let mut world = require!(World::new());
    world
        .bundle
        .shell("stty -echo; echo ready; while read line; do echo got $line; done");
    let terminal = || {
        let (terminal, slave) = Terminal::open();
        let streams = [(); 3].map(|()| slave.try_clone().unwrap());
        (terminal, streams)
    };
    let (mut first, streams) = terminal();
    let created = world.run(streams);
    first.expect("ready");
    refused(&created, world.dump(), "/dev/pts");
    let mut options = world.dump();
    options.criu.shell_job = true;
    // criu finds no mount for it when the container has a mount namespace of its own: 3.17 when
    // it stores, 4.1 when it restores.
    if let Err(error) = created.container.checkpoint(options) {
        assert!(tell(&error).contains("mount"), "{}", tell(&error));
        stop(created.container);
        return world.assert_nothing_left();
    }
    reap(&created);
    stop(created.container);

    let (mut second, streams) = terminal();
    let mut options = world.restore_options(streams);
    options.criu.shell_job = true;
    match world.runtime().restore(&world.id, options) {
        Ok(restored) => {
            second.type_text("two\n");
            second.expect("got two");
            stop(restored.container);
        }
        Err(error) => assert!(tell(&error).contains("mount"), "{}", tell(&error)),
    }
    world.assert_nothing_left();
}

#[test]
fn sockets_with_a_peer_outside_need_leave() {
    let mut world = require!(World::counting());
    // Sockets are found in the network namespace that they are of.
    world.bundle.without_namespace("network");
    let outside = world.dir.path().join("socket");
    let receiver = UnixDatagram::bind(&outside).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&outside).unwrap();
    let [_, output, errors] = null();
    let created = world.run([OwnedFd::from(sender), output, errors]);
    world.wait_past(3);
    refused(&created, world.dump(), "ext-unix-sk");
    let mut options = world.dump();
    options.criu.external_unix_sockets = true;
    store(created, options);
    drop(receiver);
    world.assert_nothing_left();
}

#[test]
fn names_of_removed_files_are_made_again() {
    let mut world = require!(World::new());
    world.bundle.shell(
        "echo text >/first; ln /first /second; exec 9</first; rm /first; echo ready; \
         while ! [ -e /go ]; do sleep 0.1; done; cat <&9 >/read; sleep 100",
    );
    let created = run_until_ready(&world);
    refused(&created, world.dump(), "link-remap");
    let options = CheckpointOptions {
        link_remap: true,
        ..world.dump()
    };
    store(created, options);
    let restored = world.restore(null());
    let root = world.bundle.rootfs();
    std::fs::write(root.join("go"), "").unwrap();
    wait_for("the text of the removed file", || {
        (std::fs::read_to_string(root.join("read")).ok()? == "text\n").then_some(())
    });
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn every_mode_of_cgroups_brings_the_limits_back() {
    for mode in ["ignore", "soft", "full"] {
        let mut world = require!(World::counting());
        world
            .bundle
            .set("/linux/resources/pids", json!({"limit": 77}));
        let created = world.run(null());
        let at = world.wait_past(3);
        let mode = CgroupsMode::named(mode).unwrap();
        let mut options = world.dump();
        options.criu.cgroups = mode;
        store(created, options);
        let mut options = world.restore_options(null());
        options.criu.cgroups = mode;
        let restored = told(world.runtime().restore(&world.id, options));
        world.wait_past(at);
        let stats = restored.container.cgroup().unwrap().stats().unwrap();
        let shown = format!("{stats:?}");
        assert!(shown.contains("77"), "{mode:?}: no limit of 77 in {shown}");
        stop(restored.container);
        world.assert_nothing_left();
    }
}

#[test]
fn what_would_make_the_cgroup_twice_is_refused() {
    let world = require!(World::counting());
    let created = world.run(null());
    world.wait_past(3);
    store(created, world.dump());
    let mut options = world.restore_options(null());
    options.criu.cgroups = CgroupsMode::Strict;
    let error = world.runtime().restore(&world.id, options).unwrap_err();
    assert!(
        tell(&error).contains("manage-cgroups-mode"),
        "{}",
        tell(&error)
    );
    world.assert_nothing_left();
}

#[test]
fn a_second_store_of_the_same_memory_frees_the_first() {
    let world = require!(World::counting());
    let created = world.run(null());
    let at = world.wait_past(3);
    let mut options = CheckpointOptions {
        pre_dump: true,
        ..world.dump()
    };
    let before = world.dir.path().join("before");
    options.criu.images = before.clone();
    match created.container.checkpoint(options) {
        Err(Error::System { what, .. }) if what.contains("not supported") => {
            stop(created.container);
            carrack_testkit::skip!("{what}");
        }
        other => told(other),
    }
    let blocks = || -> u64 {
        let files = std::fs::read_dir(&before).unwrap().map(Result::unwrap);
        let pages = files.filter(|file| file.file_name().to_string_lossy().starts_with("pages-"));
        pages.map(|file| file.metadata().unwrap().blocks()).sum()
    };
    let stored = blocks();
    world.wait_past(at);
    let mut options = CheckpointOptions {
        parent: Some("../before".into()),
        ..world.dump()
    };
    options.criu.auto_dedup = true;
    store(created, options);
    assert!(
        blocks() < stored,
        "{stored} blocks before, {} after",
        blocks()
    );
    let at = world.count();
    let mut options = world.restore_options(null());
    options.criu.auto_dedup = true;
    let restored = told(world.runtime().restore(&world.id, options));
    world.wait_past(at);
    stop(restored.container);
    world.assert_nothing_left();
}

/// A criu that serves, ended with the test.
struct Server(Child);

impl Server {
    fn start(args: &[&str], images: &std::path::Path) -> Server {
        std::fs::create_dir_all(images).unwrap();
        let child = Command::new("criu")
            .args(args)
            .arg("--images-dir")
            .arg(images)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has, for a moment at least.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn listens(port: u16) -> bool {
    let wanted = format!(":{port:04X} 00000000:0000 0A");
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|text| text.contains(&wanted))
}

#[test]
fn a_page_server_takes_the_memory() {
    let world = require!(World::counting());
    let created = world.run(null());
    let at = world.wait_past(3);
    let port = free_port();
    let number = port.to_string();
    let args = ["page-server", "--address", "127.0.0.1", "--port", &number];
    let _server = Server::start(&args, &world.images());
    wait_for("a page server", || listens(port).then_some(()));
    let mut options = world.dump();
    options.criu.images = world.dir.path().join("rest");
    options.page_server = Some(("127.0.0.1".into(), port));
    store(created, options);
    let has_pages = |directory: &std::path::Path| {
        let mut files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        files.any(|file| file.file_name().to_string_lossy().starts_with("pages-"))
    };
    assert!(!has_pages(&world.dir.path().join("rest")));
    assert!(has_pages(&world.images()));
    for file in std::fs::read_dir(world.dir.path().join("rest")).unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), world.images().join(file.file_name())).unwrap();
    }
    let restored = world.restore(null());
    world.wait_past(at);
    stop(restored.container);
    world.assert_nothing_left();
}

#[test]
fn memory_is_brought_over_when_it_is_touched() {
    let world = require!(World::counting());
    let created = world.run(null());
    let at = world.wait_past(3);
    let port = free_port();
    let (mut ready, status) = std::io::pipe().unwrap();
    let mut options = world.dump();
    options.criu.lazy_pages = true;
    options.page_server = Some(("127.0.0.1".into(), port));
    options.status = Some(status.into());
    let (runtime, id) = (world.runtime(), world.id.clone());
    let dump = std::thread::spawn(move || runtime.load(&id)?.checkpoint(options));
    if ready.read(&mut [1]).unwrap() == 0 {
        let error = dump.join().unwrap().unwrap_err();
        assert!(tell(&error).contains("not supported"), "{}", tell(&error));
        stop(created.container);
        carrack_testkit::skip!("{}", tell(&error));
    }
    let number = port.to_string();
    let args = [
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        &number,
    ];
    let _server = Server::start(&args, &world.images());
    let socket = world.images().join("lazy-pages.socket");
    wait_for("the socket of lazy pages", || socket.exists().then_some(()));
    let mut options = world.restore_options(null());
    options.criu.lazy_pages = true;
    let runtime = world.runtime();
    let other: ContainerId = carrack_testkit::unique().parse().unwrap();
    let id = other.clone();
    let restore = std::thread::spawn(move || runtime.restore(&id, options));
    if let Err(error) = dump.join().unwrap() {
        // criu 4.1 serves no page on kernels that it does not know; its restore then hangs.
        while !restore.is_finished() {
            for pid in leaks::processes(other.as_str()) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(restore.join().unwrap().is_err());
        stop(created.container);
        let left = leaks::of(other.as_str(), world.bundle.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        let text = tell(&error);
        let reason = text.lines().find(|line| line.contains("page-pipe"));
        carrack_testkit::skip!("criu serves no pages here: {}", reason.unwrap_or(&text));
    }
    let restored = told(restore.join().unwrap());
    world.wait_past(at);
    stop(restored.container);
    reap(&created);
    stop(created.container);
    world.assert_nothing_left();
}

#[test]
fn systemd_makes_the_scope_of_what_is_restored() {
    let mut world = require!(with_systemd());
    let id = world.id.to_string();
    world.bundle.set(
        "/linux/cgroupsPath",
        json!(format!("system.slice:test:{id}")),
    );
    let created = world.run(null());
    let at = world.wait_past(3);
    store(created, world.dump());
    let restored = world.restore(null());
    world.wait_past(at);
    let init = restored.container.record().init_process_pid;
    let cgroups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let scope = format!("/system.slice/test-{id}.scope");
    assert!(cgroups.contains(&scope), "no {scope} in {cgroups}");
    stop(restored.container);
    world.assert_nothing_left();
}

fn with_systemd() -> Result<World, Skip> {
    skip::systemd()?;
    let mut world = World::counting()?;
    world.systemd = true;
    Ok(world)
}

#[test]
fn another_directory_takes_the_log() {
    let world = require!(World::counting());
    let work = TempDir::new();
    let created = world.run(null());
    world.wait_past(3);
    let mut options = world.dump();
    options.criu.work = Some(work.path().to_owned());
    store(created, options);
    assert!(work.path().join("dump.log").exists());
    assert!(!world.images().join("dump.log").exists());
}
