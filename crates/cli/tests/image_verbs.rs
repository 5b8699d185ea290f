//! The verbs of `carrack image` and `carrack system`, each by its effect.

mod world;

use carrack_testkit::runtime::finish;
use carrack_testkit::{DockerRegistry, require, skip};
use std::path::Path;
use std::process::Command;
use world::World;
use world::machines::{json, peer, podman};

/// A tar file with these files, made by GNU tar.
fn tar(world: &World, name: &str, files: &[(&str, &str)]) -> String {
    let directory = world.path(&format!("{name}.files"));
    for (path, text) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let archive = world.path(name).display().to_string();
    let from = directory.display().to_string();
    peer("tar", &["-C", &from, "-cf", &archive, "."]);
    archive
}

#[test]
fn names_come_and_go_and_the_list_shows_them() {
    let world = require!(World::new());
    world
        .carrack(&["tag", "busybox:test", "team/app:v1", "team/app:v2"])
        .ok();
    let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    let names = |more: &[&str]| {
        let output = world.carrack(&[&format[..], more].concat()).ok().stdout;
        let mut names: Vec<String> = output.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["busybox:test", "team/app:v1", "team/app:v2"]);
    assert_eq!(names(&["-f", "reference=*app:v1"]), ["team/app:v1"]);
    assert_eq!(names(&["team/app"]), ["team/app:v1", "team/app:v2"]);
    assert_eq!(names(&["-f", "dangling=true"]), [""; 0]);
    assert_eq!(names(&["-f", "label=none"]), [""; 0]);
    // One image, however many names.
    let ids = world
        .carrack(&["image", "ls", "-q", "--no-trunc"])
        .ok()
        .stdout;
    assert_eq!(ids.lines().count(), 1);
    assert!(ids.starts_with("sha256:"));
    let table = world.carrack(&["images", "--digests"]).ok().stdout;
    assert!(table.starts_with("REPOSITORY"), "{table}");
    assert!(table.lines().next().unwrap().ends_with("SIZE"), "{table}");
    let row = json(
        world
            .carrack(&["images", "--format", "json", "busybox"])
            .ok()
            .stdout
            .trim(),
    );
    assert_eq!(row["Repository"], "busybox");

    world
        .carrack(&["untag", "team/app:v1", "team/app:v1"])
        .ok()
        .stdout_is("Untagged: team/app:v1\n");
    world.carrack(&["untag", "busybox:test"]).ok();
    assert_eq!(names(&[]), ["<none>:<none>"]);
    world
        .carrack(&["images", "--format", "{{.Nope}}"])
        .code_is(125)
        .fails_with("there are");
    world
        .carrack(&["images", "-f", "nope=1"])
        .code_is(125)
        .fails_with("reference");
}

#[test]
fn inspect_history_and_tree_tell_what_the_image_is() {
    let world = require!(World::new());
    world.carrack(&["tag", "busybox:test", "other:v1"]).ok();
    let all = json(
        &world
            .carrack(&["image", "inspect", "busybox:test"])
            .ok()
            .stdout,
    );
    let image = &all[0];
    assert_eq!(
        image["RepoTags"],
        serde_json::json!(["busybox:test", "other:v1"])
    );
    assert!(
        image["RepoDigests"][0]
            .as_str()
            .unwrap()
            .starts_with("busybox@sha256:")
    );
    assert_eq!(image["Config"]["Env"], serde_json::json!(["OF_IMAGE=yes"]));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(image["Os"], "linux");
    assert!(image["Size"].as_u64().unwrap() > 100_000);
    let field = [
        "image",
        "inspect",
        "-f",
        "{{index .Config.Env 0}} {{.Architecture}}",
    ];
    let shown = world
        .carrack(&[&field[..], &["other:v1"]].concat())
        .ok()
        .stdout;
    assert!(shown.starts_with("OF_IMAGE=yes "), "{shown}");
    let both = world.carrack(&["image", "inspect", "busybox:test", "nobody"]);
    both.code_is(1)
        .fails_with("no image \"nobody\"")
        .stdout_has("RepoTags");

    let history = world
        .carrack(&["history", "--no-trunc", "--human=false", "busybox:test"])
        .ok();
    assert_eq!(history.stdout.lines().count(), 3, "{history}");
    world
        .carrack(&["history", "-q", "busybox:test"])
        .ok()
        .stdout_has("<missing>");
    let layer = tar(&world, "one.tar", &[("a", "1")]);
    world.carrack(&["import", &layer, "one:v1"]).ok();
    let tree = world.carrack(&["image", "tree"]).ok().stdout;
    assert!(
        tree.contains("busybox:test, other:v1") && tree.contains("one:v1"),
        "{tree}"
    );
    assert!(tree.contains("└─ "), "{tree}");
    let tree = world.carrack(&["image", "tree", "one:v1"]).ok().stdout;
    assert_eq!(tree.lines().count(), 1, "{tree}");
    world
        .carrack(&["image", "diff", "busybox:test"])
        .ok()
        .stdout_is("C /etc\nD /etc/hidden\n");
    let diff = world
        .carrack(&[
            "image",
            "diff",
            "--format",
            "json",
            "one:v1",
            "busybox:test",
        ])
        .ok();
    let diff = json(&diff.stdout);
    assert_eq!(diff["added"], serde_json::json!(["/a"]));
    assert!(
        diff["deleted"]
            .as_array()
            .unwrap()
            .contains(&"/bin/busybox".into())
    );
}

#[test]
fn an_import_has_the_files_and_the_defaults_that_were_told() {
    let world = require!(World::new());
    let layer = tar(&world, "app.tar", &[("etc/motd", "hello"), ("data/x", "1")]);
    let flags = [
        "import",
        "-m",
        "by hand",
        "-c",
        "ENV A=b",
        "-c",
        "WORKDIR /data",
    ];
    let id = world
        .carrack(&[&flags[..], &[&layer, "app:v1"]].concat())
        .ok()
        .stdout;
    let image = json(&world.carrack(&["image", "inspect", "app:v1"]).ok().stdout);
    assert_eq!(image[0]["Id"], id.trim());
    assert_eq!(image[0]["Config"]["Env"], serde_json::json!(["A=b"]));
    assert_eq!(image[0]["Config"]["WorkingDir"], "/data");
    assert_eq!(image[0]["Comment"], "by hand");

    let path = world.carrack(&["image", "mount", "app:v1"]).ok().stdout;
    let at = Path::new(path.trim());
    assert_eq!(
        std::fs::read_to_string(at.join("etc/motd")).unwrap(),
        "hello"
    );
    assert!(std::fs::write(at.join("new"), "").is_err(), "read-only");
    world
        .carrack(&["image", "mount"])
        .ok()
        .stdout_has(path.trim());
    // Its layers cannot go away meanwhile.
    world
        .carrack(&["rmi", "app:v1"])
        .code_is(1)
        .fails_with("is used by container mount-");
    world.carrack(&["image", "unmount", "app:v1"]).ok();
    assert!(!at.exists());
    world
        .carrack(&["image", "unmount", "app:v1"])
        .code_is(1)
        .fails_with("is not mounted");
    world
        .carrack(&["rmi", "app:v1"])
        .ok()
        .stdout_has("Deleted: sha256:");
    world
        .carrack(&["import", "-c", "FROM x", &layer])
        .code_is(125)
        .fails_with("no instruction");
    world
        .carrack(&["import", "/nowhere.tar"])
        .code_is(125)
        .fails_with("/nowhere.tar");
}

#[test]
fn removal_and_pruning_free_what_nothing_uses() {
    let world = require!(World::new());
    for (n, name) in ["a:v1", "b:v1", "c:v1"].iter().enumerate() {
        let layer = tar(
            &world,
            &format!("{n}.tar"),
            &[("file", &"x".repeat(100_000 + n))],
        );
        world
            .carrack(&["import", "-c", &format!("LABEL n={n}"), &layer, name])
            .ok();
    }
    let layers = || {
        std::fs::read_dir(world.path("root/layers"))
            .unwrap()
            .count()
    };
    assert_eq!(layers(), 5);
    world.carrack(&["untag", "a:v1"]).ok();
    world
        .carrack(&["image", "prune"])
        .code_is(125)
        .fails_with("--force");
    let pruned = world.carrack(&["image", "prune", "-f"]).ok();
    assert!(pruned.stdout.contains("Deleted: sha256:"), "{pruned}");
    assert!(
        pruned.stdout.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(layers(), 4);
    let kept = world
        .carrack(&["image", "prune", "-af", "--filter", "label=n=1"])
        .ok();
    assert!(kept.stdout.contains("Untagged: b:v1"), "{kept}");
    world
        .carrack(&["image", "prune", "-af", "--filter", "until=24h"])
        .ok();
    assert_eq!(layers(), 3);
    world
        .carrack(&["rmi", "nobody"])
        .code_is(1)
        .fails_with("no image");
    world.carrack(&["rmi", "-i", "nobody"]).ok();
    world.carrack(&["tag", "c:v1", "d:v1"]).ok();
    let id = world.carrack(&["images", "-q", "c"]).ok().stdout;
    world
        .carrack(&["rmi", id.trim()])
        .code_is(1)
        .fails_with("2 names");
    world
        .carrack(&["rmi", "-f", id.trim()])
        .ok()
        .stdout_has("Deleted: ");
    world.carrack(&["rmi", "-a"]).ok();
    assert_eq!(layers(), 0);
}

#[test]
fn saved_images_cross_over_to_the_peers_and_back() {
    let world = require!(World::new());
    require!(skip::program("skopeo"));
    world.carrack(&["tag", "busybox:test", "other:v2"]).ok();
    let id = world.carrack(&["images", "-q", "--no-trunc"]).ok().stdout;
    for (format, transport) in [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
        ("docker-dir", "dir"),
    ] {
        let path = world.path(format).display().to_string();
        world
            .carrack(&["save", "--format", format, "-o", &path, "busybox:test"])
            .ok();
        let place = format!("{transport}:{path}");
        let config = json(&peer("skopeo", &["inspect", "--config", &place]).stdout);
        assert_eq!(config["config"]["Env"][0], "OF_IMAGE=yes", "{format}");
        let other = require!(World::empty());
        match format {
            "docker-dir" => other.carrack(&["pull", "-q", &place]).ok(),
            _ => other
                .carrack(&["load", "-q", "-i", &path])
                .ok()
                .stdout_is("busybox:test\n"),
        };
        let ids = other.carrack(&["images", "-q", "--no-trunc"]).ok().stdout;
        assert_eq!(ids, id, "{format}");
    }
    // Two images, compressed, over a pipe.
    let save = ["save", "--compress", "busybox:test", "other:v2"];
    let archive = world.path("both.tar");
    let file = std::fs::File::create(&archive).unwrap();
    assert!(
        world
            .command(&save)
            .stdout(file)
            .status()
            .unwrap()
            .success()
    );
    let other = require!(World::empty());
    let mut load = other.command(&["load", "-q"]);
    let loaded = finish(load.stdin(std::fs::File::open(&archive).unwrap())).ok();
    let mut names: Vec<_> = loaded.stdout.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["busybox:test", "other:v2"]);
    let nowhere = ["save", "-o", "/nowhere/x.tar", "busybox:test"];
    world
        .carrack(&nowhere)
        .code_is(125)
        .fails_with("/nowhere/x.tar");
    world
        .carrack(&["save", "-o", "x.tar", "nobody"])
        .code_is(125)
        .fails_with("nobody");
}

#[test]
fn podman_reads_what_we_save_and_we_read_what_it_saves() {
    let world = require!(World::new());
    require!(skip::program("podman"));
    let podman = podman(&world);
    let ours = world.path("ours.tar").display().to_string();
    world
        .carrack(&["save", "-q", "-o", &ours, "busybox:test"])
        .ok();
    podman(&["load", "-q", "-i", &ours]);
    let id = podman(&["images", "-q", "--no-trunc"]).stdout;
    let own = world.carrack(&["images", "-q", "--no-trunc"]).ok().stdout;
    assert_eq!(id, own);
    for format in ["docker-archive", "oci-archive"] {
        let theirs = world.path(format).display().to_string();
        podman(&[
            "save",
            "-q",
            "--format",
            format,
            "-o",
            &theirs,
            "busybox:test",
        ]);
        let other = require!(World::empty());
        other.carrack(&["load", "-q", "-i", &theirs]).ok();
        let found = other.carrack(&["images", "-q", "--no-trunc"]).ok().stdout;
        // podman writes the configuration anew for docker's archive.
        assert!(found == own || format == "docker-archive", "{format}");
        other
            .carrack(&["run", "--rm", "busybox:test"])
            .ok()
            .stdout_is("default\n");
    }
    podman(&["rmi", "-a", "-f"]);
}

/// Kinds, owners, modes, times, sizes, links and extended attributes below a directory, one line each.
fn listing(root: &Path) -> Vec<String> {
    let format = "%P|%y|%m|%U|%G|%s|%T@|%l|%n\\n";
    let root_text = root.display().to_string();
    let listed = peer("find", &[&root_text, "-mindepth", "1", "-printf", format]);
    let directory_size = |line: &str| {
        let mut parts: Vec<&str> = line.split('|').collect();
        if parts[1] == "d" {
            // Sizes and link counts of directories are the file system's own.
            parts[5] = "";
            parts[8] = "";
        }
        parts.join("|")
    };
    let mut lines: Vec<String> = listed.stdout.lines().map(directory_size).collect();
    let attributes = Command::new("getfattr")
        .args([
            "-R",
            "-h",
            "-d",
            "-m",
            "^(user|security)\\.",
            "--absolute-names",
            ".",
        ])
        .current_dir(root)
        .output();
    if let Ok(output) = attributes {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.extend(text.split("\n\n").map(|block| block.trim().to_owned()));
    }
    lines.sort();
    lines
}

#[test]
fn the_tree_is_the_same_as_umoci_unpacks_it() {
    let world = require!(World::new());
    require!(skip::program("umoci"));
    let files = world.path("shape");
    let script = "mkdir -p d/e && echo one > d/one && ln d/one d/hard && ln -s ../x d/soft && chmod 4755 d/one \
        && chmod 1777 d/e && mkfifo d/pipe && truncate -s 1M d/sparse && chown 1234:4321 d/e \
        && touch -d '2001-02-03 04:05:06.789' d/one d/e && touch -h -d 2002-03-04 d/soft \
        && { setfattr -n user.word -v yes d/one || true; } && touch -d 2003-04-05 d .";
    std::fs::create_dir(&files).unwrap();
    finish(Command::new("sh").args(["-c", script]).current_dir(&files)).ok();
    let archive = world.path("shape.tar").display().to_string();
    let from = files.display().to_string();
    let flags = ["--xattrs", "--format=pax", "--numeric-owner", "-C"];
    peer(
        "tar",
        &[&flags[..], &[&from, "-cf", &archive, "."]].concat(),
    );
    world.carrack(&["import", "-q", &archive, "shape:v1"]).ok();
    for name in ["busybox:test", "shape:v1"] {
        let layout = world.path("layout").display().to_string();
        world
            .carrack(&["push", "-q", name, &format!("oci:{layout}:x")])
            .ok();
        let bundle = world.path("bundle");
        let unpack = [
            "unpack",
            "--image",
            &format!("{layout}:x"),
            bundle.to_str().unwrap(),
        ];
        peer("umoci", &unpack);
        let path = world.carrack(&["image", "mount", name]).ok().stdout;
        let (ours, theirs) = (
            listing(Path::new(path.trim())),
            listing(&bundle.join("rootfs")),
        );
        world.carrack(&["image", "unmount", name]).ok();
        assert_eq!(ours, theirs, "{name}");
        std::fs::remove_dir_all(&bundle).unwrap();
        std::fs::remove_dir_all(&layout).unwrap();
    }
}

#[test]
fn the_disk_is_counted_pruned_and_mended() {
    let world = require!(World::new());
    let registry = require!(DockerRegistry::start(""));
    let name = format!("{}/app:v1", registry.host);
    world.carrack(&["push", "-q", "busybox:test", &name]).ok();
    world.carrack(&["pull", "-q", &name]).ok();
    let df = world.carrack(&["system", "df"]).ok();
    assert!(
        df.stdout.starts_with("TYPE") && df.stdout.contains("Images"),
        "{df}"
    );
    world
        .carrack(&["system", "df", "-v"])
        .ok()
        .stdout_has("SHARED SIZE");
    let bytes = world
        .carrack(&["system", "df", "--format", "{{.Type}} {{.Bytes}}"])
        .ok()
        .stdout;
    assert!(
        bytes
            .lines()
            .any(|l| l.starts_with("Images ") && l.len() > 10),
        "{bytes}"
    );

    world
        .carrack(&["system", "check"])
        .ok()
        .stdout_has("nothing wrong");
    // Damage a file of a layer.
    let image = json(&world.carrack(&["image", "inspect", &name]).ok().stdout);
    let layer = image[0]["RootFS"]["Layers"][0]
        .as_str()
        .unwrap()
        .trim_start_matches("sha256:")
        .to_owned();
    let file = world.path(&format!("root/layers/{layer}/fs/etc/passwd"));
    std::fs::write(&file, "damaged").unwrap();
    world
        .carrack(&["system", "check"])
        .code_is(1)
        .stdout_has(&layer[..12]);
    world.carrack(&["rmi", "busybox:test"]).ok();
    let mended = world.carrack(&["system", "check", "--repair"]).ok();
    assert!(
        mended.stdout.contains(&format!("Fetched again: {name}")),
        "{mended}"
    );
    world
        .carrack(&["system", "check"])
        .ok()
        .stdout_has("nothing wrong");
    world
        .carrack(&["run", "--rm", &name])
        .ok()
        .stdout_is("default\n");
    world
        .carrack(&["system", "prune", "-af"])
        .ok()
        .stdout_has("Total reclaimed space");
    world.carrack(&["images", "-q"]).ok().stdout_is("");
}
