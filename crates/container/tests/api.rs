//! The typed interface on the real kernel: containers without a `config.json`.

mod common;

use carrack_container::spec::runtime::{Hook, NamespaceKind, Status};
use carrack_container::{
    Command, ContainerBuilder, Error, Exit, HookStage, Limits, Network, OomEvent, Resource,
    Runtime, RuntimeOptions, Stdio, Threshold,
};
use carrack_testkit::{Bundle, Skip, TempDir, Terminal, leaks, require, skip, unique};
use common::chain;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// A root file system and a state root.
struct Place {
    bundle: Bundle,
    state: TempDir,
    runtime: Runtime,
}

impl Place {
    fn new() -> Result<Place, Skip> {
        skip::root()?;
        let state = TempDir::new();
        Ok(Place {
            bundle: Bundle::busybox()?,
            runtime: Runtime::new(state.path().join("state"), RuntimeOptions::default()),
            state,
        })
    }

    fn root(&self) -> PathBuf {
        self.bundle.rootfs()
    }

    /// A shell script whose output is piped.
    fn shell(&self, script: &str) -> ContainerBuilder {
        ContainerBuilder::new(self.root())
            .command(["sh", "-c", script])
            .stdin(Stdio::Null)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Piped)
    }

    /// Runs it to its end; what it printed.
    fn output(&self, builder: ContainerBuilder) -> String {
        let id = unique();
        let mut running = builder
            .spawn(&self.runtime, &id)
            .unwrap_or_else(|e| panic!("{}", chain(&e)))
            .delete_on_drop();
        let output = running.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.exit, Exit::Code(0), "{text}{errors}");
        drop(running);
        self.assert_nothing_left(&id);
        text
    }

    fn assert_nothing_left(&self, id: &str) {
        let left = leaks::of(id, self.bundle.path());
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.state.path().join("state").join(id).exists());
    }
}

#[test]
fn a_container_is_a_few_lines() {
    let place = require!(Place::new());
    let builder = place
        .shell("hostname; id -u; pwd; echo $GREETING; echo $$; ls /sys/class/net")
        .hostname("builder")
        .env("GREETING", "hello")
        .current_dir("/made/here");
    assert_eq!(
        place.output(builder),
        "builder\n0\n/made/here\nhello\n1\nlo\n"
    );
}

#[test]
fn root_has_the_usual_capabilities_and_gains_no_more() {
    let place = require!(Place::new());
    let text = place.output(place.shell("grep -E 'Cap|NoNewPrivs' /proc/self/status"));
    assert_eq!(common::status_line(&text, "CapEff"), "00000000a80425fb");
    assert_eq!(common::status_line(&text, "CapBnd"), "00000000a80425fb");
    assert_eq!(common::status_line(&text, "NoNewPrivs"), "1");
}

#[test]
fn a_user_keeps_an_added_capability() {
    let place = require!(Place::new());
    let builder = place
        .shell("id -u; id -g; id -G; umask; grep CapEff /proc/self/status")
        .user(1000, 1001)
        .groups([7, 8])
        .umask(0o077)
        .add_capability("net_bind_service");
    let text = place.output(builder);
    assert_eq!(
        text,
        "1000\n1001\n1001 7 8\n0077\nCapEff:\t0000000000000400\n"
    );
}

#[test]
fn mounts_are_where_they_were_asked_for() {
    let place = require!(Place::new());
    let shared = place.state.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from the host\n").unwrap();
    let script = "cat /ro/file; touch /ro/x 2>&1; echo back > /rw/answer; \
                  touch /x 2>&1; touch /scratch/x; df -k /scratch | tail -1 | awk '{print $2}'";
    let builder = place
        .shell(script)
        .read_only()
        .bind_read_only(&shared, "/ro")
        .bind(&shared, "/rw")
        .tmpfs("/scratch", "2MiB");
    // A read-only root can't get new directories, so they have to be there.
    let text = place.output(builder);
    assert!(text.starts_with("from the host\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.ends_with("2048\n"), "{text}");
    assert_eq!(
        std::fs::read_to_string(shared.join("answer")).unwrap(),
        "back\n"
    );
}

#[test]
fn limits_hold_and_can_be_changed() {
    let place = require!(Place::new());
    let id = unique();
    let mut running = place
        .shell("exec sleep 100")
        .memory_limit("32MiB")
        .pids_limit(20)
        .cpu_quota(0.5)
        .spawn(&place.runtime, &id)
        .unwrap()
        .delete_on_drop();
    let stats = running.statistics().unwrap();
    assert_eq!(stats.memory.memory.limit, Some(32 << 20));
    assert_eq!(stats.pids.current, 1);
    running.limit(&Limits::new().memory_limit("48MiB")).unwrap();
    let stats = running.statistics().unwrap();
    assert_eq!(stats.memory.memory.limit, Some(48 << 20));
    assert_eq!(stats.pids.limit, Some(20));
    assert_eq!(running.processes().unwrap(), [running.pid()]);
    running.pause().unwrap();
    assert_eq!(running.status().unwrap(), Status::Paused);
    running.resume().unwrap();
    assert_eq!(running.status().unwrap(), Status::Running);
    assert_eq!(running.try_wait().unwrap(), None);
    let exit = running.stop(Duration::from_millis(100)).unwrap();
    assert_eq!(
        exit,
        Exit::Signal(9),
        "process 1 without a handler ignores SIGTERM"
    );
    assert_eq!(running.status().unwrap(), Status::Stopped);
    running.delete().unwrap();
    place.assert_nothing_left(&id);
}

#[test]
fn running_out_of_memory_is_told() {
    let place = require!(Place::new());
    let id = unique();
    let mut running = place
        .shell("read go; a=x; while :; do a=$a$a; done")
        .memory_limit("24MiB")
        .stdin(Stdio::Piped)
        .spawn(&place.runtime, &id)
        .unwrap()
        .delete_on_drop();
    let mut watch = running.watch_oom().unwrap();
    running.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let event = watch.wait(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(event, Some(OomEvent::Killed(_))), "{event:?}");
    assert_eq!(running.wait().unwrap(), Exit::Signal(9));
}

#[test]
fn pressure_is_told() {
    let place = require!(Place::new());
    require!(skip::exists("/proc/pressure/cpu"));
    require!(skip::some_unified_cgroups());
    let script = "for i in 1 2 3 4 5 6; do (while :; do :; done) & done; wait";
    let running = place
        .shell(script)
        .cpu_quota(0.2)
        .spawn(&place.runtime, &unique())
        .unwrap()
        .delete_on_drop();
    let threshold = Threshold {
        all_tasks: false,
        stall: Duration::from_millis(100),
        window: Duration::from_secs(2),
    };
    let mut watch = running.watch_pressure(Resource::Cpu, threshold).unwrap();
    assert!(watch.wait(Some(Duration::from_secs(20))).unwrap());
}

#[test]
fn processes_join_with_streams_users_and_exit_codes() {
    let place = require!(Place::new());
    let running = place
        .shell("exec sleep 100")
        .env("FIRST", "1")
        .hostname("joined")
        .spawn(&place.runtime, &unique())
        .unwrap()
        .delete_on_drop();
    let command = Command::new([
        "sh",
        "-c",
        "cat; echo $FIRST $SECOND; hostname; id -u >&2; exit 7",
    ])
    .env("SECOND", "2")
    .user(1000, 1000)
    .stdin(Stdio::Piped)
    .stdout(Stdio::Piped)
    .stderr(Stdio::Piped);
    let mut child = running.exec(command).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.exit, Exit::Code(7));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "typed\n1 2\njoined\n"
    );
    assert_eq!(output.stderr, b"1000\n");
    assert_eq!(child.try_wait().unwrap(), Some(Exit::Code(7)), "told again");

    let mut sleeper = running.exec(Command::new(["sleep", "100"])).unwrap();
    assert_eq!(
        sleeper.wait_timeout(Duration::from_millis(10)).unwrap(),
        None
    );
    sleeper.kill(15).unwrap();
    assert_eq!(sleeper.wait().unwrap(), Exit::Signal(15));
    sleeper.kill(15).unwrap();
}

#[test]
fn nested_groups_have_limits_of_their_own() {
    let place = require!(Place::new());
    if skip::unified_cgroups().is_ok() {
        carrack_testkit::skip!("pure v2 allows no limits below a group with processes");
    }
    let running = place
        .shell("exec sleep 100")
        .spawn(&place.runtime, &unique())
        .unwrap()
        .delete_on_drop();
    let group = running.group("workers").unwrap();
    group.limit(&Limits::new().pids_max(3)).unwrap();
    let script = "read go; sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1";
    let command = Command::new(["sh", "-c", script])
        .group("workers")
        .stdin(Stdio::Piped)
        .stderr(Stdio::Piped);
    let mut child = running.exec(command).unwrap();
    assert!(group.pids(false).unwrap().contains(&child.pid()));
    let output = child.wait_with_output().unwrap();
    assert_ne!(output.exit, Exit::Code(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fork"));
}

#[test]
fn a_created_container_waits_for_start() {
    let place = require!(Place::new());
    let id = unique();
    let mut running = place
        .shell("echo started")
        .create(&place.runtime, &id)
        .unwrap()
        .delete_on_drop();
    assert_eq!(running.status().unwrap(), Status::Created);
    assert_eq!(
        running.wait_timeout(Duration::from_millis(20)).unwrap(),
        None
    );
    running.start().unwrap();
    assert!(matches!(running.start(), Err(Error::WrongStatus { .. })));
    assert_eq!(running.wait_with_output().unwrap().stdout, b"started\n");
    drop(running);
    place.assert_nothing_left(&id);
}

#[test]
fn a_terminal_has_its_size_and_ends_with_the_program() {
    let place = require!(Place::new());
    let mut running = ContainerBuilder::new(place.root())
        .command(["sh", "-c", "tty; stty size; read answer; echo got $answer"])
        .terminal(30, 100)
        .spawn(&place.runtime, &unique())
        .unwrap()
        .delete_on_drop();
    let mut terminal = Terminal::of(running.terminal.take().unwrap());
    terminal.expect("/dev/pts/0");
    terminal.expect("30 100");
    terminal.type_text("typed\n");
    terminal.expect("got typed");
    assert_eq!(running.wait().unwrap(), Exit::Code(0));
}

#[test]
fn namespaces_can_be_shared_and_joined() {
    let place = require!(Place::new());
    let net = std::fs::read_link("/proc/self/ns/net").unwrap();
    let text = place.output(
        place
            .shell("for k in net uts; do readlink /proc/self/ns/$k; done")
            .network(Network::Host)
            .share(NamespaceKind::Uts),
    );
    let uts = std::fs::read_link("/proc/self/ns/uts").unwrap();
    assert_eq!(text, format!("{}\n{}\n", net.display(), uts.display()));

    let first = place
        .shell("exec sleep 100")
        .spawn(&place.runtime, &unique())
        .unwrap()
        .delete_on_drop();
    let of = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    let text = place.output(
        place
            .shell("for k in net ipc pid; do readlink /proc/self/ns/$k; done; ps | grep -c sleep")
            .network(Network::Join(of("net").into()))
            .join(NamespaceKind::Ipc, of("ipc"))
            .join(NamespaceKind::Pid, of("pid")),
    );
    for kind in ["net", "ipc", "pid"] {
        let link = std::fs::read_link(of(kind)).unwrap();
        assert!(text.contains(&*link.to_string_lossy()), "{kind}: {text}");
    }
}

#[test]
fn a_user_namespace_maps_root_to_somebody() {
    let place = require!(Place::new());
    place.bundle.chown(200_000, 200_000);
    let id = unique();
    let mut running = place
        .shell("id -u; cat /proc/self/uid_map | awk '{print $2}'; touch /new; exec sleep 100")
        .map_ids(0, 200_000, 65_536)
        .stdout(Stdio::Piped)
        .spawn(&place.runtime, &id)
        .unwrap_or_else(|e| panic!("{}", chain(&e)))
        .delete_on_drop();
    let mut text = [0; 9];
    running
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut text)
        .unwrap();
    assert_eq!(&text, b"0\n200000\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    assert!(
        common::status_line(&status, "Uid").starts_with("200000"),
        "{status}"
    );
    running.kill(9).unwrap();
    assert_eq!(running.wait().unwrap(), Exit::Signal(9));
}

#[test]
fn time_sysctls_and_seccomp_are_a_word_each() {
    let place = require!(Place::new());
    require!(skip::exists("/proc/self/ns/time"));
    let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW",
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let builder = place
        .shell("cut -d. -f1 /proc/uptime; cat /proc/sys/net/ipv4/ip_forward; mkdir /x 2>&1; :")
        .time_offset("boottime", 1_000_000)
        .sysctl("net.ipv4.ip_forward", "1")
        .seccomp_json(deny);
    let text = place.output(builder);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].parse::<u64>().unwrap() >= 1_000_000, "{text}");
    assert_eq!(lines[1], "1");
    assert!(lines[2].contains("Operation not supported"), "{text}");
}

#[test]
fn hooks_run_and_a_failing_one_leaves_nothing() {
    let place = require!(Place::new());
    let id = unique();
    let hook = Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", "echo no luck; exit 3"]
            .map(str::to_owned)
            .into(),
        ..Hook::default()
    };
    let result = place
        .shell("true")
        .hook(HookStage::CreateRuntime, hook)
        .spawn(&place.runtime, &id);
    let error = chain(&result.expect_err("the hook fails"));
    assert!(error.contains("no luck"), "{error}");
    place.assert_nothing_left(&id);
}

#[test]
fn mistakes_are_told_before_anything_is_made() {
    let place = require!(Place::new());
    for (builder, id, expected) in [
        (
            place.shell("true").memory_limit("many"),
            "a",
            "memory_limit",
        ),
        (place.shell("true"), "../a", "invalid container ID"),
        (
            ContainerBuilder::new("/no/such").command(["true"]),
            "a",
            "/no/such",
        ),
        (
            ContainerBuilder::new(place.root()).command(["no-such-program"]),
            "a",
            "no-such-program",
        ),
    ] {
        let error = builder.spawn(&place.runtime, id).expect_err("a mistake");
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
    }
    assert!(place.runtime.list().unwrap().is_empty());
}

#[test]
fn a_container_outlives_its_handle_and_is_found_again() {
    let place = require!(Place::new());
    let id = unique();
    drop(
        place
            .shell("exec sleep 100")
            .spawn(&place.runtime, &id)
            .unwrap(),
    );
    let container = place.runtime.load(&id.parse().unwrap()).unwrap();
    assert_eq!(container.status().unwrap(), Status::Running);
    let mut child = container.spawn(Command::new(["true"])).unwrap();
    assert_eq!(child.wait().unwrap(), Exit::Code(0));
    container.delete(true).unwrap();
    place.assert_nothing_left(&id);
}

#[test]
fn threads_make_containers_at_once_beside_waiting_ones() {
    let place = require!(Place::new());
    // Containers that wait for start must not hold on to what their makers have open, or the
    // pipes of the others would never end.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for round in 0..3 {
                    let waiting = place
                        .shell("echo late")
                        .create(&place.runtime, &unique())
                        .unwrap()
                        .delete_on_drop();
                    let text = place.output(place.shell(&format!("echo {thread} {round}")));
                    assert_eq!(text, format!("{thread} {round}\n"));
                    let fds = std::fs::read_dir(format!("/proc/{}/fd", waiting.pid())).unwrap();
                    assert!(fds.count() <= 5, "streams, socket and fifo");
                }
            });
        }
    });
}
