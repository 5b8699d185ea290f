//! Images for several machines: pulled, pushed and copied, one or all of them, beside skopeo.

mod world;

use carrack_spec::image::Platform;
use carrack_testkit::{DockerRegistry, require, skip};
use serde_json::Value;
use std::path::Path;
use world::World;
use world::machines::{image, inspect, json, machine, peer, platforms, raw};

/// An index of three images in the registry, one of them for this machine; the names and digest of it.
fn index(world: &World, host: &str) -> (String, String) {
    let native = Platform::native().to_string();
    for (name, platform) in [
        ("a", native.as_str()),
        ("b", "linux/riscv64"),
        ("c", "linux/arm/v6"),
    ] {
        image(world, name, platform);
    }
    let name = format!("{host}/several:v1");
    let create = ["manifest", "create", &name, "a", "b", "c"];
    world.carrack(&create).ok();
    let digest = world
        .carrack(&["manifest", "push", "-q", &name])
        .ok()
        .stdout;
    world.carrack(&["manifest", "rm", &name]).ok();
    (name, digest)
}

/// All transports that hold an index, below a directory and a registry.
fn places(at: &Path, registry: &str, name: &str) -> Vec<String> {
    let at = at.display();
    vec![
        format!("docker://{registry}/{name}:v1"),
        format!("oci:{at}/{name}:v1"),
        format!("oci-archive:{at}/{name}.oci.tar:v1"),
        format!("dir:{at}/{name}.dir"),
    ]
}

#[test]
fn a_copy_of_all_goes_through_every_transport_and_the_peer_finds_it_whole() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let host = registry.host.as_str();
    let at = world.path("places");
    std::fs::create_dir(&at).unwrap();
    let (name, digest) = index(&world, host);
    let start = format!("docker://{name}");
    let all = [
        Platform::native().to_string(),
        "linux/riscv64".into(),
        "linux/arm/v6".into(),
    ];
    let tls = [
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    for (n, to) in places(&at, host, "ours").iter().enumerate() {
        let copied = world.carrack(&["image", "copy", "-a", &start, to]).ok();
        assert_eq!(
            copied.stdout,
            format!("Copied 3 manifests to {to}\n{digest}")
        );
        assert_eq!(platforms(&raw(to)), all, "{to}");
        // The peer verifies every blob of it.
        let copy = format!("dir:{}", at.join(format!("peer{n}")).display());
        peer("skopeo", &[&tls[..], &[to, &copy]].concat());
        // And back again, from the place to the registry.
        let back = format!("{host}/back{n}:v1");
        let copied = world.carrack(&["image", "copy", "-q", "--multi-arch", "all", to, &back]);
        copied.ok().stdout_is(&digest);
    }
    // What the peer writes we read.
    for to in places(&at, host, "theirs") {
        peer("skopeo", &[&tls[..], &[&start, &to]].concat());
        let onwards = format!("{host}/onwards:v1");
        let copied = world.carrack(&["image", "copy", "-q", "-a", &to, &onwards]);
        copied.ok().stdout_is(&digest);
    }
    let docker = format!("docker-archive:{}", at.join("docker.tar").display());
    let refused = world.carrack(&["image", "copy", "-a", &start, &docker]);
    refused.code_is(125).fails_with("one platform only");
    assert!(!at.join("docker.tar").exists());
}

#[test]
fn a_copy_takes_one_machine_or_the_index_alone() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let elsewhere = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let (name, digest) = index(&world, &registry.host);
    let document = inspect(&world, &name);
    let of = |n: usize| format!("{}\n", document["manifests"][n]["digest"].as_str().unwrap());
    let to = format!("{}/one:v1", elsewhere.host);
    for (flags, wanted) in [
        (&[][..], of(0)),
        (&["--multi-arch", "system"], of(0)),
        (&["--platform", "linux/riscv64"], of(1)),
        (&["--platform", "linux/arm/v7"], of(2)),
    ] {
        let copied = world.carrack(&[&["image", "copy", "-q"], flags, &[&name, &to]].concat());
        copied.ok().stdout_is(&wanted);
        assert_ne!(raw(&format!("docker://{to}"))["config"], Value::Null);
    }
    let none = ["image", "copy", "--platform", "windows/amd64", &name, &to];
    let refused = world.carrack(&none);
    refused
        .code_is(125)
        .fails_with("linux/riscv64, linux/arm/v6");
    // The index alone goes to where its images are, and nowhere else.
    let alone = ["image", "copy", "-q", "--multi-arch", "index-only"];
    let there = format!("{}/several:v2", registry.host);
    world
        .carrack(&[&alone[..], &[&name, &there]].concat())
        .ok()
        .stdout_is(&digest);
    let nowhere = format!("{}/several:v2", elsewhere.host);
    let refused = world.carrack(&[&alone[..], &[&name, &nowhere]].concat());
    refused.code_is(125).fails_with(&elsewhere.host);
}

#[test]
fn a_push_of_all_keeps_the_index_and_fetches_what_is_not_here() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let elsewhere = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let (name, digest) = index(&world, &registry.host);
    let second = require!(World::empty());
    second.carrack(&["pull", "-q", &name]).ok();
    let one = format!("{}/app:one", elsewhere.host);
    second.carrack(&["push", "-q", &name, &one]).ok();
    assert_ne!(raw(&format!("docker://{one}"))["config"], Value::Null);
    let layout = format!("oci:{}:v1", second.path("layout").display());
    for to in [format!("docker://{}/app:all", elsewhere.host), layout] {
        let pushed = second.carrack(&["push", "--all", &name, &to]).ok();
        assert!(
            pushed
                .stdout
                .ends_with(&format!(" with 3 images\n{digest}")),
            "{pushed}"
        );
        assert_eq!(raw(&to), inspect(&world, &name));
    }
    // Compressed anew, the image that is here has another manifest, and the index names that one.
    let zstd = format!("{}/app:zstd", elsewhere.host);
    let push = ["push", "-q", "--all", "--compression", "zstd", &name, &zstd];
    second.carrack(&push).ok();
    let (new, old) = (inspect(&world, &zstd), inspect(&world, &name));
    assert_eq!(platforms(&new), platforms(&old));
    assert_ne!(new["manifests"][0]["digest"], old["manifests"][0]["digest"]);
    assert_eq!(new["manifests"][1], old["manifests"][1]);
    let third = require!(World::empty());
    third.carrack(&["pull", "-q", &zstd]).ok();
    assert_eq!(machine(&third, &zstd), Platform::native().to_string());
    // An image that came alone goes alone.
    let alone = format!("{}/alone:v1", elsewhere.host);
    world.carrack(&["push", "-q", "--all", "b", &alone]).ok();
}

#[test]
fn a_pull_is_for_the_machine_that_was_asked_for_each_time() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    for (name, platform) in [
        ("a", "linux/arm/v6"),
        ("b", "linux/arm/v7"),
        ("c", "linux/arm64"),
    ] {
        image(&world, name, platform);
    }
    let name = format!("{}/arms:v1", registry.host);
    world
        .carrack(&["manifest", "create", &name, "a", "b", "c"])
        .ok();
    world.carrack(&["manifest", "push", "-q", &name]).ok();
    let other = require!(World::empty());
    for (asked, made_for, fresh) in [
        ("linux/arm64", "linux/arm64", true),
        ("linux/arm/v6", "linux/arm/v6", true),
        ("linux/arm/v7", "linux/arm/v7", true),
        ("linux/arm/v7", "linux/arm/v7", false),
        ("linux/arm/v8", "linux/arm/v7", false),
        ("linux/arm64/v8", "linux/arm64", false),
        ("aarch64", "linux/arm64", false),
    ] {
        let pulled = other.carrack(&["pull", "--platform", asked, &name]).ok();
        assert_eq!(machine(&other, &name), made_for, "{asked}");
        if fresh {
            assert!(pulled.stdout.starts_with("Pulled: "), "{pulled}");
        }
        let again = other.carrack(&["pull", "--platform", asked, &name]).ok();
        assert!(again.stdout.starts_with("Up to date: "), "{again}");
    }
    // Another machine's image is taken where there is only that one, and told.
    let alone = format!("{}/alone:v1", registry.host);
    world.carrack(&["push", "-q", "c", &alone]).ok();
    let pulled = other
        .carrack(&["pull", "--platform", "linux/riscv64", &alone])
        .ok();
    let warning = format!("{alone} is for linux/arm64, not for linux/riscv64");
    assert!(pulled.stderr.contains(&warning), "{pulled}");
    let wrong = other.carrack(&["pull", "--platform", "linux/", &alone]);
    wrong.code_is(125).fails_with("linux/arm64");
}

#[test]
fn a_list_is_run_and_pushed_by_its_name() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    let native = Platform::native().to_string();
    let list = format!("{}/app:v1", registry.host);
    image(&world, "there", "linux/riscv64");
    world.carrack(&["manifest", "create", &list, "there"]).ok();
    // Nothing fits this machine.
    let none = world.carrack(&["run", "--rm", &list, "true"]);
    none.code_is(125)
        .fails_with(&format!("no image for {native} (there are: linux/riscv64)"));
    world
        .carrack(&["manifest", "add", &list, "busybox:test"])
        .ok();
    let runs = |world: &World, flags: &[&str], name: &str| {
        let run = [&["run", "--rm"], flags, &[name, "echo", "ran"]].concat();
        world.carrack(&run)
    };
    runs(&world, &[], &list).ok().stdout_is("ran\n");
    let line = ["manifest", "inspect", &list];
    let before = json(&world.carrack(&line).ok().stdout);

    // The list with all its images, and not one of them.
    let output = world.carrack(&["push", &list]).ok();
    let digest = output.stdout.lines().last().unwrap();
    assert_eq!(
        output.stdout,
        format!("Pushed: {list} with 2 images\n{digest}\n")
    );
    let document = raw(&format!("docker://{list}"));
    assert_eq!(platforms(&document), ["linux/riscv64", native.as_str()]);
    assert_eq!(platforms(&before), platforms(&document));

    // A list of what is elsewhere: its image is pulled when it is run.
    let other = require!(World::empty());
    let create = ["manifest", "create", "--all", "theirs", &list];
    other.carrack(&create).ok();
    let never = runs(&other, &["--pull", "never"], "theirs");
    never.code_is(125).fails_with("pull");
    runs(&other, &[], "theirs").ok().stdout_is("ran\n");
    runs(&other, &["--pull", "never"], "theirs").ok();

    // An image of the same name goes first, a list's name before the start of an id.
    world.carrack(&["tag", "there", &list]).ok();
    let to = format!("{}/one:v1", registry.host);
    world.carrack(&["push", "-q", &list, &to]).ok();
    assert!(raw(&format!("docker://{to}"))["manifests"].is_null());
    let id = world.carrack(&["images", "-q", "busybox"]).ok().stdout;
    let start = &id.trim()[..8];
    world.carrack(&["manifest", "create", start, "there"]).ok();
    world
        .carrack(&["run", "--rm", start, "true"])
        .code_is(125)
        .fails_with("linux/riscv64");
    world.carrack(&["rmi", &list]).ok();
    runs(&world, &[], &list).ok();
    let refused = world.carrack(&["push", &list, "docker-archive:/nowhere.tar"]);
    refused.code_is(125).fails_with("one platform only");
    world.assert_nothing_left("carrack-none");
    other.assert_nothing_left("carrack-none");
}
