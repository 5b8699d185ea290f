//! The process and its rights on the real kernel, seen from inside and in `/proc` of the host.

mod common;

use carrack_container::{Exit, RuntimeOptions};
use carrack_testkit::{ConsoleSocket, Terminal, require, skip};
use common::{World, chain, status_line, streams, to_caller};
use serde_json::json;
use std::io::{Read, Seek, Write};

const CAP_SYS_RESOURCE: u32 = 24;
const CAP_SYS_NICE: u32 = 23;

fn strict() -> RuntimeOptions {
    RuntimeOptions {
        strict: true,
        ..RuntimeOptions::default()
    }
}

#[test]
fn user_groups_and_umask_are_as_asked() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/process/user",
        json!({"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000], "umask": 0o027}),
    );
    world.bundle.set("/process/cwd", json!("/tmp"));
    let text = world.sh("id -u; id -g; id -G; umask; touch f; stat -c %a:%u:%g f");
    assert_eq!(text, "1000\n2000\n2000 3000 4000\n0027\n640:1000:2000\n");
}

#[test]
fn the_callers_groups_are_not_inherited_and_the_umask_is_022() {
    let mut world = require!(World::new());
    let text = world.sh("grep Groups /proc/self/status; umask");
    assert_eq!(text, "Groups:\t \n0022\n");
}

#[test]
fn the_five_capability_sets_are_exact() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_CHOWN"],
            "ambient": ["CAP_KILL"],
        }),
    );
    world
        .bundle
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    world.bundle.args(["grep", "Cap", "/proc/self/status"]);
    let text = world.run();
    let set = |name: &str| u64::from_str_radix(status_line(&text, name), 16).unwrap();
    assert_eq!(set("CapBnd"), 1 | 1 << 5 | 1 << 13 | 1 << 7);
    assert_eq!(set("CapInh"), 1 << 5 | 1 << 13);
    assert_eq!(set("CapAmb"), 1 << 5);
    // What a user without file capabilities keeps over an exec is the ambient set.
    assert_eq!((set("CapPrm"), set("CapEff")), (1 << 5, 1 << 5));
}

#[test]
fn without_capabilities_root_has_none() {
    let mut world = require!(World::new());
    world.bundle.set("/process/capabilities", json!({}));
    let text = world.sh("grep Cap /proc/self/status; chown 1 /tmp 2>&1; :");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_line(&text, name), "0000000000000000", "{name}");
    }
    assert!(text.contains("Operation not permitted"), "{text}");
}

#[test]
fn unknown_capabilities_are_dropped_or_refused() {
    for (options, fails) in [(RuntimeOptions::default(), false), (strict(), true)] {
        let mut world = require!(World::with(options));
        world
            .bundle
            .set("/process/capabilities/bounding/-", json!("CAP_TELEPORT"))
            .args(["true"]);
        match world.try_run() {
            Ok(ran) => assert!(!fails && ran.exit == Exit::Code(0)),
            Err(error) => {
                assert!(fails);
                assert!(chain(&error).contains("CAP_TELEPORT"), "{}", chain(&error));
            }
        }
    }
}

#[test]
fn new_privileges_can_be_had_or_not() {
    let mut world = require!(World::new());
    for (value, expected) in [(true, "1"), (false, "0")] {
        world.bundle.set("/process/noNewPrivileges", json!(value));
        let text = world.sh("cat /proc/self/status");
        assert_eq!(status_line(&text, "NoNewPrivs"), expected);
    }
}

#[test]
fn limits_are_set() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 2_097_152},
        ]),
    );
    let text = world.sh(
        "grep -E 'open files|core file|stack' /proc/self/limits | awk '{print $(NF-2), $(NF-1)}'",
    );
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 0", "100 200", "1048576 2097152"]);
}

#[test]
fn a_low_limit_of_open_files_does_not_hinder_many_mounts() {
    let mut world = require!(World::new());
    for index in 0..30 {
        world.bundle.push(
            "/mounts",
            json!({"destination": format!("/etc-{index}"), "source": "/etc", "options": ["rbind"]}),
        );
    }
    world.bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 15, "hard": 16}]),
    );
    assert_eq!(world.sh("ulimit -n"), "15\n");
    common::user_namespace(&mut world);
    assert_eq!(world.sh("ulimit -n; ulimit -H -n"), "15\n16\n");
}

#[test]
fn of_several_settings_of_a_variable_the_last_holds() {
    let mut world = require!(World::new());
    let env = json!(["PATH=/bin", "A=1", "B=2", "A=3"]);
    world.bundle.set("/process/env", env).args(["env"]);
    let text = world.run();
    let lines: Vec<&str> = text.lines().filter(|line| line.len() == 3).collect();
    assert_eq!(lines, ["A=3", "B=2"]);
}

#[test]
fn a_limit_that_cannot_be_raised_is_cut_or_refused() {
    if skip::capability("CAP_SYS_RESOURCE", CAP_SYS_RESOURCE).is_ok() {
        carrack_testkit::skip!("with CAP_SYS_RESOURCE every limit can be raised");
    }
    let wanted = json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 40, "hard": 1u64 << 40}]);
    let mut world = require!(World::new());
    world.bundle.set("/process/rlimits", wanted.clone());
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let text = world.sh("ulimit -Hn");
    assert_eq!(
        text.trim(),
        own.map_or("unlimited".into(), |n| n.to_string())
    );
    let mut world = require!(World::with(strict()));
    world.bundle.set("/process/rlimits", wanted).args(["true"]);
    assert!(world.error().contains("rlimits"));
}

#[test]
fn the_oom_score_is_set_or_told_about() {
    let mut world = require!(World::new());
    world.bundle.set("/process/oomScoreAdj", json!(500));
    assert_eq!(world.sh("cat /proc/self/oom_score_adj"), "500\n");
    world.bundle.set("/process/oomScoreAdj", json!(-500));
    if skip::capability("CAP_SYS_RESOURCE", CAP_SYS_RESOURCE).is_ok() {
        assert_eq!(world.sh("cat /proc/self/oom_score_adj"), "-500\n");
        return;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(
        world.sh("cat /proc/self/oom_score_adj"),
        own,
        "left as it was"
    );
    let mut world = require!(World::with(strict()));
    world
        .bundle
        .set("/process/oomScoreAdj", json!(-500))
        .args(["true"]);
    assert!(world.error().contains("oomScoreAdj"));
}

#[test]
fn the_working_directory_is_made_and_may_be_the_users_own() {
    let mut world = require!(World::new());
    world.bundle.set("/process/cwd", json!("/new/deep/place"));
    assert_eq!(world.sh("pwd"), "/new/deep/place\n");
    let private = world.bundle.rootfs().join("private");
    std::fs::create_dir(&private).unwrap();
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    world.bundle.set("/process/cwd", json!("/private"));
    world
        .bundle
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(world.sh("pwd; ls -a | wc -l"), "/private\n2\n");
    world.bundle.set("/process/cwd", json!("/bin/busybox"));
    assert!(world.error().contains("/bin/busybox"));
}

#[test]
fn a_missing_program_and_one_that_cannot_run_are_told_apart() {
    let mut world = require!(World::new());
    for (program, missing) in [
        ("no-such-program", Some(true)),
        ("/no/such", Some(true)),
        ("/etc/passwd", Some(false)),
        ("/bin", Some(false)),
    ] {
        world.bundle.args([program]);
        let error = world.try_run().err().expect(program);
        assert_eq!(
            error.program_missing(),
            missing,
            "{program}: {}",
            chain(&error)
        );
        assert!(chain(&error).contains(program), "{}", chain(&error));
    }
    world.bundle.script("/bin/lost", "#!/no/such/interpreter\n");
    world.bundle.args(["lost"]);
    let error = world.try_run().err().expect("no interpreter");
    assert_eq!(error.program_missing(), Some(true), "{}", chain(&error));
}

#[test]
fn exit_codes_and_signals_are_the_programs() {
    let mut world = require!(World::new());
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 42", Exit::Code(42)),
        ("kill -9 -1; exit 1", Exit::Code(1)),
    ] {
        world.bundle.shell(script);
        assert_eq!(world.try_run().unwrap().exit, exit);
    }
    world.bundle.args(["sleep", "100"]);
    let live = world.start();
    live.kill(9);
    assert_eq!(live.wait(), Exit::Signal(9));
    live.delete();
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    /// Set in the second run of this test, whose caller ignores signals.
    const IGNORING: &str = "CARRACK_TEST_IGNORING";
    let mut world = require!(World::new());
    if std::env::var_os(IGNORING).is_none() {
        let name = "signals_are_neither_blocked_nor_ignored";
        let script =
            "trap '' HUP INT QUIT USR1 USR2 TERM PIPE TTOU; exec \"$0\" --exact \"$1\" --nocapture";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(IGNORING, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    world.bundle.args(["cat", "/proc/self/status"]);
    let text = world.run();
    assert_eq!(status_line(&text, "SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(status_line(&text, "SigIgn"), 16).unwrap();
    // glibc keeps 32 and 33 for itself, so that nobody can set them through it.
    assert_eq!(ignored & !(3 << 31), 0, "{ignored:x}");
}

#[test]
fn home_comes_from_the_images_passwd() {
    let mut world = require!(World::new());
    world.bundle.set("/process/env", json!(["PATH=/bin"]));
    assert_eq!(world.sh("echo $HOME"), "/root\n");
    let empty = json!(["PATH=/bin", "HOME=/old", "HOME="]);
    world.bundle.set("/process/env", empty);
    assert_eq!(world.sh("echo $HOME"), "/root\n");
    std::fs::write(
        world.bundle.rootfs().join("etc/passwd"),
        "a:x:77:1::/home/a:/bin/sh\n",
    )
    .unwrap();
    world
        .bundle
        .set("/process/user", json!({"uid": 77, "gid": 1}));
    assert_eq!(world.sh("echo $HOME"), "/home/a\n");
    world
        .bundle
        .set("/process/user", json!({"uid": 78, "gid": 1}));
    assert_eq!(world.sh("echo $HOME"), "/\n");
}

#[test]
fn scheduling_and_io_priority_are_set() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/process/scheduler",
        json!({"policy": "SCHED_BATCH", "nice": 5}),
    );
    world.bundle.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
    );
    world.bundle.args(["sleep", "100"]);
    let live = world.start();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", live.pid())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(
        (fields[16], fields[38]),
        ("5", "3"),
        "nice and SCHED_BATCH: {stat}"
    );
    if let Ok(ionice) = skip::program("ionice") {
        let output = std::process::Command::new(ionice)
            .args(["-p", &live.pid().to_string()])
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("idle"),
            "{output:?}"
        );
    }
    live.delete();
    world.bundle.remove("/process/ioPriority");
    world.bundle.set(
        "/process/scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 5}),
    );
    if skip::capability("CAP_SYS_NICE", CAP_SYS_NICE).is_ok() {
        // Real time may still be closed to this cgroup; then it is an error, not silence.
        match world.try_run_with(|_| {}) {
            Ok(_) => {}
            Err(error) => assert!(chain(&error).contains("scheduler"), "{}", chain(&error)),
        }
    }
}

#[test]
fn the_execution_domain_is_set() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(world.sh("uname -m"), "i686\n");
    world
        .bundle
        .set("/linux/personality", json!({"domain": "LINUX"}));
    assert_eq!(
        world.sh("uname -m"),
        format!("{}\n", std::env::consts::ARCH)
    );
}

#[test]
fn the_memory_policy_is_set_or_refused() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    );
    world.bundle.shell("cat /proc/self/numa_maps | head -1");
    match world.try_run() {
        Ok(ran) if skip::exists("/proc/self/numa_maps").is_ok() => {
            assert!(ran.output.contains("bind"), "{}", ran.output);
        }
        Ok(_) => {}
        Err(error) => assert!(chain(&error).contains("memoryPolicy"), "{}", chain(&error)),
    }
    world
        .bundle
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_WISH"}));
    assert!(world.error().contains("memoryPolicy"));
}

#[test]
fn a_terminal_goes_to_the_caller_or_over_a_socket() {
    let mut world = require!(World::new());
    world.bundle.set("/process/terminal", json!(true));
    world
        .bundle
        .set("/process/consoleSize", json!({"height": 33, "width": 111}));
    world.bundle.shell("tty; stty size; stat -c %t:%T /dev/console; ls -l /proc/self/fd/0 > /dev/console; read x; exit 3");
    let mut live = world.made(true, to_caller);
    let mut terminal = Terminal::of(live.console());
    terminal.expect("/dev/pts/0");
    terminal.expect("33 111");
    terminal.expect("88:0");
    terminal.type_text("\n");
    assert_eq!(live.wait(), Exit::Code(3));
    live.delete();

    let socket = ConsoleSocket::new();
    let path = socket.path().to_owned();
    let live = world.made(true, |options| {
        options.console = carrack_container::Console::Socket(path);
        options.stdio = None;
    });
    let (mut terminal, _) = socket.accept();
    terminal.expect("33 111");
    terminal.type_text("\n");
    assert_eq!(live.wait(), Exit::Code(3));
    live.delete();
}

#[test]
fn a_terminal_belongs_to_the_user_and_controls_the_session() {
    let mut world = require!(World::new());
    world.bundle.set("/process/terminal", json!(true));
    world
        .bundle
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    world
        .bundle
        .shell("stat -c %u $(tty); echo hi > /dev/tty; read x");
    let mut live = world.made(true, to_caller);
    let mut terminal = Terminal::of(live.console());
    terminal.expect("1000");
    terminal.expect("hi");
    terminal.type_text("\x03");
    // Ctrl-C reaches the foreground process, which is process 1 and has no handler; ^D ends its read.
    terminal.type_text("\x04");
    live.wait();
    live.delete();
}

#[test]
fn an_exec_gets_a_terminal_of_its_own() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let mut process = live.container().exec_process().unwrap();
    process.terminal = true;
    process.args = ["sh", "-c", "tty; read x; echo got $x"]
        .map(str::to_owned)
        .into();
    let executed = live
        .container()
        .exec(carrack_container::ExecOptions {
            process,
            console: carrack_container::Console::Master,
            ..Default::default()
        })
        .unwrap();
    let mut terminal = Terminal::of(executed.console.unwrap());
    terminal.expect("/dev/pts/0");
    terminal.type_text("word\n");
    terminal.expect("got word");
    assert_eq!(common::wait(&executed.pidfd), Exit::Code(0));
    live.delete();
}

#[test]
fn each_container_has_a_session_keyring_of_its_own() {
    let mut world = require!(World::new());
    require!(skip::exists("/proc/keys"));
    world.bundle.set("/linux/maskedPaths", json!([]));
    let text = world.sh("cat /proc/keys");
    assert!(text.contains(&format!("_ses.{}:", world.id)), "{text}");
    let mut world = require!(World::new());
    world.bundle.set("/linux/maskedPaths", json!([]));
    world.bundle.shell("cat /proc/keys");
    let ran = world
        .try_run_with(|options| options.no_new_keyring = true)
        .unwrap();
    assert!(
        !ran.output.contains(&format!("_ses.{}:", world.id)),
        "{}",
        ran.output
    );
}

#[test]
fn only_the_preserved_descriptors_are_inherited() {
    let world = require!(World::new());
    let mut world = world;
    // Descriptors of the test's own without close-on-exec: none may come through.
    let mut leaked = tempfile::tempfile().unwrap();
    leaked.write_all(b"secret").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let text = world.sh("ls /proc/self/fd | wc -l");
    assert_eq!(text, "4\n", "three streams and that of ls");
    world.bundle.args(["sleep", "100"]);
    let mut live = world.create();
    let seen = live.exec("ls -l /proc/1/fd /proc/self/fd; cat /proc/1/fdinfo/* | grep -c pos");
    assert!(!seen.contains("/state.json"), "{seen}");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", live.pid()))
        .unwrap()
        .count();
    assert!(fds <= 5, "{fds} open while waiting for start");
    live.delete();
}

#[test]
fn streams_are_those_given_and_belong_to_the_user() {
    let mut world = require!(World::new());
    world
        .bundle
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    world
        .bundle
        .shell("echo out >> /dev/stdout; echo err >> /dev/stderr; read line; echo $line");
    let mut output = tempfile::tempfile().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"typed\n").unwrap();
    drop(writer);
    let ran = world
        .try_run_with(|options| {
            let [_, out, err] = streams(&output);
            options.stdio = Some([reader.into(), out, err]);
        })
        .unwrap();
    assert_eq!(ran.exit, Exit::Code(0));
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\nerr\ntyped\n");
}

#[test]
fn the_affinity_of_the_caller_is_not_inherited() {
    let mut world = require!(World::new());
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let Some(first) = (0..1024).find(|&cpu| all.is_set(cpu)) else {
        carrack_testkit::skip!("no processors to choose from");
    };
    if all.count() < 2 {
        carrack_testkit::skip!("one processor only");
    }
    let mut one = rustix::thread::CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    let text = world.sh("nproc");
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let in_exec = live.exec("nproc");
    live.delete();
    rustix::thread::sched_setaffinity(None, &all).unwrap();
    assert_ne!(text.trim(), "1");
    assert_ne!(in_exec.trim(), "1");
}

#[test]
fn an_exec_has_the_affinity_of_the_process() {
    let mut world = require!(World::new());
    if std::thread::available_parallelism().unwrap().get() < 2 {
        carrack_testkit::skip!("one processor only");
    }
    world.bundle.set(
        "/process/execCPUAffinity",
        json!({"initial": "0", "final": "1"}),
    );
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let text = live.exec("cat /proc/self/status");
    assert_eq!(status_line(&text, "Cpus_allowed_list"), "1");
    live.delete();
    // Older kernels forget it when the process enters a cpuset of v1.
    require!(skip::kernel((6, 2)));
    world
        .bundle
        .set("/process/execCPUAffinity", json!({"initial": "0"}));
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let text = live.exec("cat /proc/self/status");
    assert_eq!(status_line(&text, "Cpus_allowed_list"), "0");
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_ne!(
        status_line(&own, "Cpus_allowed_list"),
        "0",
        "the caller has its own again"
    );
    live.delete();
}

#[test]
fn an_exec_has_rights_directory_and_environment_of_its_own() {
    let mut world = require!(World::new());
    world.bundle.args(["sleep", "100"]);
    let mut live = world.start();
    let text = live.exec_with(
        "id -u; id -G; pwd; echo $MORE; grep CapEff /proc/self/status; umask",
        |options| {
            let process = &mut options.process;
            process.user.uid = 5;
            process.user.gid = 6;
            process.user.additional_gids = vec![7];
            process.user.umask = Some(0o077);
            process.cwd = "/fresh".into();
            process.env.push("MORE=yes".into());
            process.capabilities = None;
        },
    );
    assert_eq!(
        text,
        "5\n6 7\n/fresh\nyes\nCapEff:\t0000000000000000\n0077\n"
    );
    let error = live
        .try_exec("true", |options| {
            options.process.args = vec!["nothing".into()]
        })
        .unwrap_err();
    assert_eq!(error.program_missing(), Some(true));
    live.delete();
}

#[test]
fn the_hostname_of_the_machine_stays() {
    let before = rustix::system::uname().nodename().to_owned();
    let mut world = require!(World::new());
    world.bundle.set("/hostname", json!("other"));
    assert_eq!(world.sh("hostname"), "other\n");
    assert_eq!(rustix::system::uname().nodename(), before.as_c_str());
}
