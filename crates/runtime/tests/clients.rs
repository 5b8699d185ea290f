//! Real clients on this runtime in place of runc: podman, containerd, docker, buildah.
//!
//! The same commands run on Debian's runc where that works on the machine, and
//! must end and print alike. Each client lives in a world of its own: storage,
//! state, daemon, cgroup. `docs/clients.md` has the commands for people.

#[path = "common/client.rs"]
mod client;
mod common;

use carrack_testkit::runtime::finish;
use carrack_testkit::{Skip, TempDir, User, require, skip, wait_until};
use client::{IMAGE, World, archive};
use std::path::PathBuf;
use std::process::Command;

/// A program that ends when it is asked to, as process 1 too.
const PATIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

/// What a command came to: its words, exit code and standard output.
type Transcript = Vec<(String, i32, String)>;

/// Commands and the codes and outputs that they must have.
struct Script<'a> {
    world: &'a World,
    said: Transcript,
}

impl Script<'_> {
    fn new(world: &World) -> Script<'_> {
        Script {
            world,
            said: Vec::new(),
        }
    }

    /// Runs a command of the client, which must end with this code and print this somewhere.
    #[track_caller]
    fn step(&mut self, args: &[&str], code: i32, text: &str) -> String {
        let output = self.world.call(args).code_is(code);
        let both = format!("{}{}", output.stdout, output.stderr);
        assert!(both.contains(text), "no {text:?} in: {output}");
        let words = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        self.said.push((words, code, output.stdout.clone()));
        output.stdout
    }

    /// The same, where what is printed differs from run to run.
    #[track_caller]
    fn silent_step(&mut self, args: &[&str], code: i32, text: &str) {
        self.step(args, code, text);
        if let Some(last) = self.said.last_mut() {
            last.2.clear();
        }
    }

    /// A talk over a terminal, which must end with this code.
    #[track_caller]
    fn talk(&mut self, args: &[&str], code: i32) {
        assert_eq!(self.world.talk(args), code, "{args:?}");
        self.said.push(("talk".into(), code, String::new()));
    }
}

/// Runs a session on our program and on Debian's runc; both must go alike.
fn on_both(session: impl Fn(&str) -> Result<Transcript, Skip>) -> Result<(), Skip> {
    let ours = session(&common::program())?;
    if common::other_runtime() {
        return Ok(());
    }
    match skip::program("runc") {
        Ok(runc) => assert_eq!(ours, session(&runc.display().to_string())?),
        Err(skip) => println!("not compared: {}", skip.reason()),
    }
    Ok(())
}

fn podman(runtime: &str) -> Result<Transcript, Skip> {
    let program = skip::program("podman")?.display().to_string();
    skip::program("conmon")?;
    let mut world = World::new();
    let conf = world.path("containers.conf");
    // So that podman asks for the error as JSON, and warnings stay off the container's output.
    let name = PathBuf::from(runtime);
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "[containers]\ndefault_ulimits = []\n[engine]\nruntime_supports_json = [\"{name}\", \"test\"]\n\
         [engine.runtimes]\ntest = [\"{runtime}\"]\n"
    );
    std::fs::write(&conf, text).unwrap();
    let (root, run, tmp) = (world.path("root"), world.path("run"), world.path("tmp"));
    world.set("CONTAINERS_CONF", &conf);
    world.client(&[
        &program,
        "--root",
        &root,
        "--runroot",
        &run,
        "--tmpdir",
        &tmp,
        "--runtime",
        "test",
        "--cgroup-manager=cgroupfs",
        "--storage-driver=vfs",
        "--events-backend=file",
    ]);
    let image = archive(&PathBuf::from(world.path("")))?
        .display()
        .to_string();
    world.call(&["load", "-q", "-i", &image]).ok();
    let parent = format!("--cgroup-parent=/{}", world.name());
    // Debian's podman raises the limits of processes, which runc cannot without CAP_SYS_RESOURCE.
    let start = ["run", "--network=none", "--ulimit=host", &parent];
    let run = |more: &[&str]| {
        [&start[..], more]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect()
    };
    let run = |more: &[&str]| -> Vec<String> { run(more) };
    let mut script = Script::new(&world);
    let go = |script: &mut Script<'_>, more: &[&str], code: i32, text: &str| {
        let words = run(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        script.silent_step(&words, code, text);
    };
    go(
        &mut script,
        &["--rm", IMAGE, "sh", "-c", "echo hello; exit 7"],
        7,
        "hello",
    );
    go(
        &mut script,
        &["-d", "--name", "c1", IMAGE, "sh", "-c", PATIENT],
        0,
        "",
    );
    let words = run(&["--rm", "-it", IMAGE, "sh"]);
    script.talk(&words.iter().map(String::as_str).collect::<Vec<_>>(), 4);
    script.step(
        &["exec", "c1", "sh", "-c", "echo inside; exit 3"],
        3,
        "inside",
    );
    script.talk(&["exec", "-it", "c1", "sh"], 4);
    script.silent_step(&["exec", "-d", "c1", "touch", "/tmp/detached"], 0, "");
    script.silent_step(&["top", "c1", "pid", "comm"], 0, "sh");
    // A second container in the namespaces of the first, as in a pod.
    let shared = [
        "run",
        "--rm",
        "--ulimit=host",
        &parent,
        "--network=container:c1",
    ];
    let shared = [
        &shared[..],
        &["--pid=container:c1", "--ipc=container:c1", IMAGE],
    ]
    .concat();
    script.silent_step(&[&shared[..], &["ps"]].concat(), 0, "trap");
    script.step(&["pause", "c1"], 0, "c1");
    script.step(
        &["ps", "-a", "--format", "{{.Names}} {{.State}}"],
        0,
        "c1 Paused",
    );
    script.step(&["unpause", "c1"], 0, "c1");
    script.step(&["exec", "c1", "ls", "/tmp/detached"], 0, "/tmp/detached");
    script.silent_step(
        &[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.MemUsage}}",
            "c1",
        ],
        0,
        "c1",
    );
    script.silent_step(&["update", "--memory", "64m", "c1"], 0, "");
    script.silent_step(
        &["exec", "c1", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"],
        0,
        "67108864",
    );
    script.step(&["restart", "-t", "5", "c1"], 0, "c1");
    script.step(&["kill", "-s", "TERM", "c1"], 0, "c1");
    script.step(&["wait", "c1"], 0, "0");
    script.step(
        &[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}",
            "c1",
        ],
        0,
        "exited 0",
    );
    script.step(&["start", "c1"], 0, "c1");
    script.step(&["stop", "-t", "5", "c1"], 0, "c1");
    script.step(&["rm", "c1"], 0, "c1");
    go(
        &mut script,
        &["--name", "c2", IMAGE, "sh", "-c", "echo out; echo err >&2"],
        0,
        "out",
    );
    script.step(&["logs", "c2"], 0, "out\n");
    script.step(&["rm", "-f", "c2"], 0, "c2");
    go(&mut script, &["--rm", IMAGE, "no-such"], 127, "not found");
    go(
        &mut script,
        &["--rm", IMAGE, "/etc/passwd"],
        126,
        "permission denied",
    );
    let limits = [
        "--rm",
        "--read-only",
        "--tmpfs=/x",
        "--memory=50m",
        "--cpus=0.5",
        "--pids-limit=50",
    ];
    go(
        &mut script,
        &[&limits[..], &[IMAGE, "touch", "/x/y"]].concat(),
        0,
        "",
    );
    go(
        &mut script,
        &["--rm", "--uidmap=0:100000:1000", IMAGE, "id", "-u"],
        0,
        "0\n",
    );
    script.silent_step(
        &[
            "run",
            "--rm",
            "--ulimit=host",
            &parent,
            "--network=host",
            IMAGE,
            "true",
        ],
        0,
        "",
    );
    let said = script.said;
    world.call(&["rmi", "-af"]).ok();
    world.assert_nothing_left();
    Ok(said)
}

#[test]
fn podman_runs_on_this_runtime() {
    require!(skip::root());
    require!(on_both(podman));
}

#[test]
fn what_podman_sets_by_itself_works_without_the_right_to_raise_limits() {
    require!(skip::root());
    let program = require!(skip::program("podman")).display().to_string();
    let mut world = World::new();
    let (root, run, tmp) = (world.path("root"), world.path("run"), world.path("tmp"));
    world.client(&[
        &program,
        "--root",
        &root,
        "--runroot",
        &run,
        "--tmpdir",
        &tmp,
        "--runtime",
        &common::program(),
        "--cgroup-manager=cgroupfs",
        "--storage-driver=vfs",
        "--events-backend=file",
    ]);
    let image = require!(archive(&PathBuf::from(world.path(""))))
        .display()
        .to_string();
    world.call(&["load", "-q", "-i", &image]).ok();
    let parent = format!("--cgroup-parent=/{}", world.name());
    let output = world.call(&[
        "run",
        "--rm",
        "--network=none",
        &parent,
        IMAGE,
        "echo",
        "hello",
    ]);
    output.ok().stdout_is("hello\n");
    world.assert_nothing_left();
}

/// Ends the processes of a test's user, such as the one that keeps podman's user namespace.
struct ProcessesOf(u32);

impl Drop for ProcessesOf {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().parse().ok();
            if entry.metadata().is_ok_and(|meta| meta.uid() == self.0)
                && let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[test]
fn podman_runs_without_root() {
    require!(skip::root());
    let program = require!(skip::program("podman")).display().to_string();
    let user = require!(User::with_subordinate_ids());
    let _processes = ProcessesOf(user.uid());
    let dir = user.home();
    let image = require!(archive(&dir)).display().to_string();
    // The program under test may be where only root can look.
    let runtime = dir.join("carrack-runtime");
    std::fs::copy(common::program(), &runtime).unwrap();
    let (root, run, tmp) = (dir.join("root"), dir.join("state"), dir.join("tmp"));
    let call = |args: &[&str]| {
        let mut command = user.command(&program);
        command.arg("--root").arg(&root).arg("--runroot").arg(&run);
        command
            .arg("--tmpdir")
            .arg(&tmp)
            .arg("--runtime")
            .arg(&runtime);
        command.args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs"]);
        finish(command.args(["--events-backend=file"]).args(args))
    };
    let loaded = call(&["load", "-q", "-i", &image]);
    if loaded.code() != 0 {
        carrack_testkit::skip!(
            "podman itself cannot do without root here: {}",
            loaded.stderr
        );
    }
    let start = ["--network=none", "--ulimit=host"];
    let run = |more: &[&str]| call(&[&["run"], &start[..], more].concat());
    run(&["--rm", IMAGE, "sh", "-c", "id -u; exit 7"])
        .code_is(7)
        .stdout_is("0\n");
    run(&["--rm", "--user=1000:1000", IMAGE, "id", "-u"])
        .ok()
        .stdout_is("1000\n");
    run(&["-d", "--name", "c1", IMAGE, "sh", "-c", PATIENT]).ok();
    call(&["exec", "c1", "sh", "-c", "echo inside; exit 3"])
        .code_is(3)
        .stdout_is("inside\n");
    let shared = run(&[
        "--rm",
        "--pid=container:c1",
        "--ipc=container:c1",
        IMAGE,
        "ps",
    ]);
    shared.ok().stdout_has("trap");
    call(&["stop", "-t", "5", "c1"]).ok();
    call(&["inspect", "--format", "{{.State.ExitCode}}", "c1"])
        .ok()
        .stdout_is("0\n");
    call(&["rm", "c1"]).ok();
    // Files of other ids can be removed only from within the user's namespace.
    call(&["unshare", "rm", "-rf", &root.display().to_string()]);
    call(&["system", "migrate"]);
}

fn containerd(runtime: &str) -> Result<Transcript, Skip> {
    let daemon = skip::program("containerd")?;
    let ctr = skip::program("ctr")?.display().to_string();
    skip::program("containerd-shim-runc-v2")?;
    let mut world = World::new();
    let socket = world.path("socket");
    let text = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{socket}\"\n",
        world.path("root"),
        world.path("state"),
    );
    let config = world.path("config.toml");
    std::fs::write(&config, text).unwrap();
    // The namespace is the cgroup's parent too.
    let name = world.name().to_owned();
    world.client(&[&ctr, "--address", &socket, "--namespace", &name]);
    world.serve(
        Command::new(daemon).args(["--config", &config]),
        &["version"],
    )?;
    let image = archive(&PathBuf::from(world.path("")))?
        .display()
        .to_string();
    world
        .call(&["images", "import", "--snapshotter", "native", &image])
        .ok();
    let state = world.path("runc");
    let start = [
        "run",
        "--snapshotter",
        "native",
        "--runc-binary",
        runtime,
        "--runc-root",
        &state,
    ];
    let mut script = Script::new(&world);
    let run = |more: &[&'static str]| [&start[..], more].concat();
    script.step(
        &run(&["--rm", IMAGE, "k1", "sh", "-c", "echo hello; exit 7"]),
        7,
        "hello",
    );
    script.talk(&run(&["--rm", "-t", IMAGE, "k2", "sh"]), 4);
    script.step(&run(&["-d", IMAGE, "k3", "sleep", "1000"]), 0, "");
    let exec = ["task", "exec", "--exec-id", "e1"];
    // ctr stops copying when the process has ended, whatever it has still to copy.
    let inside = "echo inside; sleep 1; exit 3";
    script.step(
        &[&exec[..], &["k3", "sh", "-c", inside]].concat(),
        3,
        "inside",
    );
    script.talk(&[&exec[..], &["-t", "k3", "sh"]].concat(), 4);
    script.silent_step(&["task", "ls"], 0, "RUNNING");
    script.step(&["task", "pause", "k3"], 0, "");
    script.silent_step(&["task", "ls"], 0, "PAUSED");
    script.step(&["task", "resume", "k3"], 0, "");
    script.silent_step(&["task", "ps", "k3"], 0, "PID");
    script.silent_step(&["task", "metrics", "k3"], 0, "memory");
    script.step(&["task", "kill", "-s", "KILL", "k3"], 0, "");
    wait_until("end of the task", || {
        world.call(&["task", "ls"]).stdout.contains("STOPPED")
    });
    script.step(&["task", "rm", "k3"], 0, "137");
    script.step(&["container", "rm", "k3"], 0, "");
    let limits = [
        "--rm",
        "--memory-limit",
        "50000000",
        "--cpus",
        "0.5",
        IMAGE,
        "k4",
        "true",
    ];
    script.step(&run(&limits), 0, "");
    script.step(
        &run(&["--rm", IMAGE, "k5", "no-such"]),
        1,
        "executable file not found",
    );
    script.step(
        &run(&["--rm", "--net-host", "--read-only", IMAGE, "k6", "true"]),
        0,
        "",
    );
    let said = script.said;
    world.call(&["images", "rm", "--sync", IMAGE]).ok();
    world.assert_nothing_left();
    Ok(said)
}

#[test]
fn containerd_runs_on_this_runtime() {
    require!(skip::root());
    require!(on_both(containerd));
}

fn docker(runtime: &str) -> Result<Transcript, Skip> {
    let daemon = skip::program("dockerd")?;
    let program = skip::program("docker")?.display().to_string();
    let mut world = World::new();
    let socket = format!("unix://{}", world.path("socket"));
    let parent = format!("/{}", world.name());
    world.client(&[&program, "--host", &socket]);
    let (data, exec, pid) = (world.path("data"), world.path("exec"), world.path("pid"));
    let mut command = Command::new(daemon);
    // On a busy machine it may have its containerd write down what it does, into TMPDIR.
    command.env("TMPDIR", world.path(""));
    command.args([
        "--data-root",
        &data,
        "--exec-root",
        &exec,
        "--pidfile",
        &pid,
    ]);
    command.args([
        "--host",
        &socket,
        "--cgroup-parent",
        &parent,
        "--storage-driver=vfs",
    ]);
    command.args([
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]);
    command.args(["--bridge=none", "--userland-proxy=false"]);
    command.arg(format!("--add-runtime=test={runtime}"));
    world.serve(&mut command, &["version"])?;
    let image = archive(&PathBuf::from(world.path("")))?
        .display()
        .to_string();
    world.call(&["load", "--quiet", "--input", &image]).ok();
    let start = ["run", "--runtime", "test", "--network", "none"];
    let run = |more: &[&'static str]| [&start[..], more].concat();
    let mut script = Script::new(&world);
    script.step(
        &run(&["--rm", IMAGE, "sh", "-c", "echo hello; exit 7"]),
        7,
        "hello",
    );
    script.talk(&run(&["--rm", "-it", IMAGE, "sh"]), 4);
    script.silent_step(
        &run(&["-d", "--name", "k3", IMAGE, "sh", "-c", PATIENT]),
        0,
        "",
    );
    script.step(
        &["exec", "k3", "sh", "-c", "echo inside; exit 3"],
        3,
        "inside",
    );
    script.talk(&["exec", "-it", "k3", "sh"], 4);
    script.step(&["exec", "-d", "k3", "touch", "/tmp/detached"], 0, "");
    script.step(&["pause", "k3"], 0, "k3");
    script.silent_step(&["ps", "--format", "{{.Names}} {{.Status}}"], 0, "(Paused)");
    script.step(&["unpause", "k3"], 0, "k3");
    script.step(&["exec", "k3", "ls", "/tmp/detached"], 0, "/tmp/detached");
    script.step(
        &["update", "--memory", "64m", "--memory-swap", "64m", "k3"],
        0,
        "k3",
    );
    script.silent_step(&["top", "k3", "-o", "pid,comm"], 0, "sh");
    script.silent_step(
        &[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.PIDs}}",
            "k3",
        ],
        0,
        "k3",
    );
    script.step(&["restart", "-t", "5", "k3"], 0, "k3");
    script.step(&["kill", "-s", "KILL", "k3"], 0, "k3");
    script.step(&["wait", "k3"], 0, "137");
    script.step(&["start", "k3"], 0, "k3");
    script.step(&["stop", "-t", "5", "k3"], 0, "k3");
    script.step(
        &[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}",
            "k3",
        ],
        0,
        "exited 0",
    );
    script.step(&["rm", "k3"], 0, "k3");
    script.step(
        &run(&["--name", "k4", IMAGE, "sh", "-c", "echo out; echo err >&2"]),
        0,
        "out",
    );
    script.step(&["logs", "k4"], 0, "out");
    script.step(&["rm", "k4"], 0, "k4");
    script.step(
        &run(&["--rm", IMAGE, "no-such"]),
        127,
        "executable file not found",
    );
    script.step(
        &run(&["--rm", IMAGE, "/etc/passwd"]),
        126,
        "permission denied",
    );
    script.step(
        &run(&[
            "--rm",
            "--read-only",
            "--cpus=0.5",
            "--pids-limit=50",
            IMAGE,
            "true",
        ]),
        0,
        "",
    );
    let greedy = [
        "--name",
        "k5",
        "--memory=20m",
        IMAGE,
        "sh",
        "-c",
        "head -c 100000000 /dev/zero | tail",
    ];
    script.step(&run(&greedy), 137, "");
    script.step(&["rm", "k5"], 0, "k5");
    let said = script.said;
    world.assert_nothing_left();
    Ok(said)
}

#[test]
fn docker_runs_on_this_runtime() {
    require!(skip::root());
    require!(on_both(docker));
}

fn buildah(runtime: &str) -> Result<Transcript, Skip> {
    let program = skip::program("buildah")?.display().to_string();
    let mut world = World::new();
    let (root, state) = (world.path("root"), world.path("run"));
    world.client(&[
        &program,
        "--root",
        &root,
        "--runroot",
        &state,
        "--storage-driver=vfs",
    ]);
    let image = archive(&PathBuf::from(world.path("")))?
        .display()
        .to_string();
    let source = format!("docker-archive:{image}");
    let mut script = Script::new(&world);
    script.silent_step(&["from", "--name", "w", &source], 0, "w");
    let start = [
        "run",
        "--isolation=oci",
        "--runtime",
        runtime,
        "--network=none",
    ];
    let run = |more: &[&'static str]| [&start[..], more].concat();
    script.step(&run(&["w", "sh", "-c", "echo hello; exit 7"]), 7, "hello");
    script.talk(&run(&["-t", "w", "sh"]), 4);
    let recipe = TempDir::new();
    let text = format!("FROM {source}\nRUN echo made > /made\nRUN cat /made\n");
    std::fs::write(recipe.path().join("Containerfile"), text).unwrap();
    let context = recipe.path().display().to_string();
    let build = [
        "build",
        "--isolation=oci",
        "--runtime",
        runtime,
        "--network=none",
        "-t",
        "x",
    ];
    script.silent_step(&[&build[..], &[context.as_str()]].concat(), 0, "made");
    script.silent_step(&["rm", "-a"], 0, "");
    script.silent_step(&["rmi", "-af"], 0, "");
    let said = script.said;
    world.assert_nothing_left();
    Ok(said)
}

#[test]
fn buildah_runs_on_this_runtime() {
    require!(skip::root());
    require!(on_both(buildah));
}
