//! Tables over the three forms of configuration, and their order.

use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn conf(text: &str) -> RegistriesConfig {
    let mut config = RegistriesConfig::default();
    config.add_registries_conf(RegistriesConf::parse(text).unwrap());
    config
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// `HOST/REPOSITORY` of each endpoint, with `!` before insecure ones.
fn asked(config: &RegistriesConfig, name: &str) -> Vec<String> {
    let endpoints = config.endpoints(&reference(name)).unwrap();
    let text = |e: &Endpoint| {
        let mark = if e.transport == Transport::Any {
            "!"
        } else {
            ""
        };
        format!("{mark}{}/{}", e.host, e.repository)
    };
    endpoints.iter().map(text).collect()
}

#[test]
fn without_configuration_the_registry_itself_is_asked() {
    let config = RegistriesConfig::default();
    assert_eq!(asked(&config, "busybox"), ["docker.io/library/busybox"]);
    let hub = config.endpoints(&reference("busybox")).unwrap().remove(0);
    assert_eq!(hub.address, "registry-1.docker.io");
    assert_eq!(asked(&config, "localhost:5000/a"), ["!localhost:5000/a"]);
    assert_eq!(asked(&config, "[::1]:5000/a"), ["![::1]:5000/a"]);
    assert_eq!(asked(&config, "r.example/a/b"), ["r.example/a/b"]);
}

#[test]
fn the_longest_prefix_rewrites_the_name() {
    let config = conf(
        r#"
        [[registry]]
        location = "r.example"
        [[registry]]
        prefix = "r.example/team"
        location = "other.example:5000/deep/team"
        insecure = true
        [[registry.mirror]]
        location = "mirror.example/cache"
        [[registry.mirror]]
        location = "10.0.0.1:5000"
        insecure = true
        [[registry]]
        prefix = "*.wild.example"
        [[registry.mirror]]
        location = "m.example/wild"
        "#,
    );
    for (name, wanted) in [
        ("r.example/x", &["r.example/x"][..]),
        ("r.example/teams/x", &["r.example/teams/x"]),
        (
            "r.example/team/x",
            &[
                "mirror.example/cache/x",
                "!10.0.0.1:5000/x",
                "!other.example:5000/deep/team/x",
            ],
        ),
        (
            "a.b.wild.example/x",
            &["m.example/wild/x", "a.b.wild.example/x"],
        ),
        ("wild.example/x", &["wild.example/x"]),
        ("notwild.example/x", &["notwild.example/x"]),
    ] {
        assert_eq!(asked(&config, name), wanted, "{name}");
    }
}

#[test]
fn mirrors_are_asked_for_what_they_are_for() {
    let config = conf(
        r#"
        [[registry]]
        location = "docker.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "a.example"
        [[registry.mirror]]
        location = "b.example"
        pull-from-mirror = "tag-only"
        "#,
    );
    let endpoints = config.endpoints(&reference("busybox")).unwrap();
    let answers: Vec<_> = endpoints
        .iter()
        .map(|e| (e.answers(true), e.answers(false)))
        .collect();
    assert_eq!(answers, [(false, true), (true, false), (true, true)]);
    assert_eq!(endpoints[2].address, "registry-1.docker.io");
    assert_eq!(
        config.push_endpoint(&reference("busybox")).unwrap().host,
        "docker.io"
    );
}

#[test]
fn blocked_registries_are_refused() {
    let config = conf("[[registry]]\nlocation = \"bad.example\"\nblocked = true\n");
    let error = config.endpoints(&reference("bad.example/a")).unwrap_err();
    assert_eq!(error, ConfigError::Blocked("bad.example".into()));
    assert!(config.push_endpoint(&reference("bad.example/a")).is_err());
    assert!(config.registry("bad.example").is_err());
}

#[test]
fn drop_ins_replace_what_they_name() {
    let mut config = conf(
        "unqualified-search-registries = [\"a.example\", \"b.example\"]\n\
         [[registry]]\nlocation = \"r.example\"\nblocked = true\n\
         [aliases]\n\"x\" = \"one.example/x\"\n\"y\" = \"one.example/y\"\n",
    );
    let later = "short-name-mode = \"permissive\"\n[[registry]]\nlocation = \"r.example\"\n\
                 [aliases]\n\"x\" = \"two.example/x\"\n\"y\" = \"\"\n";
    config.add_registries_conf(RegistriesConf::parse(later).unwrap());
    assert_eq!(asked(&config, "r.example/a"), ["r.example/a"]);
    let names = |typed: &str| {
        let candidates = config.candidates(typed).unwrap();
        let names = candidates.references.iter().map(ToString::to_string);
        (names.collect::<Vec<_>>(), candidates.guessed)
    };
    assert_eq!(names("x:1"), (vec!["two.example/x:1".into()], false));
    let searched = vec!["a.example/y:latest".into(), "b.example/y:latest".into()];
    assert_eq!(names("y"), (searched, true));
    assert_eq!(
        names("q.example/y"),
        (vec!["q.example/y:latest".into()], false)
    );
    assert_eq!(
        config.candidates("y").unwrap().mode,
        ShortNameMode::Permissive
    );
}

#[test]
fn short_names_without_configuration_are_dockers() {
    let config = RegistriesConfig::default();
    let candidates = config.candidates("busybox").unwrap();
    assert_eq!(
        candidates.references,
        [reference("docker.io/library/busybox")]
    );
    assert!(!candidates.guessed);
    let none = conf("unqualified-search-registries = []");
    assert_eq!(none.candidates("a"), Err(ConfigError::NoSearch("a".into())));
    assert!(matches!(
        none.candidates("A b"),
        Err(ConfigError::Reference(_))
    ));
}

#[test]
fn wrong_registries_conf_is_refused_with_its_key() {
    for (text, part) in [
        ("[registries.search]\nregistries = []", "old form"),
        ("short-name-mode = \"maybe\"", "short-name-mode"),
        ("[[registry]]\nlocation = \"http://a\"", "registry.prefix"),
        (
            "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"\"",
            "mirror",
        ),
        ("[[registry]]\nprefix = \"a.*\"\nlocation = \"b\"", "prefix"),
        ("[[registry]\n", "malformed"),
        ("[[registry]]\nblocked = true", "registry.prefix"),
    ] {
        let error = RegistriesConf::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn hosts_toml_is_read_in_its_own_order() {
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://z.example"]
          capabilities = ["pull"]
          ca = "z.crt"
          client = [["c.cert", "c.key"], ["both.pem", ""]]
          [host."https://z.example".header]
            x-one = "1"
            x-many = ["2", "3"]
        [host."http://a.example:5000/v2/proxy"]
          override_path = true
          skip_verify = true
        [host."m.example/sub"]
          ca = ["/abs/a.crt", "b.crt"]
    "#;
    let mut config = RegistriesConfig::default();
    config.add_hosts_toml(
        "docker.io",
        HostsToml::parse(text, Path::new("/d")).unwrap(),
    );
    let endpoints = config.endpoints(&reference("busybox")).unwrap();
    let [z, a, m, own] = endpoints.as_slice() else {
        panic!("{endpoints:?}");
    };
    assert_eq!(
        (z.host.as_str(), z.base.as_str(), z.transport),
        ("z.example", "/v2", Transport::Tls)
    );
    assert!(z.mirror && z.pull && !z.resolve && !z.push);
    assert_eq!(z.namespace.as_deref(), Some("docker.io"));
    assert_eq!(z.tls.ca, [PathBuf::from("/d/z.crt")]);
    let key = Some(PathBuf::from("/d/c.key"));
    let pairs = vec![
        (PathBuf::from("/d/c.cert"), key),
        (PathBuf::from("/d/both.pem"), None),
    ];
    assert_eq!(z.tls.client, pairs);
    assert_eq!(z.headers.len(), 3);
    assert_eq!(
        (a.base.as_str(), a.transport),
        ("/v2/proxy", Transport::Plain)
    );
    assert!(a.tls.skip_verify);
    assert_eq!((m.host.as_str(), m.base.as_str()), ("m.example", "/sub/v2"));
    assert_eq!(
        m.tls.ca,
        [PathBuf::from("/abs/a.crt"), PathBuf::from("/d/b.crt")]
    );
    assert_eq!((own.host.as_str(), own.mirror), ("docker.io", false));
    let url = own.url(true, "tags/list?n=1").unwrap();
    assert_eq!(
        url.to_string(),
        "https://registry-1.docker.io/v2/library/busybox/tags/list?n=1"
    );
    let url = z.url(true, "tags/list?n=1").unwrap();
    assert!(
        url.to_string()
            .ends_with("/v2/library/busybox/tags/list?n=1&ns=docker.io"),
        "{url}"
    );
}

#[test]
fn wrong_hosts_toml_is_refused() {
    for text in [
        "[host.\"ftp://x\"]",
        "[host.\"https://x\"]\ncapabilities = [\"fly\"]",
        "server = \"https://user:pw@x\"",
        "server = 5",
    ] {
        assert!(HostsToml::parse(text, Path::new("/")).is_err(), "{text}");
    }
}

#[test]
fn a_default_hosts_toml_serves_all_without_rules() {
    let mut config = conf("[[registry]]\nlocation = \"r.example\"\n");
    let text = "[host.\"https://mirror.example\"]";
    config.add_hosts_toml("_default", HostsToml::parse(text, Path::new("/")).unwrap());
    assert_eq!(
        asked(&config, "q.example/a"),
        ["mirror.example/a", "q.example/a"]
    );
    assert_eq!(asked(&config, "r.example/a"), ["r.example/a"]);
    let pushed = config.push_endpoint(&reference("q.example/a")).unwrap();
    assert_eq!(pushed.host, "q.example");
}

#[test]
fn directories_are_named_as_containerd_names_them() {
    let names = RegistriesConfig::hosts_directories("r.example:5000");
    assert_eq!(names, ["r.example_5000_", "r.example:5000", "_default"]);
    assert_eq!(
        RegistriesConfig::hosts_directories("docker.io"),
        ["docker.io", "_default"]
    );
}

#[test]
fn daemon_json_gives_mirrors_of_docker_io_and_insecure_hosts() {
    let text = r#"{"registry-mirrors": ["https://m.example/", "http://p.example:5000"],
        "insecure-registries": ["i.example:5000", "10.0.0.0/8"], "debug": true}"#;
    let mut config = RegistriesConfig::default();
    config.add_daemon_json(DaemonJson::parse(text).unwrap());
    let hub = [
        "m.example/library/a",
        "p.example:5000/library/a",
        "docker.io/library/a",
    ];
    assert_eq!(asked(&config, "a"), hub);
    assert_eq!(asked(&config, "i.example:5000/a"), ["!i.example:5000/a"]);
    assert_eq!(asked(&config, "10.1.2.3:5000/a"), ["!10.1.2.3:5000/a"]);
    assert_eq!(asked(&config, "11.1.2.3:5000/a"), ["11.1.2.3:5000/a"]);
    assert!(DaemonJson::parse(r#"{"registry-mirrors": ["nope"]}"#).is_err());
}

#[test]
fn certificates_of_a_host_go_to_that_host_only() {
    let mut config = conf(
        "[[registry]]\nlocation = \"r.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\n",
    );
    let tls = TlsSettings {
        ca: vec!["/ca".into()],
        ..TlsSettings::default()
    };
    config.add_tls("r.example", tls);
    let endpoints = config.endpoints(&reference("r.example/a")).unwrap();
    assert_eq!(endpoints[0].tls.ca.len(), 0);
    assert_eq!(endpoints[1].tls.ca.len(), 1);
    config.set_tls_verify(Some(false));
    let endpoints = config.endpoints(&reference("r.example/a")).unwrap();
    assert!(
        endpoints
            .iter()
            .all(|e| e.transport == Transport::Any && e.tls.skip_verify)
    );
}

#[test]
fn verification_that_is_asked_for_counts_for_insecure_registries_and_the_loopback() {
    let mut config = conf(
        "[[registry]]\nlocation = \"i.example\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.example\"\ninsecure = true\n",
    );
    let text = r#"{"insecure-registries": ["d.example"]}"#;
    config.add_daemon_json(DaemonJson::parse(text).unwrap());
    let all = |config: &RegistriesConfig, wanted: Transport, skip: bool| {
        for name in ["i.example/a", "d.example/a", "127.0.0.1:5000/a"] {
            for e in config.endpoints(&reference(name)).unwrap() {
                assert_eq!((e.transport, e.tls.skip_verify), (wanted, skip), "{name}");
            }
        }
    };
    all(&config, Transport::Any, true);
    config.set_tls_verify(Some(true));
    all(&config, Transport::Tls, false);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z\\[\\]\"=.*:/\\n -]{0,120}") {
        let _ = RegistriesConf::parse(&text);
        let _ = HostsToml::parse(&text, Path::new("/"));
        let _ = DaemonJson::parse(&text);
        let _ = RegistriesConfig::default().candidates(&text);
    }

    #[test]
    fn a_rewrite_never_panics(prefix in "[a-z.*/]{1,12}", location in "[a-z./:0-9]{0,12}", name in "[a-z]{1,3}\\.[a-z]{1,3}/[a-z]{1,3}(/[a-z]{1,3})?") {
        let text = format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n");
        if let Ok(parsed) = RegistriesConf::parse(&text) {
            let mut config = RegistriesConfig::default();
            config.add_registries_conf(parsed);
            let _ = config.endpoints(&name.parse().unwrap());
        }
    }
}
