//! `run` and `exec` in the foreground: exit codes, signals, terminals, descriptors.

mod common;

use carrack_testkit::{Bundle, ConsoleSocket, Terminal, require, wait_for, wait_until};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn the_exit_code_is_that_of_the_program() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 9", 137)] {
        // As init of a PID namespace the shell would not get its own signal.
        bundle.without_namespace("pid").shell(script);
        let container = runtime.container(&bundle);
        container.run().code_is(code);
        container.assert_nothing_left();
    }
}

#[test]
fn standard_streams_reach_the_program() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.shell("cat; echo done >&2");
    let container = runtime.container(&bundle);
    let mut command = container.bundle_command("run", &[]);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"typed\n").unwrap();
    drop(writer);
    command.stdin(reader);
    let output = carrack_testkit::runtime::finish(&mut command).ok();
    assert_eq!(output.stdout, "typed\n");
    assert_eq!(output.stderr, "done\n");
}

/// A closed stream must not become one of the runtime's own files, and then the container's.
#[test]
fn closed_standard_streams_are_the_null_device() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.shell("for n in 0 1 2; do readlink /proc/self/fd/$n; done > /seen");
    let container = runtime.container(&bundle);
    let command = container.bundle_command("run", &[]);
    let mut closed = std::process::Command::new("sh");
    closed.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]);
    closed.arg(command.get_program()).args(command.get_args());
    carrack_testkit::runtime::finish(&mut closed).ok();
    let seen = std::fs::read_to_string(bundle.rootfs().join("seen")).unwrap();
    // The second is the redirection of the loop.
    assert_eq!(seen, "/dev/null\n/seen\n/dev/null\n");
}

/// A reader of standard output that is gone is an error, not a signal that ends the runtime.
#[test]
fn a_reader_that_is_gone_is_an_error() {
    let runtime = require!(common::runtime());
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let mut command = runtime.command(["features"]);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn signals_are_forwarded_to_the_program() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.shell("trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done");
    let container = runtime.container(&bundle);
    let mut command = container.bundle_command("run", &[]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    read_until(&mut out, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    read_until(&mut out, "got it\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    container.assert_nothing_left();
}

fn read_until(from: &mut impl Read, text: &str) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "{text:?} not in {seen:?}");
        seen.push(byte[0]);
    }
}

#[test]
fn a_terminal_is_connected_resized_and_given_back() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle
        .shell("tty; stty size; echo ready; read word; echo got $word; stty size; exit 5")
        .set("/process/terminal", json!(true));
    let container = runtime.container(&bundle);
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(33, 101);
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let mut child = spawn_on(container.bundle_command("run", &[]), &slave);
    terminal.expect("/dev/pts/0");
    terminal.expect("33 101");
    terminal.expect("ready");
    terminal.resize(44, 99);
    // The kernel tells only the session that owns the terminal, which this one has not.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    terminal.type_text("this\r");
    terminal.expect("got this");
    terminal.expect("44 99");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let after = rustix::termios::tcgetattr(&slave).unwrap();
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.output_modes, after.output_modes);
    container.assert_nothing_left();
}

#[test]
fn output_through_a_terminal_has_the_line_ends_of_the_program() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    // Printed at once: the terminal must be right before the program is there.
    bundle
        .args(["echo", "one\ntwo"])
        .set("/process/terminal", json!(true));
    for _ in 0..10 {
        let container = runtime.container(&bundle);
        let (_terminal, slave) = Terminal::open();
        let mut command = container.bundle_command("run", &[]);
        command.stdin(slave).stderr(Stdio::inherit());
        let output = command.stdout(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
    }
}

/// Starts the command with this terminal as its standard streams.
fn spawn_on(mut command: std::process::Command, slave: &OwnedFd) -> std::process::Child {
    let stream = || Stdio::from(slave.try_clone().unwrap());
    command.stdin(stream()).stdout(stream()).stderr(stream());
    command.spawn().unwrap()
}

#[test]
fn an_exec_gets_a_terminal_of_its_own() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(20, 70);
    let command = runtime.command([
        "exec",
        "-t",
        container.id(),
        "sh",
        "-c",
        "tty; stty size; exit 9",
    ]);
    let mut child = spawn_on(command, &slave);
    terminal.expect("/dev/pts/0");
    terminal.expect("20 70");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_terminal_without_anybody_is_refused() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.set("/process/terminal", json!(true));
    let container = runtime.container(&bundle);
    container.create().fails_with("console socket");
    container.assert_nothing_left();
    let console = ConsoleSocket::new();
    let socket = console.path().display().to_string();
    container
        .run_with(&["--console-socket", &socket])
        .fails_with("console socket");
    container.assert_nothing_left();
}

#[test]
fn the_pid_file_names_the_process() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["sleep", "100"]);
    let container = runtime.container(&bundle);
    let file = bundle.path().join("pid");
    let path = file.display().to_string();
    container.run_with(&["--detach", "--pid-file", &path]).ok();
    let read = || std::fs::read_to_string(&file).unwrap();
    assert_eq!(read(), container.pid().to_string());
    container
        .call("exec", &["--detach", "--pid-file", &path], &["sleep", "50"])
        .ok();
    let pid: i32 = read().parse().unwrap();
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(cmdline, "sleep\x0050\0");
}

#[test]
fn descriptors_are_passed_on_only_when_asked() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    let dir = carrack_testkit::TempDir::new();
    let path = dir.path().join("file");
    std::fs::write(&path, "through\n").unwrap();
    bundle.shell("ls /proc/self/fd | wc -l; cat <&3");
    let container = runtime.container(&bundle);
    let run = |flags: &[&str]| {
        let mut command = container.bundle_command("run", flags);
        // Descriptor 3 of the shell's child is the file.
        let mut shell = std::process::Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("exec 3<{}; exec \"$@\"", path.display()))
            .arg("sh");
        shell.arg(command.get_program()).args(command.get_args());
        shell.stdin(Stdio::null());
        command = shell;
        carrack_testkit::runtime::finish(&mut command)
    };
    run(&["--preserve-fds", "1"]).ok().stdout_has("through");
    let without = run(&[]);
    assert!(!without.stdout.contains("through"), "{without}");
    assert_ne!(without.code(), 0, "{without}");
}

#[test]
fn sockets_of_the_service_manager_are_passed_on() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.shell("echo $LISTEN_FDS $LISTEN_PID; readlink /proc/self/fd/3 | cut -c1-5");
    let container = runtime.container(&bundle);
    let command = container.bundle_command("run", &[]);
    let mut shell = std::process::Command::new("sh");
    shell.args([
        "-c",
        "exec 3</dev/zero; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
        "sh",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null());
    carrack_testkit::runtime::finish(&mut shell)
        .ok()
        .stdout_is("1 1\n/dev/\n");
}

#[test]
fn keep_leaves_a_stopped_container() {
    if common::other_runtime() {
        return;
    }
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    bundle.args(["true"]);
    let container = runtime.container(&bundle);
    container.run_with(&["--keep"]).ok();
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.pid(), 0);
    container.delete(false).ok();
    container.assert_nothing_left();
}

#[test]
fn readiness_reaches_the_service_manager() {
    let runtime = require!(common::runtime());
    let mut bundle = require!(Bundle::busybox());
    let dir = carrack_testkit::TempDir::new();
    let path = dir.path().join("manager");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // busybox' nc speaks no datagram sockets: the test is the program's voice.
    bundle.shell("echo $NOTIFY_SOCKET; ls /run/notify; exec sleep 100");
    let container = runtime.container(&bundle);
    let mut command = container.bundle_command("run", &["--detach"]);
    command.env("NOTIFY_SOCKET", &path);
    let out = File::create(dir.path().join("out")).unwrap();
    let mut child = command.stdout(out).spawn().unwrap();
    let socket = find_socket(runtime.root());
    let read = || std::fs::read_to_string(dir.path().join("out")).unwrap_or_default();
    wait_until("output of the program", || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended early: {}",
            read()
        );
        read().lines().count() >= 2
    });
    let program = std::os::unix::net::UnixDatagram::unbound().unwrap();
    program.send_to(b"READY=1", socket).unwrap();
    let mut bytes = [0; 100];
    let mut hear = || {
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), format!("MAINPID={}", container.pid()));
    assert_eq!(hear(), "BARRIER=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(read(), "/run/notify/notify.sock\nnotify.sock\n");
    container.delete(true).ok();
    container.assert_nothing_left();
}

/// The runtime's end of the notify socket.
fn find_socket(root: &std::path::Path) -> std::path::PathBuf {
    wait_for("notify socket", || {
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_name() == "notify.sock" {
                    true => return Some(entry.path()),
                    false => directories.push(entry.path()),
                }
            }
        }
        None
    })
}
