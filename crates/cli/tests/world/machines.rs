//! Images for several machines, in the store and in registries, and what peers see of them.

use super::World;
use carrack_testkit::DockerRegistry;
use carrack_testkit::runtime::{Output, finish};
use serde_json::Value;
use std::process::Command;

/// Runs a peer, which must succeed.
#[track_caller]
pub fn peer(program: &str, args: &[&str]) -> Output {
    finish(Command::new(program).args(args)).ok()
}

/// podman with a store of its own in this world.
pub fn podman(world: &World) -> impl Fn(&[&str]) -> Output {
    let [root, run] = ["podman", "podman-run"].map(|name| world.path(name).display().to_string());
    move |args| {
        let mut command = Command::new("podman");
        command.args(["--root", &root, "--runroot", &run]);
        finish(command.args(["--storage-driver", "vfs"]).args(args)).ok()
    }
}

#[track_caller]
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// An image with one file, `/machine`, that says which machine it is for.
#[track_caller]
pub fn image(world: &World, name: &str, platform: &str) {
    let directory = world.path("files");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("machine"), platform).unwrap();
    let tar = world.path("files.tar").display().to_string();
    let from = directory.display().to_string();
    peer("tar", &["-C", &from, "-cf", &tar, "."]);
    world
        .carrack(&["import", "-q", "--platform", platform, &tar, name])
        .ok();
}

/// Such an image in the store and in a registry: its name there, and its digest.
#[track_caller]
pub fn pushed(
    world: &World,
    registry: &DockerRegistry,
    name: &str,
    platform: &str,
) -> (String, String) {
    image(world, name, platform);
    let to = format!("{}/{name}", registry.host);
    let digest = world.carrack(&["push", "-q", name, &to]).ok().stdout;
    (to, digest.trim().to_owned())
}

/// What an image of the store says in `/machine`.
#[track_caller]
pub fn machine(world: &World, name: &str) -> String {
    let path = world.carrack(&["image", "mount", name]).ok().stdout;
    let text = std::fs::read_to_string(std::path::Path::new(path.trim()).join("machine")).unwrap();
    world.carrack(&["image", "unmount", name]).ok();
    text
}

/// The document under a name, as skopeo sees it.
#[track_caller]
pub fn raw(name: &str) -> Value {
    json(&peer("skopeo", &["inspect", "--raw", "--tls-verify=false", name]).stdout)
}

pub fn inspect(world: &World, name: &str) -> Value {
    json(&world.carrack(&["manifest", "inspect", name]).ok().stdout)
}

pub fn platforms(document: &Value) -> Vec<String> {
    let manifests = document["manifests"].as_array().unwrap();
    let word = |p: &Value, key: &str| p[key].as_str().unwrap_or_default().to_owned();
    let shown = |m: &Value| {
        let platform = &m["platform"];
        let shown = ["os", "architecture", "variant"].map(|key| word(platform, key));
        shown.join("/").trim_end_matches('/').to_owned()
    };
    manifests.iter().map(shown).collect()
}
