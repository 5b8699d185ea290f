//! `registries.conf`, `hosts.toml` and `daemon.json`: what is accepted gives endpoints
//! for a reference, or says why not; the registry itself is always the last of them.
#![no_main]

use carrack_registry::{DaemonJson, HostsToml, RegistriesConf, RegistriesConfig};
use carrack_spec::Reference;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let mut configs = Vec::new();
    if let Ok(conf) = RegistriesConf::parse(text) {
        let mut config = RegistriesConfig::default();
        config
            .add_registries_conf(conf.clone())
            .add_registries_conf(conf);
        configs.push(config);
    }
    if let Ok(hosts) = HostsToml::parse(text, Path::new("/etc/certs.d")) {
        let mut config = RegistriesConfig::default();
        config.add_hosts_toml("r.example", hosts.clone());
        config.add_hosts_toml("_default", hosts);
        configs.push(config);
    }
    if let Ok(daemon) = DaemonJson::parse(text) {
        let mut config = RegistriesConfig::default();
        config.add_daemon_json(daemon);
        configs.push(config);
    }
    for config in configs {
        for name in ["busybox", "r.example/team/app:1", "sub.r.example:5000/a"] {
            let Ok(reference) = name.parse::<Reference>() else {
                continue;
            };
            if let Ok(endpoints) = config.endpoints(&reference) {
                assert!(endpoints.last().is_some_and(|last| !last.mirror));
            }
            let _ = config.push_endpoint(&reference);
            let _ = config.registry(reference.host());
        }
        let typed: String = text.chars().take(40).collect();
        if let Ok(candidates) = config.candidates(&typed) {
            assert!(!candidates.references.is_empty());
        }
    }
});
