//! Ways out of a container that other runtimes once left open: the runtime's own
//! program, its descriptors, its capabilities. The ways by path are in
//! `escapes_by_path.rs`. Each test says how a naive runtime fails it.

mod common;

use carrack_testkit::{Bundle, Runtime, TempDir, User, require, runtime, skip, wait_until};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What an attacker who is root in the container does with the program of a process:
/// holds it open until the process runs something else, then writes. `BUSY` must not
/// be what saves the program: it ends with the process.
const ATTACK: &str = "
    for p in /proc/[0-9]*; do
        case $(readlink $p/exe) in *busybox|'') continue ;; esac
        echo found
        exec 3< $p/exe
        chmod 777 $p/exe
        echo overwritten > $p/exe
        touch /held; while [ ! -e /go ]; do sleep 0.02; done
        chmod 777 /proc/self/fd/3
        echo overwritten > /proc/self/fd/3
    done";

/// A copy of the program, so that a test that fails harms no other.
fn private_copy(original: &Path, dir: &Path) -> PathBuf {
    let program = dir.join("carrack-runtime");
    std::fs::copy(original, &program).unwrap();
    program
}

/// The programs to look at: the one under test, and the optimised one when it was built, because
/// that one protects itself before the C library starts.
fn programs() -> Vec<PathBuf> {
    let tested = PathBuf::from(common::program());
    let optimised = Path::new(env!("CARGO_BIN_EXE_carrack-runtime"))
        .ancestors()
        .nth(2)
        .map(|target| target.join("release/carrack-runtime"));
    let mut list = vec![tested];
    match optimised {
        Some(path) if path.exists() => list.push(path),
        _ => println!("no optimised program here: only the one under test is attacked"),
    }
    list
}

/// A root in the container with everything that could help.
fn give_power(bundle: &mut Bundle) {
    let all = [
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
    ];
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(all));
    }
    bundle.set("/process/noNewPrivileges", json!(false));
}

/// Attacks the program of the waiting init from within, over an exec; `call` makes a command
/// line of the runtime into a command.
fn attack(program: &Path, bundle: &Bundle, call: &dyn Fn(&[&str]) -> Command) {
    let before = std::fs::read(program).unwrap();
    let mode = std::fs::metadata(program).unwrap().permissions().mode();
    let id = carrack_testkit::unique();
    let path = bundle.path().display().to_string();
    bundle.write();
    runtime::finish(&mut call(&["create", "--bundle", &path, &id])).ok();
    let mut command = call(&["exec", &id, "sh", "-c", ATTACK]);
    let attacker = std::thread::spawn(move || runtime::finish(&mut command));
    let held = bundle.rootfs().join("held");
    wait_until("descriptor in the attacker's hands", || {
        held.exists() || attacker.is_finished()
    });
    // Now no process runs the file any more.
    runtime::finish(&mut call(&["start", &id])).ok();
    std::fs::write(bundle.rootfs().join("go"), "").unwrap();
    let output = attacker.join().unwrap();
    runtime::finish(&mut call(&["delete", "--force", &id])).ok();
    assert!(
        output.stdout.contains("found"),
        "the attack did not happen: {output}"
    );
    assert!(
        std::fs::read(program).unwrap() == before,
        "overwritten: {output}"
    );
    let after = std::fs::metadata(program).unwrap().permissions().mode();
    assert_eq!(after, mode, "made writable: {output}");
    let left = carrack_testkit::leaks::of(&id, bundle.path());
    assert!(left.is_empty(), "{left:?}");
}

/// CVE-2019-5736. A naive runtime enters the container as the file on the host: root in the
/// container opens `/proc/1/exe`, waits until it runs no more, and writes.
#[test]
fn the_runtimes_program_cannot_be_written_through_proc() {
    require!(skip::root());
    if common::other_runtime() {
        return;
    }
    for original in programs() {
        let dir = TempDir::new();
        let runtime = Runtime::new(private_copy(&original, dir.path()));
        let mut bundle = require!(Bundle::busybox());
        give_power(&mut bundle);
        bundle.args(["sleep", "100"]);
        let call = |args: &[&str]| runtime.command(args);
        attack(runtime.program(), &bundle, &call);
    }
}

/// CVE-2019-5736, as the user who owns the program: its mode keeps nobody out who may change
/// the mode. A naive runtime takes "I cannot write it" for "it cannot be written".
#[test]
fn a_program_of_the_user_cannot_be_written_through_proc() {
    require!(skip::root());
    if common::other_runtime() {
        return;
    }
    let user = require!(User::plain());
    for original in programs() {
        let program = private_copy(&original, &user.home());
        std::os::unix::fs::chown(&program, Some(user.uid()), Some(user.gid())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o555)).unwrap();
        let mut bundle = require!(Bundle::busybox_rootless(user.uid(), user.gid()));
        give_power(&mut bundle);
        bundle.args(["sleep", "100"]);
        let root = user.runtime_dir().join("state");
        let call = |args: &[&str]| {
            let mut command = user.command(&program);
            command.arg("--root").arg(&root).args(args);
            command
        };
        attack(&program, &bundle, &call);
        std::fs::remove_file(&program).unwrap();
    }
}

/// CVE-2019-5736 by a program of the image that brings the runtime back. A naive runtime then
/// runs the host's file inside, where a second process writes to it as soon as it ends.
#[test]
fn a_script_or_link_that_runs_the_runtime_reaches_no_writable_file() {
    require!(skip::root());
    if common::other_runtime() {
        return;
    }
    for original in programs() {
        let dir = TempDir::new();
        let program = private_copy(&original, dir.path());
        let before = std::fs::read(&program).unwrap();
        let runtime = Runtime::new(&program);
        let mut bundle = require!(Bundle::busybox());
        give_power(&mut bundle);
        bundle.script("bin/script", "#!/proc/self/exe\n");
        bundle.shell(
            "echo started; while [ ! -e /stop ]; do for p in /proc/[0-9]*/exe; do
                case $(readlink $p) in *busybox) continue ;; esac
                (echo overwritten > $p && echo WRITTEN) 2>&1
             done; done",
        );
        let container = runtime.container(&bundle);
        let log = dir.path().join("log");
        let out = std::fs::File::create(&log).unwrap();
        let mut attacker = container
            .bundle_command("run", &[])
            .stdout(out)
            .spawn()
            .unwrap();
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until("start of the attacker", || text().contains("started"));
        for _ in 0..15 {
            for command in ["/bin/script", "/proc/self/exe"] {
                container.exec(&[command]);
            }
        }
        std::fs::write(bundle.rootfs().join("stop"), "").unwrap();
        attacker.wait().unwrap();
        let told = text();
        assert!(!told.contains("WRITTEN"), "{told}");
        assert!(std::fs::read(&program).unwrap() == before);
        drop(container);
        // As the container's own program it is there, and of no use.
        bundle.args(["/proc/self/exe", "--version"]);
        runtime.container(&bundle).run().ok();
        assert!(std::fs::read(&program).unwrap() == before);
    }
}

/// A file of the host outside of the container, and a way from any directory to it.
fn program_on_the_host(dir: &TempDir) -> String {
    let path = dir.path().join("escape");
    std::fs::copy("/usr/bin/busybox", &path).unwrap();
    format!("{}{}", "/..".repeat(12), path.display())
}

/// Runs `command` as the child of a shell that leaves a directory of the host open as 9.
fn with_open_directory(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3< /dev/null 9< /; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null());
    shell
}

/// CVE-2024-21626 with the program's path. A naive runtime marks its descriptors close-on-exec,
/// which comes after the kernel has walked `/proc/self/fd/N/../../../bin/sh` to the host's file.
#[test]
fn no_descriptor_leads_to_a_program_of_the_host() {
    let runtime = require!(common::runtime());
    let dir = TempDir::new();
    let host = program_on_the_host(&dir);
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let running = runtime.container(&bundle);
    running.run_detached().ok();
    let mut bundle = require!(Bundle::busybox());
    for number in 3..24 {
        let program = format!("/proc/self/fd/{number}{host}");
        bundle.args([&program, "echo", "ESCAPED"]);
        for flags in [&[][..], &["--preserve-fds", "1"]] {
            let container = runtime.container(&bundle);
            let output = runtime::finish(&mut with_open_directory(
                &container.bundle_command("run", flags),
            ));
            assert!(!output.stdout.contains("ESCAPED"), "{output}");
            assert_ne!(output.code(), 0, "{output}");
            container.assert_nothing_left();
        }
        let command = runtime.command(["exec", running.id(), &program, "echo", "ESCAPED"]);
        let output = runtime::finish(&mut with_open_directory(&command));
        assert!(!output.stdout.contains("ESCAPED"), "{output}");
        assert_ne!(output.code(), 0, "{output}");
    }
}

/// CVE-2024-21626 with the working directory. A naive runtime enters `/proc/self/fd/N` while a
/// directory of the host is still open, and the process starts on the host's file system.
#[test]
fn no_descriptor_becomes_the_working_directory() {
    let runtime = require!(common::runtime());
    let dir = TempDir::new();
    std::fs::write(dir.path().join("secret"), "ESCAPED").unwrap();
    let secret = format!("{}.{}/secret", "../".repeat(12), dir.path().display());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let running = runtime.container(&bundle);
    running.run_detached().ok();
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["/bin/cat", &secret]);
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.set("/process/cwd", json!(cwd));
        for flags in [&[][..], &["--preserve-fds", "1"]] {
            let container = runtime.container(&bundle);
            let command = container.bundle_command("run", flags);
            let output = runtime::finish(&mut with_open_directory(&command));
            assert!(!output.stdout.contains("ESCAPED"), "{output}");
            assert_ne!(output.code(), 0, "{output}");
            container.assert_nothing_left();
        }
        let command = runtime.command(["exec", "--cwd", &cwd, running.id(), "cat", &secret]);
        let output = runtime::finish(&mut with_open_directory(&command));
        assert!(!output.stdout.contains("ESCAPED"), "{output}");
        assert_ne!(output.code(), 0, "{output}");
    }
}

/// CVE-2024-21626 with what is left open: a naive runtime lets the program inherit it.
#[test]
fn the_program_inherits_no_descriptor() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["ls", "-l", "/proc/self/fd"]);
    let container = runtime.container(&bundle);
    let command = container.bundle_command("run", &[]);
    let output = runtime::finish(&mut with_open_directory(&command)).ok();
    let numbers: Vec<&str> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8))
        .collect();
    // 3 is the directory that ls reads.
    assert_eq!(numbers, ["0", "1", "2", "3"], "{output}");
}

/// CVE-2022-29162. A naive runtime puts the capabilities into the inheritable set too, or keeps
/// that of its caller: programs with file capabilities then get what others may not have.
#[test]
fn no_capability_is_inheritable_unless_the_config_says_so() {
    let runtime = require!(common::runtime());
    let setpriv = require!(skip::program("setpriv"));
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    let inheriting = |command: &Command| {
        let mut outer = Command::new(&setpriv);
        outer.args(["--inh-caps", "+net_raw,+sys_admin,+kill"]);
        outer.arg(command.get_program()).args(command.get_args());
        runtime::finish(outer.stdin(Stdio::null()))
    };
    let run = container.bundle_command("run", &["--detach"]);
    inheriting(&run).ok();
    let empty = |status: &str| {
        for set in ["CapInh:", "CapAmb:"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            assert!(line.ends_with("\t0000000000000000"), "{line} in {status}");
        }
    };
    empty(&std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap());
    for flags in [&[][..], &["--cap", "CAP_NET_RAW"]] {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.extend([container.id(), "cat", "/proc/self/status"]);
        let output = inheriting(&runtime.command(args)).ok();
        empty(&output.stdout);
    }
    let dir = TempDir::new();
    let mut spec = runtime.command(["spec"]);
    runtime::finish(spec.current_dir(dir.path())).ok();
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let inheritable = &config["process"]["capabilities"]["inheritable"];
    assert!(
        inheritable.as_array().is_none_or(Vec::is_empty),
        "spec gives {inheritable}"
    );
}

/// CVE-2016-9962, the same class by another way: while a process enters the container, it has
/// descriptors of the host, and root in the container may look at its processes. A naive runtime
/// is open to that until it executes the program.
#[test]
fn a_process_on_its_way_in_cannot_be_looked_at() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    // In a user namespace root has every right over what enters it, also without another uid.
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    for ids in ["uidMappings", "gidMappings"] {
        bundle.push(
            &format!("/linux/{ids}"),
            json!({"containerID": 0, "hostID": 0, "size": 65536}),
        );
    }
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(
            &format!("/process/capabilities/{set}"),
            json!(carrack_spec::capability::NAMES.to_vec()),
        );
    }
    bundle.shell(
        "echo started; while [ ! -e /stop ]; do
            for p in /proc/[0-9]*; do [ $p = /proc/1 ] || ls -l $p/fd; done
         done 2>/dev/null",
    );
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let container = runtime.container(&bundle);
    let mut attacker = container
        .bundle_command("run", &[])
        .stdout(out)
        .spawn()
        .unwrap();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("start of the attacker", || text().contains("started"));
    for _ in 0..60 {
        container.exec(&["true"]).ok();
    }
    std::fs::write(bundle.rootfs().join("stop"), "").unwrap();
    attacker.wait().unwrap();
    let seen: Vec<String> = text()
        .lines()
        .filter(|line| line.contains("cgroup") || line.contains("tasks") || line.contains("pidfd"))
        .map(str::to_owned)
        .collect();
    assert!(seen.is_empty(), "{seen:?}");
}
