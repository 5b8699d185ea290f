//! `carrack manifest`, and images for several machines wherever they go, beside skopeo and podman.

mod world;

use carrack_testkit::runtime::finish;
use carrack_testkit::{DockerRegistry, require, skip};
use serde_json::json;
use world::World;
use world::machines::{image, inspect, machine, platforms, podman, pushed, raw};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[test]
fn a_list_of_the_stores_images_is_pushed_and_the_peers_pull_each_machines_image() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    require!(skip::program("podman"));
    for platform in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
        image(
            &world,
            &format!("app:{}", platform.replace('/', "-")),
            platform,
        );
    }
    let made = world.carrack(&["manifest", "create", "app:v1", "app:linux-amd64"]);
    let id = made.ok().stdout;
    world
        .carrack(&[
            "manifest",
            "add",
            "--annotation",
            "k=v",
            "app:v1",
            "app:linux-arm64",
        ])
        .ok()
        .stdout_is(&id);
    world
        .carrack(&[
            "manifest",
            "create",
            "--amend",
            "app:v1",
            "app:linux-arm-v7",
        ])
        .ok()
        .stdout_is(&id);
    let all = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let list = inspect(&world, "app:v1");
    assert_eq!(platforms(&list), all);
    assert_eq!(list["manifests"][1]["annotations"], json!({"k": "v"}));
    assert_eq!(list["mediaType"], INDEX);

    let name = format!("{}/team/app:v1", registry.host);
    let digestfile = world.path("digest").display().to_string();
    let push = [
        "manifest",
        "push",
        "--digestfile",
        &digestfile,
        id.trim(),
        &name,
    ];
    let pushed = world.carrack(&push).ok();
    let digest = std::fs::read_to_string(&digestfile).unwrap();
    let line = format!("Pushed: {name} with 3 images\n{digest}\n");
    assert_eq!(pushed.stdout, line);
    let document = raw(&format!("docker://{name}"));
    assert_eq!(platforms(&document), all);
    assert_eq!(document["manifests"][1]["annotations"], json!({"k": "v"}));
    // What the registry has is what `inspect` shows of it.
    assert_eq!(inspect(&world, &name), document);
    // The same again is the same document: layers are compressed alike each time.
    world
        .carrack(&["manifest", "push", "-q", "app:v1", &name])
        .ok()
        .stdout_is(&format!("{digest}\n"));

    let podman = podman(&world);
    for platform in all {
        podman(&[
            "pull",
            "-q",
            "--tls-verify=false",
            "--platform",
            platform,
            &name,
        ]);
        let path = podman(&["image", "mount", &name]).stdout;
        let text = std::fs::read_to_string(format!("{}/machine", path.trim())).unwrap();
        assert_eq!(text, platform);
        podman(&["image", "unmount", &name]);

        let other = require!(World::empty());
        other
            .carrack(&["pull", "-q", "--platform", platform, &name])
            .ok();
        assert_eq!(machine(&other, &name), platform);
        let shown = other.carrack(&["image", "inspect", "-f", "{{.Digest}}", &name]);
        shown.ok().stdout_is(&format!("{digest}\n"));
    }
    podman(&["rmi", "-a", "-f"]);
    let wrong = world.carrack(&["pull", "--platform", "linux/s390x", &name]);
    wrong
        .code_is(125)
        .fails_with("linux/amd64, linux/arm64, linux/arm/v7");
}

#[test]
fn what_podman_makes_a_list_of_we_inspect_pull_and_add_to() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    require!(skip::program("podman"));
    let host = registry.host.as_str();
    for (tag, platform) in [("a", "linux/amd64"), ("b", "linux/arm64")] {
        pushed(&world, &registry, &format!("app:{tag}"), platform);
    }
    let podman = podman(&world);
    podman(&["manifest", "create", "theirs"]);
    for tag in ["a", "b"] {
        let from = format!("docker://{host}/app:{tag}");
        podman(&["manifest", "add", "--tls-verify=false", "theirs", &from]);
    }
    let name = format!("{host}/theirs:v1");
    let to = format!("docker://{name}");
    podman(&["manifest", "push", "--tls-verify=false", "theirs", &to]);
    podman(&["rmi", "-a", "-f"]);

    assert_eq!(
        platforms(&inspect(&world, &name)),
        ["linux/amd64", "linux/arm64"]
    );
    for platform in ["linux/amd64", "linux/arm64"] {
        let other = require!(World::empty());
        other
            .carrack(&["pull", "-q", "--platform", platform, &name])
            .ok();
        assert_eq!(machine(&other, &name), platform);
    }
    // Its images go on in a list of ours, untouched.
    image(&world, "app:c", "linux/riscv64");
    world
        .carrack(&["manifest", "create", "--all", "ours", &name, "app:c"])
        .ok();
    let ours = format!("{host}/ours:v1");
    world
        .carrack(&["manifest", "push", "-q", "ours", &ours])
        .ok();
    let (before, after) = (inspect(&world, &name), inspect(&world, &ours));
    assert_eq!(
        platforms(&after),
        ["linux/amd64", "linux/arm64", "linux/riscv64"]
    );
    for n in 0..2 {
        assert_eq!(
            after["manifests"][n]["digest"],
            before["manifests"][n]["digest"]
        );
    }
}

#[test]
fn images_of_a_registry_are_listed_where_they_are_and_pushed_byte_for_byte() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let elsewhere = require!(DockerRegistry::start(""));
    require!(skip::program("skopeo"));
    let host = registry.host.as_str();
    let mut digests = Vec::new();
    for (tag, platform) in [("a", "linux/amd64"), ("b", "linux/arm64")] {
        let name = format!("app:{tag}");
        digests.push(pushed(&world, &registry, &name, platform).1);
        world.carrack(&["rmi", &name]).ok();
    }
    let (a, b) = (format!("docker://{host}/app:a"), format!("{host}/app:b"));
    world.carrack(&["manifest", "create", "list", &a]).ok();
    // With an override, which the image does not say.
    world
        .carrack(&["manifest", "add", "--variant", "v8", "list", &b])
        .ok();
    let shown = ["manifest", "ls", "--format", "{{.Name}} {{.Platforms}}"];
    let line = "list:latest linux/amd64,linux/arm64/v8\n";
    world.carrack(&shown).ok().stdout_is(line);
    assert_eq!(
        std::fs::read_dir(world.path("root/layers"))
            .unwrap()
            .count(),
        0,
        "nothing of them is fetched"
    );
    let to = format!("{host}/list:v1");
    let pushed = world.carrack(&["manifest", "push", "list", &to]).ok();
    assert_eq!(pushed.stderr.matches("mounted").count(), 4, "{pushed}");
    let document = raw(&format!("docker://{to}"));
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(document["manifests"][n]["digest"], *digest);
    }
    // To another registry, a layout, an archive and a directory.
    let digest = world
        .carrack(&["manifest", "push", "-q", "list", &to])
        .ok()
        .stdout;
    let at = world.path("");
    let at = at.display();
    for place in [
        format!("{}/list:v1", elsewhere.host),
        format!("oci:{at}layout:v1"),
        format!("oci-archive:{at}archive.tar:v1"),
        format!("dir:{at}plain"),
    ] {
        world
            .carrack(&["manifest", "push", "-q", "list", &place])
            .ok()
            .stdout_is(&digest);
        let other = require!(World::empty());
        other
            .carrack(&["pull", "-q", "--platform", "linux/arm64", &place])
            .ok();
        let name = other.carrack(&["images", "-q"]).ok().stdout;
        assert_eq!(machine(&other, name.trim()), "linux/arm64", "{place}");
    }
    let archive = format!("docker-archive:{at}docker.tar");
    let refused = world.carrack(&["manifest", "push", "list", &archive]);
    refused.code_is(125).fails_with("one platform only");
    // A list of what a layout has, made in another directory than it is pushed from.
    let made = finish(
        world
            .command(&["manifest", "create", "--all", "again", "oci:layout:v1"])
            .current_dir(world.path("")),
    );
    made.ok();
    let again = format!("{host}/again:v1");
    world
        .carrack(&["manifest", "push", "-q", "again", &again])
        .ok();
    assert_eq!(raw(&format!("docker://{again}")), document);
    // The list alone, in docker's format, to where its images are; then it is gone.
    let third = format!("{host}/list:docker");
    let push = [
        "manifest",
        "push",
        "--all=false",
        "--format",
        "v2s2",
        "--purge",
    ];
    world
        .carrack(&[&push[..], &["list", &third]].concat())
        .ok()
        .stdout_has(&format!("Pushed: {third}\n"));
    let docker = raw(&format!("docker://{third}"));
    assert_eq!(docker["mediaType"], DOCKER_LIST);
    assert_eq!(docker["manifests"][0]["digest"], digests[0]);
    world.carrack(&["manifest", "exists", "list"]).code_is(1);
}

#[test]
fn an_image_for_several_machines_is_added_for_one_or_for_all() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let name = format!("{}/app:v1", registry.host);
    let native = carrack_spec::image::Platform::native().to_string();
    image(&world, "here", &native);
    image(&world, "there", "linux/riscv64");
    world
        .carrack(&["manifest", "create", &name, "here", "there"])
        .ok();
    world.carrack(&["manifest", "push", "-q", &name]).ok();
    world.carrack(&["manifest", "rm", &name]).ok();

    let listed = |flags: &[&str], image: &str| {
        world.carrack(&["manifest", "create", "one"]).ok();
        world
            .carrack(&[&["manifest", "add"], flags, &["one", image]].concat())
            .ok();
        let list = inspect(&world, "one");
        world.carrack(&["manifest", "rm", "one"]).ok();
        platforms(&list)
    };
    // In the registry, and pulled into the store: the other machine's image stays in the registry.
    let cases = |world: &World| {
        assert_eq!(listed(&[], &name), [native.as_str()]);
        assert_eq!(listed(&["--arch", "riscv64"], &name), ["linux/riscv64"]);
        assert_eq!(
            listed(&["--all"], &name),
            [native.as_str(), "linux/riscv64"]
        );
        let none = ["manifest", "create", "two", "--all", &name];
        world.carrack(&none).ok();
        let to = format!("{}/two:v1", registry.host);
        world.carrack(&["manifest", "push", "-q", "two", &to]).ok();
        world.carrack(&["manifest", "rm", "two"]).ok();
        assert_eq!(
            inspect(world, &to)["manifests"],
            inspect(world, &name)["manifests"]
        );
    };
    cases(&world);
    world.carrack(&["pull", "-q", &name]).ok();
    cases(&world);
    world.carrack(&["manifest", "create", "one"]).ok();
    let wrong = world.carrack(&["manifest", "add", "--arch", "s390x", "one", &name]);
    wrong.code_is(125).fails_with("linux/riscv64");
    let both = world.carrack(&["manifest", "add", "--all", "--arch", "s390x", "one", &name]);
    both.code_is(125).fails_with("--all");
}

#[test]
fn entries_are_annotated_and_removed_and_lists_go() {
    let world = require!(World::empty());
    image(&world, "a", "linux/amd64");
    image(&world, "b", "linux/arm64");
    world
        .carrack(&["manifest", "create", "list", "a", "b"])
        .ok();
    let annotate = [
        "manifest",
        "annotate",
        "--arch",
        "arm",
        "--variant",
        "v7",
        "--os-version",
        "6.1",
    ];
    let more = [
        "--os-features",
        "x,y",
        "--features",
        "sse4",
        "--annotation",
        "k=v",
        "list",
        "b",
    ];
    world.carrack(&[&annotate[..], &more].concat()).ok();
    let list = inspect(&world, "list");
    let platform = json!({"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "6.1",
        "os.features": ["x", "y"], "features": ["sse4"]});
    assert_eq!(list["manifests"][1]["platform"], platform);
    assert_eq!(list["manifests"][1]["annotations"], json!({"k": "v"}));
    world
        .carrack(&[
            "manifest",
            "annotate",
            "--index",
            "--annotation",
            "of=list",
            "list",
        ])
        .ok();
    assert_eq!(
        inspect(&world, "list")["annotations"],
        json!({"of": "list"})
    );
    let digest = list["manifests"][0]["digest"].as_str().unwrap().to_owned();
    world.carrack(&["manifest", "remove", "list", &digest]).ok();
    assert_eq!(platforms(&inspect(&world, "list")), ["linux/arm/v7"]);

    world
        .carrack(&["manifest", "remove", "list", &digest])
        .code_is(125)
        .fails_with("has no image");
    world
        .carrack(&["manifest", "annotate", "list", "nobody"])
        .code_is(125)
        .fails_with("has no image \"nobody\"");
    world
        .carrack(&["manifest", "add", "--annotation", "k", "list", "a"])
        .code_is(125)
        .fails_with("KEY=VALUE");
    world
        .carrack(&["manifest", "create", "list"])
        .code_is(125)
        .fails_with("--amend");
    world
        .carrack(&["manifest", "add", "nolist", "a"])
        .code_is(125)
        .fails_with("no manifest list \"nolist\"");
    world
        .carrack(&["manifest", "exists", "list"])
        .ok()
        .stdout_is("");
    world.carrack(&["manifest", "exists", "nolist"]).code_is(1);
    world.carrack(&["manifest", "create", "empty"]).ok();
    world
        .carrack(&["manifest", "push", "empty", "dir:/nowhere"])
        .code_is(125)
        .fails_with("has no images");
    let gone = world.carrack(&["manifest", "rm", "list", "nolist", "empty"]);
    assert!(
        gone.stdout.contains("Untagged: list:latest\nDeleted: "),
        "{gone}"
    );
    gone.code_is(1).fails_with("no manifest list \"nolist\"");
    world.carrack(&["manifest", "rm", "-i", "list"]).ok();
    world.carrack(&["manifest", "ls", "-q"]).ok().stdout_is("");
}

#[test]
fn a_list_keeps_its_images_and_lets_them_go() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    image(&world, "a", "linux/amd64");
    image(&world, "b", "linux/arm64");
    world
        .carrack(&["manifest", "create", "list", "a", "b"])
        .ok();
    world.carrack(&["rmi", "a", "b"]).ok();
    world.carrack(&["system", "prune", "-af"]).ok();
    let layers = || {
        std::fs::read_dir(world.path("root/layers"))
            .unwrap()
            .count()
    };
    assert_eq!(layers(), 2);
    let df = ["system", "df", "--format", "{{.Type}} {{.Reclaimable}}"];
    let reclaimable = world.carrack(&df).ok().stdout;
    assert!(reclaimable.contains("Images 0 B"), "{reclaimable}");
    world
        .carrack(&["system", "check"])
        .ok()
        .stdout_has("nothing wrong");
    let name = format!("{}/list:v1", registry.host);
    world
        .carrack(&["manifest", "push", "-q", "list", &name])
        .ok();
    world.carrack(&["manifest", "remove", "list", "a"]).ok();
    assert_eq!(layers(), 1);

    // What is damaged is found; a repair takes it out of the list.
    let layer = std::fs::read_dir(world.path("root/layers")).unwrap().next();
    let file = layer.unwrap().unwrap().path().join("fs/machine");
    std::fs::write(file, "damaged").unwrap();
    world
        .carrack(&["system", "check"])
        .code_is(1)
        .stdout_has("manifest list list:latest lacks layer sha256:");
    world.carrack(&["system", "check", "--repair"]);
    world
        .carrack(&["system", "check"])
        .ok()
        .stdout_has("nothing wrong");
    assert_eq!(platforms(&inspect(&world, "list")), [""; 0]);
    world.carrack(&["manifest", "rm", "list"]).ok();
    assert_eq!(layers(), 0);
    let blobs = std::fs::read_dir(world.path("root/blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[test]
fn processes_that_add_to_one_list_at_once_lose_nothing() {
    let world = require!(World::empty());
    let names: Vec<String> = (0..8).map(|n| format!("app:{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        image(&world, name, &format!("linux/arm/v{n}"));
    }
    world.carrack(&["manifest", "create", "list"]).ok();
    let adding: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = world.command(&["manifest", "add", "list", name]);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in adding {
        assert!(child.wait().unwrap().success());
    }
    let mut listed = platforms(&inspect(&world, "list"));
    listed.sort();
    let all: Vec<String> = (0..8).map(|n| format!("linux/arm/v{n}")).collect();
    assert_eq!(listed, all);
}
