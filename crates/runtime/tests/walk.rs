//! The walk that a talk about low-level containers takes, from an image to a network,
//! with the tools it uses: skopeo, umoci, jq, a receiver for the console, ip.

#[path = "common/client.rs"]
mod client;
mod common;

use carrack_testkit::runtime::finish;
use carrack_testkit::{
    Bundle, ConsoleSocket, Runtime, Skip, TempDir, leaks, require, skip, unique, wait_until,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A bundle as skopeo and umoci make it from an image.
struct Unpacked {
    dir: TempDir,
}

impl Unpacked {
    fn new() -> Result<Unpacked, Skip> {
        let (skopeo, umoci) = (skip::program("skopeo")?, skip::program("umoci")?);
        skip::program("jq")?;
        let dir = TempDir::new();
        let archive = client::archive(dir.path())?.display().to_string();
        let image = format!("{}:walk", dir.path().join("image").display());
        let mut copy = Command::new(skopeo);
        copy.args([
            "copy",
            "--insecure-policy",
            &format!("docker-archive:{archive}"),
        ]);
        finish(copy.arg(format!("oci:{image}"))).ok();
        let mut unpack = Command::new(umoci);
        unpack.args(["unpack", "--image", &image]);
        finish(unpack.arg(dir.path().join("bundle"))).ok();
        Ok(Unpacked { dir })
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn config(&self) -> PathBuf {
        self.bundle().join("config.json")
    }

    /// Edits the configuration with jq, as one does at a shell.
    fn edit(&self, filter: &str) {
        let mut jq = Command::new("jq");
        let edited = finish(jq.arg(filter).arg(self.config())).ok().stdout;
        std::fs::write(self.config(), edited).unwrap();
    }

    /// `run` of the bundle under a new name.
    fn run(&self, runtime: &Runtime) -> carrack_testkit::runtime::Output {
        let id = unique();
        let bundle = self.bundle();
        let mut command = runtime.command(["run", "--bundle"]);
        let output = finish(command.arg(&bundle).arg(&id));
        let left = leaks::of(&id, &bundle);
        assert!(left.is_empty(), "{left:?}");
        output
    }
}

/// A container that is deleted by force, however the test ends.
struct Named<'a> {
    runtime: &'a Runtime,
    id: String,
}

impl Named<'_> {
    fn call(&self, words: &[&str]) -> carrack_testkit::runtime::Output {
        let words = words
            .iter()
            .map(|&word| if word == "ID" { &self.id } else { word });
        self.runtime.call(words)
    }

    /// The row of `list` as JSON.
    fn listed(&self) -> Value {
        let text = self.runtime.call(["list", "--format", "json"]).ok().stdout;
        let rows: Value = serde_json::from_str(&text).unwrap();
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.into_iter()
            .find(|row| row["id"] == self.id.as_str())
            .unwrap_or_default()
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let _ = self.runtime.call(["delete", "--force", &self.id]);
    }
}

#[test]
fn the_life_of_a_container_step_by_step() {
    let runtime = require!(common::runtime());
    let unpacked = require!(Unpacked::new());
    // `spec` writes a configuration only where there is none.
    let mut spec = runtime.command(["spec"]);
    finish(spec.current_dir(unpacked.bundle())).fails_with("config.json");
    std::fs::remove_file(unpacked.config()).unwrap();
    let mut spec = runtime.command(["spec"]);
    finish(spec.current_dir(unpacked.bundle())).ok();
    unpacked.edit(".root.readonly = false | .process.env = [\"PATH=/bin\"]");

    let named = Named {
        runtime: &runtime,
        id: unique(),
    };
    let console = ConsoleSocket::new();
    let socket = console.path().display().to_string();
    let mut create = runtime.command(["create", "--console-socket", &socket, "--bundle"]);
    finish(create.arg(unpacked.bundle()).arg(&named.id)).ok();
    let (mut terminal, name) = console.accept();
    assert!(name.contains("pt"), "the terminal came as {name:?}");

    let row = named.listed();
    assert_eq!(row["status"], "created");
    assert_eq!(row["bundle"], unpacked.bundle().display().to_string());
    let pid = row["pid"].as_i64().unwrap();
    named.call(&["list"]).ok().stdout_has("created");
    // The process that waits for start is there for everybody to see.
    let ps = named.call(&["ps", "ID"]).ok();
    assert!(ps.stdout.contains(&pid.to_string()), "{ps}");
    assert!(
        ps.stdout.lines().count() == 2 && ps.stdout.contains("carrack-runtime"),
        "{ps}"
    );
    // And its namespaces and root can be used before the program is.
    named
        .call(&["exec", "ID", "hostname"])
        .ok()
        .stdout_is("carrack\n");
    named
        .call(&["exec", "ID", "sh", "-c", "echo early > /tmp/early"])
        .ok();
    let inside = named.call(&["exec", "ID", "ps"]).ok();
    assert!(inside.stdout.contains("    1 "), "{inside}");

    named.call(&["start", "ID"]).ok();
    assert_eq!(named.listed()["status"], "running");
    assert_eq!(named.listed()["pid"].as_i64(), Some(pid));
    terminal.expect("# ");
    terminal.type_text("cat /tmp/early; tty\r");
    terminal.expect("early");
    terminal.expect("/dev/pts/0");
    named.call(&["start", "ID"]).fails_with("running");

    named.call(&["pause", "ID"]).ok();
    assert_eq!(named.listed()["status"], "paused");
    terminal.type_text("echo $((40 + 2))\r");
    std::thread::sleep(std::time::Duration::from_millis(200));
    named.call(&["exec", "ID", "true"]).fails_with("paused");
    named.call(&["resume", "ID"]).ok();
    terminal.expect("42\r\n");

    let event = named.call(&["events", "--stats", "ID"]).ok().stdout;
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], named.id.as_str());
    assert!(
        event["data"]["pids"]["current"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{event}"
    );

    named.call(&["delete", "ID"]).fails_with("not stopped");
    terminal.type_text("exit 3\r");
    wait_until("end of the container", || {
        named.listed()["status"] == "stopped"
    });
    named.call(&["delete", "ID"]).ok();
    assert_eq!(named.listed(), Value::Null);
    let left = leaks::of(&named.id, &unpacked.bundle());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bundle_is_edited_with_jq() {
    let runtime = require!(common::runtime());
    let unpacked = require!(Unpacked::new());
    // The configuration is umoci's own.
    unpacked.edit(".process.terminal = false | .process.args = [\"echo\", \"hello\"]");
    unpacked.run(&runtime).ok().stdout_is("hello\n");

    // A namespace less: the container shares the host's network.
    unpacked.edit(".process.args = [\"readlink\", \"/proc/self/ns/net\"]");
    let host = std::fs::read_link("/proc/self/ns/net")
        .unwrap()
        .display()
        .to_string();
    let own = unpacked.run(&runtime).ok().stdout;
    assert_ne!(own.trim(), host);
    unpacked.edit("del(.linux.namespaces[] | select(.type == \"network\"))");
    unpacked.run(&runtime).ok().stdout_is(&format!("{host}\n"));

    // What needs the namespace that is gone is refused by name.
    unpacked.edit("del(.linux.namespaces[] | select(.type == \"uts\"))");
    unpacked.run(&runtime).fails_with("hostname");
    unpacked.edit("del(.hostname)");
    unpacked.run(&runtime).ok();
}

/// Sets up a bridge in the network that the runtime runs in, and a cable from it to the container.
const HOOK: &str = r#"#!/bin/sh
set -e
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
pid=$(jq -r .pid)
ip link add walk0 type bridge
ip address add 10.77.0.1/24 dev walk0
ip link set walk0 up
ip link add cable type veth peer name eth0 netns "$pid"
ip link set cable master walk0 up
nsenter --target "$pid" --net ip address add 10.77.0.2/24 dev eth0
nsenter --target "$pid" --net ip link set eth0 up
nsenter --target "$pid" --net ip route add default via 10.77.0.1
"#;

#[test]
fn a_hook_sets_up_a_bridge() {
    let runtime = require!(common::runtime());
    for program in ["ip", "jq", "nsenter", "unshare"] {
        require!(skip::program(program));
    }
    let probe = ["--net", "ip", "link", "add", "probe", "type", "bridge"];
    let probe = finish(Command::new("unshare").args(probe));
    if probe.code() != 0 {
        carrack_testkit::skip!("this kernel makes no bridge: {}", probe.stderr.trim());
    }
    let mut bundle = require!(Bundle::busybox());
    let hook = write_hook(bundle.path());
    bundle.push("/hooks/createRuntime", json!({"path": hook}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(
            &format!("/process/capabilities/{set}"),
            json!("CAP_NET_RAW"),
        );
    }
    bundle.shell("ip address show eth0; ip route; ping -c 1 -W 5 10.77.0.1");
    let container = runtime.container(&bundle);
    // The bridge is in a network of the test's own, which ends with the command.
    let run = container.bundle_command("run", &[]);
    let mut outer = Command::new("unshare");
    outer
        .arg("--net")
        .arg(run.get_program())
        .args(run.get_args())
        .stdin(Stdio::null());
    let output = finish(&mut outer).ok();
    for text in [
        "inet 10.77.0.2/24",
        "default via 10.77.0.1",
        "1 packets received",
    ] {
        assert!(output.stdout.contains(text), "no {text:?} in: {output}");
    }
    assert!(
        !Path::new("/sys/class/net/walk0").exists(),
        "the bridge is on the host"
    );
    container.assert_nothing_left();
}

fn write_hook(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("hook");
    std::fs::write(&path, HOOK).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
