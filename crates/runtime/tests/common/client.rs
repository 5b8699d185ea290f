//! A client of the runtime with a private world: its directories, its daemon, its cgroup.
//!
//! Every process of a client names the world's directory on its command line, so
//! that what is left of it can be found, ended and counted against the test.
#![allow(dead_code)] // each file uses its part

use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{Bundle, Skip, TempDir, Terminal, leaks, skip, unique};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The image's name.
pub const IMAGE: &str = "localhost/busybox:test";

/// Where a client lives during a test.
pub struct World {
    name: String,
    dir: TempDir,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new() -> World {
        World {
            name: unique(),
            dir: TempDir::new(),
            command: Vec::new(),
            environment: Vec::new(),
            daemon: None,
        }
    }

    /// A name that nothing else has: for cgroups and containers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path in the world's directory, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The client and its flags that come before the verb.
    pub fn client(&mut self, command: &[&str]) {
        self.command = command.iter().map(|&part| part.to_owned()).collect();
    }

    /// A variable for every command.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A command of the client.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut words = self.command.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command.args(words).args(args).stdin(Stdio::null());
        // Not of the machine's user: its configuration and its caches.
        command.env("HOME", self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the client to its end.
    pub fn call(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args))
    }

    /// Runs a command on a new terminal and talks to its shell.
    pub fn talk(&self, args: &[&str]) -> i32 {
        let (mut terminal, slave) = Terminal::open();
        terminal.resize(33, 101);
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut command = self.command(args);
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let mut child = command.spawn().unwrap();
        terminal.expect("# ");
        terminal.type_text("tty; echo said $((6 * 7))\r");
        terminal.expect("/dev/pts/0");
        terminal.expect("said 42");
        // Clients tell the size when the process runs already.
        std::thread::sleep(Duration::from_millis(300));
        terminal.type_text("stty size; exit 4\r");
        terminal.expect("33 101");
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Starts the daemon and waits until a command of the client succeeds.
    pub fn serve(&mut self, daemon: &mut Command, ready: &[&str]) -> Result<(), Skip> {
        let log = std::fs::File::create(self.path("daemon.log")).unwrap();
        let errors = log.try_clone().unwrap();
        daemon.stdin(Stdio::null()).stdout(log).stderr(errors);
        daemon.env("HOME", self.dir.path());
        let mut child = daemon.spawn().unwrap();
        for _ in 0..300 {
            if self.call(ready).code() == 0 {
                self.daemon = Some(child);
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                let text = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
                let last = text.lines().last().unwrap_or_default();
                return Err(Skip::new(format!("the daemon ended with {status}: {last}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(Skip::new("the daemon did not answer within 30 seconds"))
    }

    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..150 {
            if !matches!(daemon.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
    }

    /// Processes that name the world on their command line, and live ones in its cgroup.
    fn processes(&self) -> Vec<i32> {
        let mark = self.dir.path().display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let mut found: Vec<i32> = entries
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&mark)
            })
            .collect();
        found.extend(leaks::processes(&self.name));
        found
    }

    /// The daemon is stopped; fails when a process, a mount or a container's cgroup is left.
    pub fn assert_nothing_left(mut self) {
        self.stop();
        let mut left = Vec::new();
        for _ in 0..100 {
            left = self.processes();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(left.is_empty(), "processes are left: {left:?}");
        let mounts = carrack_testkit::temp::mount_points();
        let mut mounts: Vec<&String> = mounts
            .iter()
            .filter(|point| Path::new(point).starts_with(self.dir.path()))
            .collect();
        // Where podman and docker keep the storage is a mount of their own while they use it.
        mounts.retain(|point| !point.ends_with("/storage") && !point.ends_with("/vfs"));
        assert!(mounts.is_empty(), "mounts are left: {mounts:?}");
        for group in leaks::cgroups(&self.name) {
            // The parent is the client's to remove, and no client does.
            let below = std::fs::read_dir(&group).unwrap().flatten();
            let below: Vec<PathBuf> = below
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .filter(|path| !path.ends_with("conmon"))
                .collect();
            assert!(below.is_empty(), "cgroups are left: {below:?}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        // After a test that failed: what is killed may have others clean up after it.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            // One may be paused, and would die only once it goes on.
            for group in leaks::cgroups(&self.name) {
                thaw(&group);
            }
            for pid in left.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for group in leaks::cgroups(&self.name) {
            leaks::remove_cgroup(&group);
        }
        // Podman makes its default parent whatever parent it is told; only an empty one goes.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            leaks::remove_cgroup(&hierarchy.path().join("libpod_parent"));
        }
    }
}

fn thaw(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        match entry.file_name().to_str() {
            Some("freezer.state") => drop(std::fs::write(entry.path(), "THAWED")),
            Some("cgroup.freeze") => drop(std::fs::write(entry.path(), "0")),
            _ if entry.file_type().is_ok_and(|kind| kind.is_dir()) => thaw(&entry.path()),
            _ => {}
        }
    }
}

/// A docker archive with busybox, for clients of all kinds; made here, from no registry.
pub fn archive(dir: &Path) -> Result<PathBuf, Skip> {
    let bundle = Bundle::busybox()?;
    let (tar, sha256sum) = (skip::program("tar")?, skip::program("sha256sum")?);
    let parts = TempDir::new();
    let run = |command: &mut Command| finish(command).ok().stdout;
    let layer = parts.path().join("layer.tar");
    let mut pack = Command::new(&tar);
    pack.args(["--owner=0", "--group=0", "-C"])
        .arg(bundle.rootfs());
    run(pack.arg("-cf").arg(&layer).arg("."));
    let sum = run(Command::new(sha256sum).arg(&layer));
    let digest = sum.split_whitespace().next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    std::fs::write(parts.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(parts.path().join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("image.tar");
    let mut pack = Command::new(tar);
    pack.arg("-C").arg(parts.path()).arg("-cf").arg(&archive);
    run(pack.args(["manifest.json", "config.json", "layer.tar"]));
    Ok(archive)
}
