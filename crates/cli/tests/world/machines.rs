//! Images for several machines, and what peers see of them.

use super::World;
use carrack_testkit::runtime::{Output, finish};
use serde_json::Value;
use std::process::Command;

/// Runs a peer, which must succeed.
#[track_caller]
pub fn peer(program: &str, args: &[&str]) -> Output {
    finish(Command::new(program).args(args)).ok()
}

fn json(text: &str) -> Value {
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
