//! What parsing keeps, refuses and explains.

use super::*;

#[test]
fn null_lists_are_empty_as_go_writers_emit_them() {
    let spec = Spec::from_json(
        br#"{"ociVersion":"1.0.2","mounts":null,"process":{"args":null,"cwd":"/","user":{"uid":0,"gid":0}},
            "linux":{"namespaces":null,"resources":{"devices":null}}}"#,
    )
    .unwrap();
    assert!(spec.mounts.is_empty());
    assert!(spec.process.unwrap().args.is_empty());
}

#[test]
fn unknown_properties_are_accepted() {
    Spec::from_json(br#"{"ociVersion":"1.9.0","novelty":{"a":[1]},"linux":{"more":true}}"#)
        .unwrap();
}

#[test]
fn an_error_names_the_property() {
    let error =
        Spec::from_json(br#"{"linux":{"resources":{"memory":{"limit":"much"}}}}"#).unwrap_err();
    assert_eq!(error.to_string(), "at linux.resources.memory.limit");
    let error = Spec::from_json(br#"{"linux":{"namespaces":[{"type":"pid"},{"type":"pig"}]}}"#)
        .unwrap_err();
    assert_eq!(error.to_string(), "at linux.namespaces[1].type");
}

#[test]
fn truncated_and_deep_documents_are_errors() {
    assert!(Spec::from_json(br#"{"ociVersion":"1.0.0","#).is_err());
    assert!(Spec::from_json(b"").is_err());
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(Spec::from_json(&deep).is_err());
}

#[test]
fn the_seccomp_profile_stays_text_until_it_is_needed() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    let json = format!(r#"{{"linux":{{"seccomp":{text}}}}}"#);
    let raw = Spec::from_json(json.as_bytes())
        .unwrap()
        .linux
        .unwrap()
        .seccomp
        .unwrap();
    assert_eq!(raw.get(), text);
    let profile: Seccomp = serde_json::from_str(raw.get()).unwrap();
    assert_eq!(profile.default_action, "SCMP_ACT_ALLOW");
}

#[test]
fn names_of_the_specification_survive_a_round_trip() {
    let json = serde_json::json!({
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 1, "gid": 2, "additionalGids": [3]}, "args": ["a"], "cwd": "/",
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "execCPUAffinity": {"initial": "0", "final": "1"}},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "resources": {"blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]},
                "memory": {"disableOOMKiller": true, "kernelTCP": 5}, "network": {"classID": 1}},
            "netDevices": {"eth0": {"name": "net0"}},
            "intelRdt": {"closID": "x", "l3CacheSchema": "L3:0=f"},
            "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 6}}
        }
    });
    let spec = Spec::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), json);
}
