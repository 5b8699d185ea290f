//! Dependency edges, over `cargo metadata`.
//!
//! [`ALLOWED`] is the picture in ARCHITECTURE.md as a table: a crate of the workspace
//! may use exactly the crates named in its row (development dependencies are free).
//! A crate without a row is a finding, so that a new crate is placed on purpose.
//! The trees of the [`LEAN`] crates hold no async runtime, TLS or HTTP, and what the
//! [`APART`] crates link never reaches the code that runs between clone and exec.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// Who may use whom inside the workspace (names without the `carrack-` prefix).
const ALLOWED: [(&str, &[&str]); 16] = [
    ("spec", &[]),
    ("sys", &[]),
    ("seccomp", &["spec"]),
    ("cgroup", &["spec", "sys"]),
    ("container", &["spec", "sys", "cgroup", "seccomp"]),
    ("task", &["spec", "sys"]),
    (
        "supervisor",
        &["spec", "sys", "cgroup", "container", "task"],
    ),
    (
        "runtime",
        &[
            "spec",
            "sys",
            "cgroup",
            "seccomp",
            "container",
            "task",
            "supervisor",
        ],
    ),
    ("store", &["spec", "sys"]),
    ("registry", &["spec"]),
    ("network", &["spec", "sys"]),
    (
        "engine",
        &["spec", "sys", "task", "store", "registry", "network"],
    ),
    ("cli", &["spec", "sys", "engine"]),
    ("bench-images", &["spec", "store"]),
    ("testkit", &[]),
    ("xtask", &["testkit"]),
];

/// Crates with no async runtime, TLS or HTTP below them.
const LEAN: [&str; 8] = [
    "spec",
    "sys",
    "seccomp",
    "cgroup",
    "container",
    "task",
    "supervisor",
    "runtime",
];

/// Crates that never link `container` or `vmm`, at any distance.
const APART: [&str; 3] = ["engine", "cri", "cli"];

/// Packages that are, or bring, an async runtime, TLS or HTTP; a trailing `*` matches any ending.
const HEAVY: [&str; 31] = [
    "tokio*",
    "async-std",
    "async-io",
    "async-executor",
    "async-global-executor",
    "smol",
    "mio",
    "futures-executor",
    "polling",
    "glommio",
    "monoio",
    "embassy-executor",
    "rustls*",
    "openssl*",
    "native-tls",
    "ring",
    "aws-lc*",
    "boring*",
    "schannel",
    "webpki*",
    "hyper*",
    "http",
    "http-body",
    "h2",
    "h3",
    "reqwest",
    "ureq*",
    "curl*",
    "isahc",
    "tonic*",
    "zbus*",
];

/// A package of the resolved graph.
struct Node {
    name: String,
    uses: Vec<String>,
}

/// Findings over the whole graph.
pub fn check(metadata: &Value) -> Result<Vec<String>> {
    let graph = graph(metadata).context("cargo metadata has an unknown shape")?;
    let members: BTreeSet<&str> = metadata
        .get("workspace_members")
        .and_then(Value::as_array)
        .context("cargo metadata names no members")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut findings = Vec::new();
    for id in &members {
        let Some(node) = graph.get(*id) else { continue };
        findings.extend(check_row(node, &graph, &members));
        let short = short(&node.name);
        if LEAN.contains(&short) {
            findings.extend(
                reached(id, &graph)
                    .into_iter()
                    .filter(|name| is_heavy(name))
                    .map(|name| {
                        format!(
                            "{}: {name} is in its tree (no async runtime, TLS or HTTP here)",
                            node.name
                        )
                    }),
            );
        }
        if APART.contains(&short) {
            findings.extend(
                reached(id, &graph)
                    .into_iter()
                    .filter(|name| ["container", "vmm"].contains(&self::short(name)))
                    .map(|name| {
                        format!(
                            "{}: links {name}; reach it by spawning a monitor",
                            node.name
                        )
                    }),
            );
        }
    }
    Ok(findings)
}

/// The direct edges of one member against its row.
fn check_row(node: &Node, graph: &BTreeMap<String, Node>, members: &BTreeSet<&str>) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == short(&node.name)) else {
        return vec![format!(
            "{}: has no row in xtask/src/tidy/edges.rs",
            node.name
        )];
    };
    node.uses
        .iter()
        .filter(|id| members.contains(id.as_str()))
        .filter_map(|id| graph.get(id))
        .filter(|used| !allowed.contains(&short(&used.name)))
        .map(|used| {
            format!(
                "{}: must not depend on {} (xtask/src/tidy/edges.rs)",
                node.name, used.name
            )
        })
        .collect()
}

/// Names of all packages below `from`.
fn reached<'a>(from: &str, graph: &'a BTreeMap<String, Node>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut pending = vec![from.to_string()];
    while let Some(id) = pending.pop() {
        let Some(node) = graph.get(&id) else { continue };
        if seen.insert(id.clone()) {
            if id != from {
                names.insert(node.name.as_str());
            }
            pending.extend(node.uses.iter().cloned());
        }
    }
    names
}

/// The resolved graph without development dependencies.
fn graph(metadata: &Value) -> Option<BTreeMap<String, Node>> {
    let names: BTreeMap<&str, &str> = metadata
        .get("packages")?
        .as_array()?
        .iter()
        .filter_map(|package| Some((package.get("id")?.as_str()?, package.get("name")?.as_str()?)))
        .collect();
    let nodes = metadata.get("resolve")?.get("nodes")?.as_array()?;
    let mut graph = BTreeMap::new();
    for node in nodes {
        let id = node.get("id")?.as_str()?;
        let uses = node
            .get("deps")?
            .as_array()?
            .iter()
            .filter(|dep| is_linked(dep));
        let uses = uses
            .filter_map(|dep| Some(dep.get("pkg")?.as_str()?.to_string()))
            .collect();
        graph.insert(
            id.to_string(),
            Node {
                name: (*names.get(id)?).to_string(),
                uses,
            },
        );
    }
    Some(graph)
}

/// Whether an edge is more than a development dependency.
fn is_linked(dep: &Value) -> bool {
    let kinds = dep.get("dep_kinds").and_then(Value::as_array);
    kinds.is_none_or(|kinds| {
        kinds
            .iter()
            .any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
    })
}

fn is_heavy(name: &str) -> bool {
    HEAVY.iter().any(|heavy| match heavy.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *heavy,
    })
}

fn short(name: &str) -> &str {
    name.strip_prefix("carrack-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, check};
    use serde_json::{Value, json};

    /// Metadata with the edges `from -kind-> to`; members are those with our prefix.
    fn metadata(edges: &[(&str, &str, &str)]) -> Value {
        let mut names: Vec<&str> = edges
            .iter()
            .flat_map(|(from, _, to)| [*from, *to])
            .collect();
        names.sort_unstable();
        names.dedup();
        let deps = |name: &str| -> Vec<Value> {
            let of = edges.iter().filter(|(from, _, _)| *from == name);
            of.map(|(_, kind, to)| {
                let kind = if kind.is_empty() {
                    Value::Null
                } else {
                    json!(kind)
                };
                json!({"pkg": to, "dep_kinds": [{"kind": kind}]})
            })
            .collect()
        };
        json!({
            "packages": names.iter().map(|n| json!({"id": n, "name": n})).collect::<Vec<_>>(),
            "workspace_members": names.iter().filter(|n| n.starts_with("carrack-")).collect::<Vec<_>>(),
            "resolve": {"nodes": names.iter().map(|n| json!({"id": n, "deps": deps(n)})).collect::<Vec<_>>()},
        })
    }

    #[test]
    fn edges_of_the_table_are_fine() {
        let found = check(&metadata(&[
            ("carrack-container", "", "carrack-spec"),
            ("carrack-engine", "", "carrack-store"),
            ("carrack-cli", "", "hyper"),
        ]));
        assert_eq!(found.unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_edge_against_the_table_is_found() {
        let found = check(&metadata(&[("carrack-spec", "", "carrack-sys")])).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("carrack-spec: must not depend on carrack-sys"));
    }

    #[test]
    fn development_dependencies_are_free() {
        let found = check(&metadata(&[
            ("carrack-spec", "dev", "carrack-testkit"),
            ("carrack-spec", "dev", "tokio"),
        ]));
        assert_eq!(found.unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_async_runtime_far_below_a_lean_crate_is_found() {
        let found = check(&metadata(&[
            ("carrack-cgroup", "", "helper"),
            ("helper", "", "tokio-util"),
        ]));
        let found = found.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("tokio-util"));
    }

    #[test]
    fn the_engine_may_not_reach_container_by_a_detour() {
        let found = check(&metadata(&[
            ("carrack-engine", "", "helper"),
            ("helper", "", "carrack-container"),
        ]));
        assert!(found.unwrap()[0].contains("links carrack-container"));
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let found = check(&metadata(&[("carrack-new", "", "libc")])).unwrap();
        assert!(found[0].contains("has no row"));
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each row names only crates that stand in rows above it, so there is an order.
        for (at, (name, uses)) in ALLOWED.iter().enumerate() {
            for used in *uses {
                assert!(
                    ALLOWED[..at].iter().any(|(above, _)| above == used),
                    "{name} uses {used}"
                );
            }
        }
    }
}
