//! Tables over flags and images.

use super::*;
use crate::request::{Limits, Tmpfs, Ulimit};
use carrack_spec::image::ContainerConfig;
use carrack_spec::runtime::{ConsoleSize, User};

fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
    let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect();
    let config = ContainerConfig {
        entrypoint: words(entrypoint),
        cmd: words(cmd),
        ..ContainerConfig::default()
    };
    ImageConfig {
        config,
        ..ImageConfig::default()
    }
}

fn facts() -> Facts {
    Facts {
        id: "0123456789abcdef".into(),
        identity: Identity {
            user: User::default(),
            home: "/root".into(),
        },
        ..Facts::default()
    }
}

fn made(change: impl FnOnce(&mut RunRequest)) -> Spec {
    let mut request = RunRequest::default();
    change(&mut request);
    compose(&image(&[], &["sh"]), &request, &facts()).unwrap()
}

fn linux(spec: &Spec) -> &Linux {
    spec.linux.as_ref().unwrap()
}

fn process_of(spec: &Spec) -> &Process {
    spec.process.as_ref().unwrap()
}

type Words = &'static [&'static str];

#[test]
fn entry_point_and_command_combine_as_docker_does() {
    let table: [(Words, Words, Option<&str>, Words, Words); 8] = [
        (&["/e"], &["c"], None, &[], &["/e", "c"]),
        (&["/e"], &["c"], None, &["u"], &["/e", "u"]),
        (&[], &["c"], None, &[], &["c"]),
        (&[], &["c"], None, &["u", "v"], &["u", "v"]),
        (&["/e"], &["c"], Some("/x"), &[], &["/x"]),
        (&["/e"], &["c"], Some("/x"), &["u"], &["/x", "u"]),
        (&["/e"], &["c"], Some(""), &["u"], &["u"]),
        (&["/e", "-a"], &[], None, &[], &["/e", "-a"]),
    ];
    for (entrypoint, cmd, wanted, words, args) in table {
        let request = RunRequest {
            entrypoint: wanted.map(|w| {
                if w.is_empty() {
                    Vec::new()
                } else {
                    vec![w.to_owned()]
                }
            }),
            command: words.iter().map(|s| (*s).to_owned()).collect(),
            ..RunRequest::default()
        };
        let spec = compose(&image(entrypoint, cmd), &request, &facts()).unwrap();
        assert_eq!(process_of(&spec).args, args);
    }
    let none = compose(&image(&[], &[]), &RunRequest::default(), &facts());
    assert!(matches!(none, Err(ComposeError::NoCommand)));
}

#[test]
fn later_environment_wins_and_keeps_its_place() {
    let mut config = image(&[], &["sh"]);
    config.config.env = vec!["PATH=/image".into(), "A=1".into()];
    let request = RunRequest {
        env: vec!["A=2".into(), "B=".into(), "HOME=/mine".into()],
        terminal: Some(ConsoleSize {
            height: 24,
            width: 80,
        }),
        ..RunRequest::default()
    };
    let spec = compose(&config, &request, &facts()).unwrap();
    let env = &process_of(&spec).env;
    assert_eq!(
        env,
        &[
            "PATH=/image",
            "HOSTNAME=0123456789ab",
            "TERM=xterm",
            "HOME=/mine",
            "A=2",
            "B="
        ]
    );
    for bad in ["A", "=x", "A=\0"] {
        let request = RunRequest {
            env: vec![bad.into()],
            ..RunRequest::default()
        };
        assert!(
            matches!(
                compose(&config, &request, &facts()),
                Err(ComposeError::Env(_))
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn capabilities_add_drop_and_users() {
    use Capability::{All, One};
    let table: [(Vec<Capability>, Vec<Capability>, usize); 5] = [
        (vec![], vec![], 14),
        (vec![One("CAP_NET_ADMIN")], vec![One("CAP_CHOWN")], 14),
        (vec![One("CAP_CHOWN")], vec![All], 1),
        (vec![All], vec![], 41),
        (vec![All], vec![One("CAP_SYS_ADMIN")], 40),
    ];
    for (add, drop, count) in table {
        let spec = made(|r| (r.cap_add, r.cap_drop) = (add.clone(), drop.clone()));
        let sets = process_of(&spec).capabilities.as_ref().unwrap();
        assert_eq!(sets.bounding.len(), count, "{add:?} {drop:?}");
        assert_eq!(sets.effective, sets.bounding);
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }
    let mut facts = facts();
    facts.identity.user.uid = 1000;
    let spec = compose(&image(&[], &["sh"]), &RunRequest::default(), &facts).unwrap();
    let sets = process_of(&spec).capabilities.as_ref().unwrap();
    assert!(sets.effective.is_empty() && sets.permitted.is_empty() && sets.bounding.len() == 14);
}

#[test]
fn limits_networks_and_confinement() {
    let spec = made(|r| {
        r.limits = Limits {
            memory: Some(64 << 20),
            cpu_millis: Some(1500),
            cpu_shares: None,
            pids: Some(9),
        };
        r.ulimits = vec!["nofile=64".parse::<Ulimit>().unwrap()];
        r.read_only = true;
    });
    let resources = linux(&spec).resources.as_ref().unwrap();
    assert_eq!(resources.memory.as_ref().unwrap().limit, Some(64 << 20));
    let cpu = resources.cpu.as_ref().unwrap();
    assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
    assert_eq!(resources.pids.as_ref().unwrap().limit, Some(9));
    assert!(spec.root.as_ref().unwrap().readonly);
    assert!(linux(&spec).seccomp.is_some() && !linux(&spec).masked_paths.is_empty());
    let has_net = |s: &Spec| {
        linux(s)
            .namespaces
            .iter()
            .any(|n| n.kind == NamespaceKind::Network)
    };
    assert!(has_net(&spec) && !has_net(&made(|r| r.network = Network::Host)));

    let open = made(|r| r.privileged = true);
    assert!(linux(&open).seccomp.is_none() && linux(&open).masked_paths.is_empty());
    assert!(
        made(|r| r.seccomp = SeccompChoice::Unconfined)
            .linux
            .unwrap()
            .seccomp
            .is_none()
    );
    assert!(
        linux(&open)
            .resources
            .as_ref()
            .unwrap()
            .devices
            .iter()
            .all(|d| d.allow)
    );
}

#[test]
fn mounts_of_the_user_replace_and_follow_the_defaults() {
    let spec = made(|r| {
        r.volumes = vec![
            "/h:/a/b/c:ro".parse().unwrap(),
            "/h:/a".parse().unwrap(),
            "/h:/dev/shm/".parse().unwrap(),
        ];
        r.tmpfs = vec!["/t:size=1m".parse::<Tmpfs>().unwrap()];
    });
    let order: Vec<&str> = spec.mounts.iter().map(|m| m.destination.as_str()).collect();
    let at = |path: &str| order.iter().position(|p| *p == path);
    assert_eq!(at("/dev/shm"), None, "replaced");
    assert!(at("/a") < at("/a/b/c") && at("/proc") < at("/a"));
    let of = |path: &str| &spec.mounts[at(path).unwrap()].options;
    assert_eq!(of("/a/b/c"), &["ro", "rbind", "rprivate"]);
    assert_eq!(of("/t"), &["nosuid", "nodev", "noexec", "size=1m"]);
}

#[test]
fn profiles_that_would_be_read_wrongly_are_refused() {
    let with = |text: &str| {
        let request = RunRequest {
            seccomp: SeccompChoice::Profile(text.into()),
            ..RunRequest::default()
        };
        compose(&image(&[], &["sh"]), &request, &facts())
    };
    let plain = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#;
    assert!(
        with(plain)
            .unwrap()
            .linux
            .unwrap()
            .seccomp
            .unwrap()
            .get()
            .contains("chmod")
    );
    let conditional = r#"{"syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}"#;
    assert!(matches!(
        with(conditional),
        Err(ComposeError::ProfileForm("includes"))
    ));
    assert!(matches!(
        with(r#"{"archMap":[]}"#),
        Err(ComposeError::ProfileForm("archMap"))
    ));
    assert!(matches!(with("{"), Err(ComposeError::Profile(_))));
}

#[test]
fn working_directories() {
    let mut config = image(&[], &["sh"]);
    for (of_image, wanted, cwd) in [
        ("", None, "/"),
        ("/srv", None, "/srv"),
        ("srv", None, "/srv"),
        ("/srv", Some("/x"), "/x"),
    ] {
        config.config.working_dir = of_image.into();
        let request = RunRequest {
            workdir: wanted.map(str::to_owned),
            ..RunRequest::default()
        };
        assert_eq!(
            process_of(&compose(&config, &request, &facts()).unwrap()).cwd,
            cwd
        );
    }
    let request = RunRequest {
        workdir: Some("x".into()),
        ..RunRequest::default()
    };
    assert!(matches!(
        compose(&config, &request, &facts()),
        Err(ComposeError::Workdir(_))
    ));
}

#[test]
fn the_document_reads_back_as_it_was_written() {
    let spec = made(|r| r.volumes = vec!["/h:/a".parse().unwrap()]);
    let text = serde_json::to_vec(&spec).unwrap();
    assert_eq!(Spec::from_json(&text).unwrap(), spec);
}

#[test]
fn an_ordinary_users_container_in_the_hosts_network_sees_the_hosts_sysfs() {
    let sysfs = |in_user_namespace, network| {
        let facts = Facts {
            in_user_namespace,
            ..facts()
        };
        let request = RunRequest {
            network,
            ..RunRequest::default()
        };
        let mounts = mounts(&request, &facts);
        let sys = mounts.into_iter().find(|m| m.destination == "/sys");
        sys.unwrap().kind
    };
    assert_eq!(sysfs(false, Network::Host), "sysfs");
    assert_eq!(sysfs(true, Network::None), "sysfs");
    assert_eq!(sysfs(true, Network::Host), "bind");
}
