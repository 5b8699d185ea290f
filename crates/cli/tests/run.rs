//! `carrack run` on the real kernel, as root: what the command sees, what its caller gets, and that
//! nothing is left.

mod world;

use carrack_testkit::{Terminal, require};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};
use world::{World, name};

/// A command that ends on SIGTERM with code 7 and says `ready` before it waits.
const WAITS: &str = "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn the_exit_code_is_that_of_the_command() {
    let world = require!(World::new());
    let name = name();
    let flags = ["--name", &name];
    world.run(&flags, &[]).ok().stdout_is("default\n");
    world.run(&flags, &["sh", "-c", "exit 42"]).code_is(42);
    world
        .run(&flags, &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
        .code_is(137);
    world
        .run(&flags, &["no-such-program"])
        .code_is(127)
        .fails_with("exec: \"no-such-program\": executable file not found in $PATH\n");
    world
        .run(&flags, &["/etc/passwd"])
        .code_is(126)
        .fails_with("/etc/passwd");
    world
        .run(&["--user", "nobody"], &["true"])
        .code_is(125)
        .fails_with("nobody");
    world
        .carrack(&["run", "no-such-image", "true"])
        .code_is(125)
        .fails_with("no-such-image");
    world
        .carrack(&["run", "--no-such-flag", "busybox:test"])
        .code_is(125)
        .fails_with("--no-such-flag");
    world.assert_nothing_left(&name);
}

#[test]
fn the_image_is_seen_with_its_whiteouts_and_writes_stay_in_the_container() {
    let world = require!(World::new());
    let name = name();
    let script =
        "ls /etc; echo new > /etc/new; mkdir -p /a/b && echo more > /a/b/c && cat /etc/new /a/b/c";
    let seen = world
        .run(&["--name", &name], &["sh", "-c", script])
        .ok()
        .stdout;
    assert!(
        !seen.contains("hidden") && seen.contains("passwd") && seen.ends_with("new\nmore\n"),
        "{seen}"
    );
    world
        .run(&["--name", &name], &["sh", "-c", "test ! -e /etc/new"])
        .ok();
    world
        .run(
            &["--name", &name, "--read-only", "--tmpfs", "/t"],
            &["sh", "-c", "touch /t/x && ! touch /x"],
        )
        .ok();
    world.assert_nothing_left(&name);
}

#[test]
fn standard_input_is_passed_with_i_only() {
    let world = require!(World::new());
    for (flags, expected) in [(&["-i"][..], "line one\nline two\n"), (&[], "")] {
        let args = [&["run", "--rm"], flags, &["busybox:test", "cat"]].concat();
        let mut child = world
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Without -i nobody reads, and the pipe may be closed already.
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(b"line one\nline two\n");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn bytes_pass_unchanged_and_streams_stay_apart() {
    let world = require!(World::new());
    let bytes: Vec<u8> = (0..1_000_000_u32)
        .map(|n| (n * 7 + n / 251) as u8)
        .collect();
    std::fs::write(world.path("in"), &bytes).unwrap();
    let file = |n: &str| {
        std::fs::File::options()
            .create(true)
            .write(true)
            .read(true)
            .truncate(false)
            .open(world.path(n))
            .unwrap()
    };
    let status = world
        .command(&[
            "run",
            "--rm",
            "-i",
            "busybox:test",
            "sh",
            "-c",
            "cat; echo oops >&2",
        ])
        .stdin(file("in"))
        .stdout(file("out"))
        .stderr(file("err"))
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read(world.path("out")).unwrap(), bytes);
    assert_eq!(
        std::fs::read_to_string(world.path("err")).unwrap(),
        "oops\n"
    );
}

#[test]
fn user_groups_working_directory_and_environment() {
    let world = require!(World::new());
    world
        .run(&["-u", "app"], &["id"])
        .ok()
        .stdout_is("uid=1000(app) gid=1001(app) groups=1002(extra)\n");
    world
        .run(&["-u", "5:6", "--group-add", "extra"], &["id"])
        .ok()
        .stdout_is("uid=5 gid=6 groups=1002(extra)\n");
    world
        .run(&["-w", "/made/for/it"], &["pwd"])
        .ok()
        .stdout_is("/made/for/it\n");
    let script = "echo $OF_IMAGE $X $HOME $HOSTNAME; hostname";
    world
        .run(
            &[
                "-e",
                "X=1",
                "-e",
                "OF_IMAGE=no",
                "-u",
                "app",
                "--hostname",
                "box",
            ],
            &["sh", "-c", script],
        )
        .ok()
        .stdout_is("no 1 /home/app box\nbox\n");
    std::fs::write(world.path("env"), "# comment\nFROM_FILE=a b\n").unwrap();
    let file = world.path("env");
    world
        .run(
            &["--env-file", file.to_str().unwrap()],
            &["sh", "-c", "echo $FROM_FILE"],
        )
        .ok()
        .stdout_is("a b\n");
    world
        .run(&["--entrypoint", "/bin/echo"], &["a", "-b"])
        .ok()
        .stdout_is("a -b\n");
}

#[test]
fn volumes_show_host_paths() {
    let world = require!(World::new());
    let host = world.path("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "of the host\n").unwrap();
    let volume = |options: &str| format!("{}:/mnt{options}", host.display());
    world
        .run(
            &["-v", &volume("")],
            &["sh", "-c", "cat /mnt/file; echo back > /mnt/sub/new"],
        )
        .ok()
        .stdout_is("of the host\n");
    assert_eq!(
        std::fs::read_to_string(host.join("sub/new")).unwrap(),
        "back\n"
    );
    world
        .run(&["-v", &volume(":ro,z")], &["sh", "-c", "! touch /mnt/x"])
        .ok();
    let file = format!("{}:/etc/passwd:ro", host.join("file").display());
    world
        .run(&["-v", &file], &["cat", "/etc/passwd"])
        .ok()
        .stdout_is("of the host\n");
    world
        .run(&["-v", "/no/such/path:/mnt"], &["true"])
        .code_is(125)
        .fails_with("/no/such/path");
}

#[test]
fn a_container_is_confined() {
    let world = require!(World::new());
    let refused = [
        "mount -t tmpfs none /tmp",
        "unshare -m true",
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sysrq-trigger",
        "touch /sys/x",
        "head -c 1 /proc/kcore | grep -q .",
        "kill -0 2",
        "hostname other",
    ];
    for script in refused {
        let output = world.run(&[], &["sh", "-c", script]);
        assert_ne!(output.code(), 0, "{script}: {output}");
    }
    let alone = "test $(ls -d /proc/[0-9]* | wc -l) -lt 6 && test $(ip -o link | wc -l) -eq 1";
    world.run(&[], &["sh", "-c", alone]).ok();
    let flags = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "chown",
        "--security-opt",
        "no-new-privileges",
    ];
    world
        .run(
            &flags,
            &["grep", "-E", "CapEff|NoNewPrivs", "/proc/1/status"],
        )
        .ok()
        .stdout_is("CapEff:\t0000000000000001\nNoNewPrivs:\t1\n");
    world
        .run(
            &["--security-opt", "seccomp=unconfined"],
            &["grep", "Seccomp:", "/proc/1/status"],
        )
        .ok()
        .stdout_is("Seccomp:\t0\n");
}

#[test]
fn limits_are_in_force() {
    let world = require!(World::new());
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    world
        .run(&["-m", "64m"], &["sh", "-c", script])
        .ok()
        .stdout_is("67108864\n");
    let script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
    world
        .run(&["--pids-limit", "33"], &["sh", "-c", script])
        .ok()
        .stdout_is("33\n");
    world
        .run(
            &["--ulimit", "nofile=100:200"],
            &["sh", "-c", "ulimit -n; ulimit -Hn"],
        )
        .ok()
        .stdout_is("100\n200\n");
    let eats = "exec dd if=/dev/zero of=/dev/null bs=100M count=1";
    world.run(&["-m", "32m"], &["sh", "-c", eats]).code_is(137);
}

#[test]
fn a_terminal_is_interactive_follows_the_window_and_is_restored() {
    let world = require!(World::new());
    let name = name();
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(31, 97);
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let copy = || Stdio::from(slave.try_clone().unwrap());
    let mut child = world
        .command(&["run", "--rm", "-it", "--name", &name, "busybox:test", "sh"])
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap();
    terminal.type_text("tty; stty size; echo $((40 + 2))\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("31 97");
    terminal.expect("42");
    let raw = rustix::termios::tcgetattr(&slave).unwrap();
    assert!(
        !raw.local_modes
            .contains(rustix::termios::LocalModes::ICANON),
        "raw while it runs"
    );
    terminal.resize(20, 50);
    // The test is no session leader of the terminal, so the kernel tells nobody.
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::WINCH,
    )
    .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        terminal.type_text("echo s=$(stty size)=\n");
        terminal.expect("\ns=");
        if terminal.expect("=").contains("20 50") {
            break;
        }
        assert!(Instant::now() < until, "the size never came");
    }
    // Control-C goes to the program in front, not to us.
    terminal.type_text("sleep 100\n");
    terminal.expect("sleep 100");
    std::thread::sleep(Duration::from_millis(200));
    terminal.type_text("\x03echo after=$?=\n");
    terminal.expect("after=130=");
    terminal.type_text("exit 5\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let after = rustix::termios::tcgetattr(&slave).unwrap();
    assert_eq!(
        format!("{:?}", after.local_modes),
        format!("{:?}", before.local_modes)
    );
    assert_eq!(
        format!("{:?}", after.output_modes),
        format!("{:?}", before.output_modes)
    );
    world.assert_nothing_left(&name);
}

#[test]
fn without_t_the_container_cannot_reach_the_terminal() {
    let world = require!(World::new());
    let (mut terminal, slave) = Terminal::open();
    let copy = || Stdio::from(slave.try_clone().unwrap());
    let script = "tty; test -t 1 || echo none; cat";
    let mut child = world
        .command(&["run", "--rm", "-i", "busybox:test", "sh", "-c", script])
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap();
    terminal.expect("not a tty");
    terminal.expect("none");
    terminal.type_text("typed\n\x04");
    terminal.expect("typed");
    terminal.expect("typed");
    assert!(child.wait().unwrap().success());
    world
        .run(&["-it"], &["true"])
        .code_is(125)
        .fails_with("not a terminal");
}

/// Starts `WAITS` and returns when it runs.
fn waiting(
    world: &World,
    flags: &[&str],
) -> (
    std::process::Child,
    std::io::BufReader<std::process::ChildStdout>,
) {
    let args = [&["run"], flags, &["busybox:test", "sh", "-c", WAITS]].concat();
    let mut child = world.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

#[test]
fn signals_reach_the_command() {
    let world = require!(World::new());
    let name = name();
    let (mut child, output) = waiting(&world, &["--rm", "--name", &name]);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(std::io::read_to_string(output).unwrap(), "term\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    world.assert_nothing_left(&name);
}

#[test]
fn a_killed_command_line_takes_its_container_with_it() {
    let world = require!(World::new());
    let name = name();
    let (mut child, output) = waiting(&world, &["--rm", "--name", &name]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        std::io::read_to_string(output).unwrap(),
        "term\n",
        "asked to end, not killed"
    );
    world.assert_nothing_left(&name);
}

#[test]
fn a_killed_monitor_is_noticed_and_its_container_removed() {
    let world = require!(World::new());
    let name = name();
    let (mut child, _output) = waiting(&world, &["--rm", "--name", &name]);
    let tasks = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(tasks).unwrap();
    let monitor: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(monitor).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    world.assert_nothing_left(&name);
}

#[test]
fn a_container_that_stays_is_listed_protects_its_image_and_can_be_removed() {
    let world = require!(World::new());
    let name = name();
    world
        .carrack(&[
            "run",
            "--name",
            &name,
            "busybox:test",
            "sh",
            "-c",
            "echo kept > /file; exit 3",
        ])
        .code_is(3);
    world
        .carrack(&["ps"])
        .ok()
        .stdout_is("CONTAINER   IMAGE   COMMAND   CREATED   STATUS\n");
    world
        .carrack(&["ps", "-a"])
        .ok()
        .stdout_has(&name)
        .stdout_has("exited (3)");
    world
        .carrack(&["run", "--name", &name, "busybox:test"])
        .code_is(125)
        .fails_with("in use");
    world
        .carrack(&["rmi", "busybox:test"])
        .code_is(1)
        .fails_with(&name);
    world.carrack(&["rm", &name]).ok();
    world.assert_nothing_left(&name);

    let (mut child, _output) = waiting(&world, &["--name", &name]);
    world
        .carrack(&["ps"])
        .ok()
        .stdout_has(&name)
        .stdout_has("running");
    world
        .carrack(&["rm", &name])
        .code_is(1)
        .fails_with("running");
    world.carrack(&["rm", "-f", &name]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    world.carrack(&["rmi", "busybox:test"]).ok();
    world.carrack(&["images", "-q"]).ok().stdout_is("");
    world.assert_nothing_left(&name);
    assert!(
        std::fs::read_dir(world.path("root/layers"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn containers_run_side_by_side() {
    let world = require!(World::new());
    let world = &world;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn(move || {
                    world
                        .run(&[], &["sh", "-c", &format!("echo {n} > /x; cat /x")])
                        .ok()
                        .stdout
                })
            })
            .collect();
        for (n, one) in all.into_iter().enumerate() {
            assert_eq!(one.join().unwrap(), format!("{n}\n"));
        }
    });
    world.assert_nothing_left("carrack-none");
}
