//! Ways out of a container by the names of an image or a volume: links and races
//! in the way of mounts, masks, terminals and procfs. The others are in `escapes.rs`.
//! Each test says how a naive runtime fails it.

mod common;

use carrack_testkit::{Bundle, ConsoleSocket, TempDir, require, wait_until};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs of a container against a racing volume.
const RUNS: usize = 40;

/// Exchanges two names as fast as it can until dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn new(one: &Path, other: &Path) -> Swapper {
        let stop = Arc::new(AtomicBool::new(false));
        let (one, other, seen) = (one.to_owned(), other.to_owned(), stop.clone());
        let swap = move || {
            while !seen.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
        };
        let thread = Some(std::thread::spawn(swap));
        Swapper { stop, thread }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A volume in which `d` is a directory and a link to `outside` in turn.
fn racing_volume(outside: &Path) -> (TempDir, Swapper) {
    let volume = TempDir::new();
    let (directory, link) = (volume.path().join("d"), volume.path().join("l"));
    std::fs::create_dir(&directory).unwrap();
    symlink(format!("{}{}", "../".repeat(12), outside.display()), &link).unwrap();
    let swapper = Swapper::new(&directory, &link);
    (volume, swapper)
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// CVE-2021-30465. A naive runtime resolves a mount's destination, then mounts by path: another
/// container that shares the volume swaps a directory for a link in between, and the mount lands
/// on the host's tree.
#[test]
fn a_mount_stays_inside_when_a_volume_swaps_its_destination() {
    let runtime = require!(common::runtime());
    let outside = TempDir::new();
    std::fs::create_dir(outside.path().join("target")).unwrap();
    let (volume, _swapper) = racing_volume(outside.path());
    let mut bundle = require!(Bundle::busybox());
    let mark = format!("{}-mark", carrack_testkit::unique());
    bundle.push("/mounts", bind(volume.path(), "/vol", &["bind"]));
    bundle.push(
        "/mounts",
        json!({"destination": "/vol/d/target", "type": "tmpfs", "source": mark, "options": ["nosuid", "nodev", "mode=755"]}),
    );
    bundle.args(["cat", "/proc/self/mountinfo"]);
    let mut passed = 0;
    for _ in 0..RUNS {
        let container = runtime.container(&bundle);
        let output = container.run();
        if output.code() == 0 {
            // A mount that went outside of the root is not in the container's table.
            passed += 1;
            assert!(output.stdout.contains(&mark), "mounted elsewhere: {output}");
        }
        let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!host.contains(&mark), "mounted on the host");
        container.assert_nothing_left();
    }
    assert!(passed > 0, "no run won the race, so nothing was shown");
}

/// The same class with `tmpcopyup`. A naive runtime mounts the tmpfs, looks its destination up
/// again and copies, as root of the host, into what is there now: a directory of the volume.
#[test]
fn a_copy_into_a_tmpfs_stays_in_the_tmpfs_when_a_volume_swaps_its_destination() {
    let runtime = require!(common::runtime());
    let volume = TempDir::new();
    for name in ["d", "e"] {
        std::fs::create_dir(volume.path().join(name)).unwrap();
    }
    for number in 0..50 {
        std::fs::write(volume.path().join(format!("d/file{number}")), "").unwrap();
    }
    let _swapper = Swapper::new(&volume.path().join("d"), &volume.path().join("e"));
    let mut bundle = require!(Bundle::busybox());
    bundle.push("/mounts", bind(volume.path(), "/vol", &["bind"]));
    bundle.push(
        "/mounts",
        json!({"destination": "/vol/d", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=700"]}),
    );
    bundle.args(["true"]);
    for _ in 0..RUNS {
        let container = runtime.container(&bundle);
        container.run();
        container.assert_nothing_left();
        // One of the two holds the files and the other nothing, whatever their names are now.
        let count = |name: &str| std::fs::read_dir(volume.path().join(name)).unwrap().count();
        let all: usize = (0..20)
            .map(|_| count("d").min(count("e")))
            .min()
            .unwrap_or(0);
        assert_eq!(all, 0, "copied into the volume");
    }
}

/// CVE-2024-45310. A naive runtime makes missing destinations with mkdir and open by path: with
/// the same race they appear on the host.
#[test]
fn no_file_or_directory_is_made_on_the_host() {
    let runtime = require!(common::runtime());
    let outside = TempDir::new();
    let sources = TempDir::new();
    std::fs::write(sources.path().join("file"), "").unwrap();
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["true"]);
    // Without a race: links of the image that lead out, dangling at first.
    let made = outside.path().join("made");
    symlink(&made, bundle.rootfs().join("out")).unwrap();
    bundle.push(
        "/mounts",
        bind(&sources.path().join("file"), "/out", &["bind"]),
    );
    bundle.push(
        "/mounts",
        bind(sources.path(), "/tmp/../out2/deep/er", &["bind"]),
    );
    let up = format!("{}{}", "../".repeat(12), outside.path().display());
    symlink(&up, bundle.rootfs().join("out2")).unwrap();
    runtime.container(&bundle).run().ok();
    assert!(is_empty(outside.path()), "made on the host");
    // With one.
    let (volume, _swapper) = racing_volume(outside.path());
    bundle.push("/mounts", bind(volume.path(), "/vol", &["bind"]));
    bundle.push(
        "/mounts",
        bind(&sources.path().join("file"), "/vol/d/a/b/file", &["bind"]),
    );
    bundle.push(
        "/mounts",
        bind(sources.path(), "/vol/d/c/directory", &["bind"]),
    );
    for _ in 0..RUNS {
        let container = runtime.container(&bundle);
        container.run();
        assert!(is_empty(outside.path()), "made on the host");
        container.assert_nothing_left();
    }
}

/// CVE-2023-27561 (and CVE-2019-19921 before it). A naive runtime follows the image's link at
/// `/proc` and mounts procfs over something else; what it then writes to `/proc/self/attr` and
/// hides below `/proc` are files of a volume.
#[test]
fn procfs_and_sysfs_are_not_mounted_through_a_link() {
    let runtime = require!(common::runtime());
    for name in ["proc", "sys"] {
        let mut bundle = require!(Bundle::busybox());
        let rootfs = bundle.rootfs();
        std::fs::create_dir_all(rootfs.join("fake")).unwrap();
        std::fs::remove_dir(rootfs.join(name)).unwrap();
        symlink("fake", rootfs.join(name)).unwrap();
        bundle.args(["true"]);
        let container = runtime.container(&bundle);
        container.run().fails_with("symbolic link");
        container.assert_nothing_left();
        assert!(is_empty(&rootfs.join("fake")));
    }
    // Nor is anything bound over a file of procfs, directly or through a link of the image.
    let source = TempDir::new();
    for destination in ["/proc/self/attr", "/proc/sys/../self", "/alias/attr"] {
        let mut bundle = require!(Bundle::busybox());
        symlink("proc/self", bundle.rootfs().join("alias")).unwrap();
        bundle.push("/mounts", bind(source.path(), destination, &["bind"]));
        bundle.args(["true"]);
        let container = runtime.container(&bundle);
        let output = container.run();
        assert_ne!(output.code(), 0, "{destination}: {output}");
        container.assert_nothing_left();
    }
}

/// What an image has in its `/dev`, and how it gets there.
type Trap = (&'static str, fn(&Path));

/// A directory for a bind at `/dev`, as an image with its own devices would bring it.
fn own_dev(bundle: &mut Bundle) -> TempDir {
    let dev = TempDir::new();
    std::fs::create_dir(dev.path().join("pts")).unwrap();
    let keep = |mount: &Value| {
        let destination = mount["destination"].as_str().unwrap_or_default();
        !matches!(destination, "/dev" | "/dev/shm" | "/dev/mqueue")
    };
    let mut mounts = bundle.config["mounts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    mounts.retain(keep);
    mounts.insert(0, bind(dev.path(), "/dev", &["bind"]));
    bundle.set("/mounts", json!(mounts));
    dev
}

/// CVE-2025-31133. A naive runtime masks files with whatever the container's `/dev/null` is: a
/// link there to `/proc/sys/kernel/core_pattern` binds that over the mask, writable; and no
/// `/dev/null` at all leaves the path unmasked.
#[test]
fn a_mask_is_the_null_device_or_nothing_starts() {
    let runtime = require!(common::runtime());
    let make: [Trap; 4] = [
        ("a link into procfs", |null| {
            symlink("/proc/sys/kernel/core_pattern", null).unwrap()
        }),
        ("a link to a file", |null| {
            symlink("/etc/passwd", null).unwrap()
        }),
        ("a file", |null| std::fs::write(null, "").unwrap()),
        ("nothing", |_| {}),
    ];
    for (what, make) in make {
        let mut bundle = require!(Bundle::busybox());
        let dev = own_dev(&mut bundle);
        make(&dev.path().join("null"));
        bundle.set(
            "/linux/maskedPaths",
            json!(["/proc/keys", "/proc/timer_list"]),
        );
        bundle.shell("echo STARTED");
        let container = runtime.container(&bundle);
        let output = container.run();
        assert_ne!(output.code(), 0, "{what}: {output}");
        assert!(!output.stdout.contains("STARTED"), "{what}: {output}");
        assert!(output.stderr.contains("/proc/keys"), "{what}: {output}");
        container.assert_nothing_left();
    }
    // The image's own device, with the same links: it is not taken for the one that is asked for.
    let mut bundle = require!(Bundle::busybox());
    bundle.set(
        "/mounts",
        json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
    );
    symlink(
        "/proc/sys/kernel/core_pattern",
        bundle.rootfs().join("dev/null"),
    )
    .unwrap();
    bundle.shell("echo STARTED");
    let container = runtime.container(&bundle);
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    container.assert_nothing_left();
}

/// CVE-2025-52565. A naive runtime mounts the terminal from `/dev/pts/N` to `/dev/console` by
/// path, before anything is masked: links there show a file of procfs as the console, or have
/// the terminal cover one.
#[test]
fn the_console_is_the_terminal_and_nothing_else() {
    let runtime = require!(common::runtime());
    let make: [Trap; 3] = [
        ("a link into procfs", |dev| {
            symlink("/proc/sysrq-trigger", dev.join("console")).unwrap()
        }),
        ("a dangling link", |dev| {
            symlink("/etc/not-there", dev.join("console")).unwrap()
        }),
        ("a false multiplexer", |dev| {
            std::fs::write(dev.join("pts/ptmx"), "").unwrap();
        }),
    ];
    for (what, make) in make {
        let mut bundle = require!(Bundle::busybox());
        let dev = own_dev(&mut bundle);
        make(dev.path());
        if what == "a false multiplexer" {
            let mut mounts = bundle.config["mounts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            mounts.retain(|mount| mount["destination"] != "/dev/pts");
            bundle.set("/mounts", json!(mounts));
        }
        bundle.set("/process/terminal", json!(true));
        bundle.set("/linux/maskedPaths", json!([]));
        bundle.args(["true"]);
        let console = ConsoleSocket::new();
        let socket = console.path().display().to_string();
        let container = runtime.container(&bundle);
        let output = container.create_with(&["--console-socket", &socket]);
        assert_ne!(output.code(), 0, "{what}: {output}");
        assert!(!bundle.rootfs().join("etc/not-there").exists(), "{what}");
        container.assert_nothing_left();
    }
    // What is right is mounted: the terminal of the container's own devpts.
    let mut bundle = require!(Bundle::busybox());
    bundle.set("/process/terminal", json!(true));
    bundle.shell("stat -c %t:%T /dev/console /dev/pts/0; stat -f -c %T /dev/console");
    let console = ConsoleSocket::new();
    let socket = console.path().display().to_string();
    let container = runtime.container(&bundle);
    container.create_with(&["--console-socket", &socket]).ok();
    let (mut terminal, _) = console.accept();
    container.start().ok();
    terminal.expect("88:0\r\n88:0\r\ndevpts\r\n");
    container.delete(true).ok();
}

/// A tree that looks like procfs; writes to it go to files, and over a link to `victim`.
fn false_proc(victim: &str) -> TempDir {
    let fake = TempDir::new();
    let at = |path: &str| fake.path().join(path);
    for directory in [
        "self",
        "thread-self/attr",
        "self/attr",
        "sys/net/ipv4",
        "sys/kernel",
        "1",
    ] {
        std::fs::create_dir_all(at(directory)).unwrap();
    }
    for file in [
        "self/oom_score_adj",
        "self/attr/exec",
        "thread-self/attr/exec",
        "1/oom_score_adj",
    ] {
        std::fs::write(at(file), "kept").unwrap();
    }
    symlink(victim, at("sys/net/ipv4/ip_default_ttl")).unwrap();
    fake
}

/// CVE-2025-52881 with a sysctl. A naive runtime writes below the container's `/proc`, where a
/// volume was mounted: the value goes to a file of the attacker's choice, and is not set.
#[test]
fn a_sysctl_is_written_to_the_kernel_and_not_to_what_is_at_proc() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    std::fs::write(bundle.rootfs().join("victim"), "kept").unwrap();
    std::fs::create_dir(bundle.rootfs().join("realproc")).unwrap();
    let fake = false_proc("/victim");
    bundle.set(
        "/mounts",
        json!([
            {"destination": "/realproc", "type": "proc", "source": "proc"},
            bind(fake.path(), "/proc", &["bind"]),
        ]),
    );
    bundle.set("/linux/maskedPaths", json!([]));
    bundle.set("/linux/readonlyPaths", json!([]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "77"}));
    bundle.set("/process/oomScoreAdj", json!(500));
    bundle.shell("cat /realproc/sys/net/ipv4/ip_default_ttl /realproc/self/oom_score_adj /victim");
    let container = runtime.container(&bundle);
    container.run().ok().stdout_is("77\n500\nkept");
    let text = std::fs::read_to_string(fake.path().join("self/oom_score_adj")).unwrap();
    assert_eq!(text, "kept");
    container.assert_nothing_left();
}

/// CVE-2025-52881 with a label, or what is written next to it. A naive runtime joins the container
/// for an exec and then opens `/proc/self/attr/exec` by path: the container has mounted over it.
#[test]
fn an_exec_writes_to_the_kernel_and_not_to_what_the_container_mounted() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    let fake = false_proc("/victim");
    bundle.push("/mounts", bind(fake.path(), "/tmp", &["bind"]));
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(
            &format!("/process/capabilities/{set}"),
            json!("CAP_SYS_ADMIN"),
        );
    }
    bundle.shell("mount --bind /tmp /proc && touch /tmp/ready; exec sleep 100");
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    wait_until("false procfs", || fake.path().join("ready").exists());
    let dir = TempDir::new();
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["sleep", "100"]);
    process["oomScoreAdj"] = json!(500);
    let file = dir.path().join("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let pid_file = dir.path().join("pid");
    let (file, pid_path) = (file.display().to_string(), pid_file.display().to_string());
    let flags = ["--detach", "--process", &file, "--pid-file", &pid_path];
    container.call("exec", &flags, &[]).ok();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let real = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(real, "500\n");
    for name in ["self/oom_score_adj", "1/oom_score_adj", "self/attr/exec"] {
        let text = std::fs::read_to_string(fake.path().join(name)).unwrap();
        assert_eq!(text, "kept", "{name}");
    }
    container.delete(true).ok();
    container.assert_nothing_left();
}
