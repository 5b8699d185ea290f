//! The shapes of what is printed, beside those of Debian's runc on the same bundle.

mod common;

use carrack_testkit::{Bundle, Runtime, require};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The names of an object's properties.
fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn sleeping() -> Result<Bundle, carrack_testkit::Skip> {
    let mut bundle = Bundle::busybox()?;
    bundle.args(["sleep", "100"]);
    bundle.set("/annotations", json!({"a": "b"}));
    Ok(bundle)
}

/// Runs `look` on a running container of each runtime, ours first.
fn both<T>(look: impl Fn(&Runtime, &carrack_testkit::Container<'_>) -> T) -> Option<[T; 2]> {
    let ours = common::runtime().ok()?;
    let theirs = common::runc().ok()?;
    let bundle = sleeping().ok()?;
    let one = |runtime: &Runtime| {
        let container = runtime.container(&bundle);
        container.run_detached().ok();
        let seen = look(runtime, &container);
        container.delete(true).ok();
        container.assert_nothing_left();
        seen
    };
    Some([one(&ours), one(&theirs)])
}

macro_rules! both {
    ($look:expr) => {
        match both($look) {
            Some(pair) => pair,
            None => carrack_testkit::skip!("needs root, busybox-static and runc to compare with"),
        }
    };
}

#[test]
fn state_has_the_same_properties() {
    let [ours, theirs] = both!(|_, container| container.state());
    assert_eq!(keys(&ours), keys(&theirs));
    for key in ["bundle", "rootfs", "status", "annotations", "owner"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    let created = ours["created"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
}

#[test]
fn list_is_the_same_table_and_the_same_json() {
    let [ours, theirs] = both!(|runtime, container| {
        let table = runtime.call(["list"]).ok().stdout;
        let json: Value =
            serde_json::from_str(&runtime.call(["list", "--format", "json"]).ok().stdout).unwrap();
        let quiet = runtime.call(["list", "-q"]).ok().stdout;
        assert_eq!(quiet, format!("{}\n", container.id()));
        (table, json)
    });
    let columns = |table: &str| -> Vec<usize> {
        let title = table.lines().next().unwrap();
        ["ID", "PID", "STATUS", "BUNDLE"]
            .map(|name| title.find(name).unwrap())
            .to_vec()
    };
    assert_eq!(
        columns(&ours.0),
        columns(&theirs.0),
        "{}\n{}",
        ours.0,
        theirs.0
    );
    assert_eq!(ours.0.lines().count(), 2);
    assert_eq!(keys(&ours.1[0]), keys(&theirs.1[0]));
    assert_eq!(ours.1[0]["owner"], "root");
}

#[test]
fn an_empty_list_is_a_title_and_null() {
    let runtime = require!(common::runtime());
    let table = runtime.call(["list"]).ok().stdout;
    assert_eq!(
        table,
        "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    );
    runtime
        .call(["list", "-f", "json"])
        .ok()
        .stdout_is("null\n");
    runtime
        .call(["list", "-f", "xml"])
        .fails_with("invalid format option");
}

#[test]
fn ps_is_the_same_table_and_the_same_json() {
    let [ours, theirs] = both!(|_, container| {
        let pids = container.call("ps", &["--format", "json"], &[]).ok().stdout;
        assert_eq!(pids, format!("[{}]\n", container.pid()));
        let table = container.call("ps", &[], &[]).ok().stdout;
        let short = container.call("ps", &[], &["-o", "pid,args"]).ok().stdout;
        let title = table.lines().next().unwrap().to_owned();
        (title, table.lines().count(), short.lines().count())
    });
    assert_eq!(ours, theirs);
    assert_eq!((ours.1, ours.2), (2, 2));
}

#[test]
fn events_have_the_same_properties() {
    let [ours, theirs] = both!(|_, container| -> Value {
        let line = container.call("events", &["--stats"], &[]).ok().stdout;
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["id"], container.id());
        event
    });
    assert_eq!(keys(&ours), keys(&theirs));
    assert_eq!(ours["type"], "stats");
    let (ours, theirs) = (&ours["data"], &theirs["data"]);
    let missing = |part: &str| -> Vec<String> {
        let (ours, theirs) = (keys(&ours[part]), keys(&theirs[part]));
        theirs
            .difference(&ours)
            .map(|key| format!("{part}.{key}"))
            .collect()
    };
    for key in keys(theirs) {
        assert!(keys(ours).contains(key), "{key} is missing");
    }
    for part in ["memory", "pids", "cpu"] {
        assert_eq!(missing(part), Vec::<String>::new());
    }
    assert!(ours["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(ours["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(ours["pids"]["current"], 1);
}

#[test]
fn spec_differs_from_runcs_only_where_it_means_to() {
    let runtime = require!(common::runtime());
    let runc = require!(common::runc());
    for flags in [&[][..], &["--rootless"]] {
        let one = |runtime: &Runtime| -> Value {
            let dir = carrack_testkit::TempDir::new();
            let bundle = dir.path().display().to_string();
            let mut args = vec!["spec", "--bundle", &bundle];
            args.extend(flags);
            runtime.call(&args).ok().stdout_is("");
            runtime.call(&args).fails_with("exists. Remove it first");
            let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (mut ours, mut theirs) = (one(&runtime), one(&runc));
        for spec in [&mut ours, &mut theirs] {
            // Newer versions of runc gave these up or added to them.
            let process = spec["process"]["capabilities"].as_object_mut().unwrap();
            process.retain(|set, _| set != "ambient" && set != "inheritable");
            spec["ociVersion"] = json!(null);
            spec["hostname"] = json!(null);
            let kinds = spec["linux"]["namespaces"].as_array_mut().unwrap();
            kinds.retain(|namespace| namespace["type"] != "cgroup");
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn features_name_what_runcs_name_and_more() {
    let runtime = require!(common::runtime());
    let runc = require!(common::runc());
    let one = |runtime: &Runtime| -> Value {
        serde_json::from_str(&runtime.call(["features"]).ok().stdout).unwrap()
    };
    let (ours, theirs) = (one(&runtime), one(&runc));
    assert_eq!(ours["ociVersionMin"], theirs["ociVersionMin"]);
    assert_eq!(ours["hooks"], theirs["hooks"]);
    let list = |value: &Value, path: &str| -> BTreeSet<String> {
        let list = value.pointer(path).and_then(Value::as_array).unwrap();
        list.iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    for path in [
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
    ] {
        let (ours, theirs) = (list(&ours, path), list(&theirs, path));
        // runc gave this one up: file systems that know it get it as data.
        let missing: Vec<_> = theirs
            .difference(&ours)
            .filter(|name| *name != "noacl")
            .collect();
        assert!(missing.is_empty(), "{path}: {missing:?}");
    }
}

#[test]
fn the_version_is_where_engines_look_for_it() {
    let runtime = require!(common::runtime());
    let text = runtime.call(["--version"]).ok().stdout;
    let first = text.lines().next().unwrap();
    assert_eq!(first.split(' ').nth(1), Some("version"));
    assert!(
        text.lines().any(|line| line.starts_with("spec: ")),
        "{text}"
    );
}
