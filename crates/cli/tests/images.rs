//! Images: between the store, a registry and files, beside skopeo, umoci and podman.

mod world;

use carrack_testkit::{DockerRegistry, TempDir, require, skip};
use world::World;
use world::machines::{json, peer, raw};

#[test]
fn what_is_pushed_the_peers_pull_and_a_second_push_sends_nothing() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let name = format!("{}/team/app:v1", registry.host);
    let digestfile = world.path("digest");
    let pushed = world
        .carrack(&[
            "push",
            "--digestfile",
            digestfile.to_str().unwrap(),
            "busybox:test",
            &name,
        ])
        .ok();
    let digest = std::fs::read_to_string(&digestfile).unwrap();
    assert_eq!(pushed.stdout, format!("Pushed: {name}\n{digest}\n"));
    let document = raw(&format!("docker://{name}"));
    for layer in document["layers"].as_array().unwrap() {
        let kind = layer["mediaType"].as_str().unwrap();
        assert!(kind.ends_with("tar+gzip"), "{kind}");
    }
    let copy = TempDir::new();
    let to = format!("dir:{}", copy.path().join("x").display());
    let from = format!("docker://{name}");
    peer("skopeo", &["copy", "--src-tls-verify=false", &from, &to]);

    // Deterministic: nothing is sent again, and the digest is the same.
    let again = world.carrack(&["push", "busybox:test", &name]).ok();
    assert!(again.stdout.ends_with(&format!("{digest}\n")));
    assert_eq!(again.stderr.matches("already there").count(), 2);
    let other = format!("{}/other:v1", registry.host);
    world
        .carrack(&["push", "-q", "busybox:test", &other])
        .ok()
        .stdout_is(&format!("{digest}\n"));

    // Pulled back into another store it is the same image, and its manifest stays when it is pushed on.
    let second = require!(World::empty());
    second.carrack(&["pull", "-q", &name]).ok();
    let third = format!("{}/third/app:v1", registry.host);
    second
        .carrack(&["push", "-q", &name, &third])
        .ok()
        .stdout_is(&format!("{digest}\n"));
    let ids = |world: &World| world.carrack(&["images", "-q"]).ok().stdout;
    assert_eq!(ids(&world), ids(&second));
}

#[test]
fn a_push_compresses_as_told() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    for (method, end) in [("zstd", "tar+zstd"), ("none", ".tar"), ("gzip", "tar+gzip")] {
        let name = format!("{}/app:{method}", registry.host);
        world
            .carrack(&["push", "-q", "--compression", method, "busybox:test", &name])
            .ok();
        let kind = raw(&format!("docker://{name}"))["layers"][0]["mediaType"].to_string();
        assert!(kind.trim_matches('"').ends_with(end), "{kind}");
    }
    let manifest = |name: &str| raw(&format!("docker://{name}"));
    let size = |name: &str| manifest(name)["layers"][0]["size"].as_u64().unwrap();
    let level = |level: &str| {
        let name = format!("{}/app:level{level}", registry.host);
        let flags = ["push", "-q", "--compression-level", level];
        world
            .carrack(&[&flags[..], &["busybox:test", &name]].concat())
            .ok();
        size(&name)
    };
    assert!(level("1") > level("9"));
    let name = format!("{}/app:docker", registry.host);
    world
        .carrack(&["push", "-q", "--format", "docker", "busybox:test", &name])
        .ok();
    let document = raw(&format!("docker://{name}"));
    assert_eq!(
        document["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    let name = format!("{}/app:bad", registry.host);
    let refused = world.carrack(&[
        "push",
        "--format",
        "docker",
        "--compression",
        "zstd",
        "busybox:test",
        &name,
    ]);
    refused.code_is(125).fails_with("cannot have zstd layers");
}

#[test]
fn layers_are_mounted_from_other_repositories() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    let first = format!("{}/a/app:v1", registry.host);
    world.carrack(&["push", "-q", "busybox:test", &first]).ok();
    let second = require!(World::empty());
    second.carrack(&["pull", "-q", &first]).ok();
    let to = format!("{}/b/app:v1", registry.host);
    let pushed = second.carrack(&["push", &first, &to]).ok();
    assert_eq!(
        pushed.stderr.matches("mounted").count(),
        2,
        "{}",
        pushed.stderr
    );
}

/// The places that the conformance suite goes through, below a directory and a registry.
fn places(at: &std::path::Path, registry: &str, name: &str) -> Vec<String> {
    let at = at.display();
    vec![
        format!("docker://{registry}/{name}:v1"),
        format!("oci:{at}/{name}:v1"),
        format!("oci-archive:{at}/{name}.oci.tar:v1"),
        format!("docker-archive:{at}/{name}.docker.tar:example.com/{name}:v1"),
        format!("dir:{at}/{name}.dir"),
    ]
}

/// One suite over all transports: each writes what every other reads, and the digest stays.
#[test]
fn every_transport_hands_an_image_to_every_other_unchanged() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let host = registry.host.as_str();
    let at = world.path("places");
    std::fs::create_dir(&at).unwrap();
    let start = format!("docker://{host}/start:v1");
    let pushed = world.carrack(&["push", "-q", "busybox:test", &start]).ok();
    let digest = pushed.stdout;
    let first = places(&at, host, "first");
    for place in &first {
        let copied = world.carrack(&["image", "copy", "-q", &start, place]);
        copied.ok().stdout_is(&digest);
        // A peer reads it, and finds the same manifest; of a docker archive it makes one of its own.
        if !place.starts_with("docker-archive") {
            let inspected = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
            let seen = peer("skopeo", &[&inspected[..], &[place]].concat());
            assert_eq!(seen.stdout, digest, "{place}");
        }
    }
    for (n, from) in first.iter().enumerate() {
        for to in places(&at, host, &format!("second{n}")) {
            let copied = world.carrack(&["image", "copy", "-q", from, &to]);
            copied.ok().stdout_is(&digest);
            if n > 0 {
                continue;
            }
            // And into the store of another world, where it is the same image again.
            let other = require!(World::empty());
            other.carrack(&["pull", "-q", &to]).ok();
            let ids = |world: &World| world.carrack(&["images", "-q"]).ok().stdout;
            assert_eq!(ids(&other), ids(&world), "{to}");
        }
    }
    // What the peer writes we read.
    for to in places(&at, host, "peer") {
        let tls = [
            "copy",
            "-q",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ];
        peer("skopeo", &[&tls[..], &[&start, &to]].concat());
        let other = require!(World::empty());
        other.carrack(&["pull", "-q", &to]).ok();
        let ids = |world: &World| world.carrack(&["images", "-q"]).ok().stdout;
        assert_eq!(ids(&other), ids(&world), "{to}");
    }
}

#[test]
fn what_is_there_stays_whole_when_a_copy_fails() {
    let world = require!(World::new());
    let layout = world.path("layout");
    let place = |name: &str| format!("oci:{}:{name}", layout.display());
    world
        .carrack(&["push", "-q", "busybox:test", &place("a")])
        .ok();
    world
        .carrack(&["push", "-q", "busybox:test", &place("b")])
        .ok();
    let index = || json(&std::fs::read_to_string(layout.join("index.json")).unwrap());
    assert_eq!(index()["manifests"].as_array().unwrap().len(), 2);
    // Two images, and none is named.
    let from = format!("oci:{}", layout.display());
    let copied = world.carrack(&["image", "copy", &from, "dir:/nowhere/x"]);
    copied.code_is(125).fails_with("no single image");
    // A damaged blob is found, and no archive is left.
    let manifest = index()["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let document = json(&std::fs::read_to_string(path(&manifest)).unwrap());
    let layer = path(document["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let archive = world.path("out.tar");
    let to = format!("oci-archive:{}", archive.display());
    let copied = world.carrack(&["image", "copy", &place("a"), &to]);
    copied.code_is(125).fails_with("has the digest");
    assert!(!archive.exists());
    let left = std::fs::read_dir(world.path("")).unwrap().flatten();
    assert!(
        !left
            .into_iter()
            .any(|e| e.file_name().to_string_lossy().contains("out.tar"))
    );
    std::fs::write(&archive, "mine").unwrap();
    let copied = world.carrack(&["image", "copy", &place("a"), &to]);
    copied.code_is(125).fails_with("exists");
    let copied = world.carrack(&[
        "image",
        "copy",
        &place("a"),
        &format!("dir:{}", world.path("root").display()),
    ]);
    copied.code_is(125).fails_with("holds something else");
}

#[test]
fn a_registry_is_searched_and_its_tags_are_listed() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    let host = &registry.host;
    for tag in ["v1", "v2"] {
        let name = format!("{host}/team/app:{tag}");
        world.carrack(&["push", "-q", "busybox:test", &name]).ok();
    }
    let app = format!("{host}/team/app");
    let tags = ["--format", "{{.Name}}:{{.Tag}}"];
    let expected = format!("{app}:v1\n{app}:v2\n");
    for verb in [&["image", "tags"][..], &["search", "--list-tags"]] {
        let listed = world.carrack(&[verb, &tags, &[&app]].concat());
        listed.ok().stdout_is(&expected);
    }
    let term = format!("{host}/app");
    let found = world.carrack(&["search", "--format", "{{.Name}}", &term]);
    found.ok().stdout_is(&format!("{app}\n"));
    // Without a term the whole catalogue.
    world
        .carrack(&["search", &format!("{host}/")])
        .ok()
        .stdout_is(&format!("NAME\n{app}\n"));
    for n in 0..1200 {
        let name = format!("many/app{n:04}");
        std::fs::create_dir_all(registry.repository(&name).join("_layers")).unwrap();
    }
    let all = ["search", "--format", "{{.Name}}", &format!("{host}/")];
    let first = world.carrack(&all).ok();
    assert_eq!(first.stdout.lines().count(), 1000);
    assert!(first.stderr.contains("--limit"), "{}", first.stderr);
    let all = world
        .carrack(&[&all[..], &["--limit", "5000"]].concat())
        .ok();
    assert_eq!(
        (all.stdout.lines().count(), all.stderr.as_str()),
        (1201, "")
    );
    let none = world.carrack(&["image", "tags", &format!("{host}/nobody")]);
    none.code_is(125).fails_with("nobody");
}
