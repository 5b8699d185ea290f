//! What a person sees of a transfer: bars on a terminal, lines elsewhere, JSON for programs, nothing.

mod world;

use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{DockerRegistry, Terminal, require};
use serde_json::Value;
use std::process::{Command, Stdio};
use world::World;
use world::machines::{peer, podman, pushed, raw};

/// A terminal as a person sees it at the end: lines, after carriage returns and the sequences by which bars
/// are drawn anew.
fn screen(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0usize, 0usize);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let mut number = String::new();
                let kind = loop {
                    match chars.next() {
                        Some(c) if c.is_ascii_digit() => number.push(c),
                        Some('[') => {}
                        other => break other,
                    }
                };
                let number = number.parse().unwrap_or(1);
                match kind {
                    Some('A') => row = row.saturating_sub(number),
                    Some('B') => row += number,
                    Some('K') => lines[row].clear(),
                    other => panic!("unknown sequence {other:?}"),
                }
            }
            c => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                lines.resize(lines.len().max(row + 1), Vec::new());
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
    let mut lines: Vec<String> = lines.iter().map(text).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Runs a command with all its streams on a terminal: everything that was drawn, and whether it went well.
fn on_terminal(command: &mut Command, (rows, columns): (u16, u16)) -> (String, bool) {
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(rows, columns);
    if !command.get_envs().any(|(name, _)| name == "TERM") {
        command.env("TERM", "xterm");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    // The command holds the slave as well.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let drawn = terminal.read_to_end();
    (drawn, child.wait().unwrap().success())
}

/// An image of many layers in the registry, and how many.
fn layered(world: &World, host: &str) -> (String, usize) {
    let layers = 12;
    let mut dockerfile = "FROM scratch\n".to_owned();
    let context = world.path("context");
    std::fs::create_dir(&context).unwrap();
    for n in 0..layers {
        let mut noise = vec![0; 100_000];
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        std::io::Read::read_exact(&mut random, &mut noise).unwrap();
        std::fs::write(context.join(format!("f{n}")), noise).unwrap();
        dockerfile.push_str(&format!("COPY f{n} /f{n}\n"));
    }
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let podman = podman(world);
    let name = format!("{host}/layered:v1");
    let context = context.display().to_string();
    podman(&["build", "-q", "--layers", "-t", &name, &context]);
    podman(&["push", "-q", "--tls-verify=false", &name]);
    podman(&["rmi", "-a", "-f"]);
    (name, layers)
}

#[test]
fn on_a_terminal_bars_come_and_go_and_one_line_a_layer_stays() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    require!(carrack_testkit::skip::program("podman"));
    let (name, layers) = layered(&world, &registry.host);
    let digest = peer(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{name}"),
        ],
    )
    .stdout;
    // Fewer rows than layers, and a narrow terminal.
    let size = (6, 72);
    let (drawn, ok) = on_terminal(&mut world.command(&["pull", &name]), size);
    assert!(ok, "{drawn}");
    assert!(
        drawn.contains(&format!("0/{layers} layers")) && drawn.contains("[="),
        "{drawn:?}"
    );
    let seen = screen(&drawn, size.1.into());
    assert_eq!(seen[0], format!("Pulling {name}"));
    let pulled = |line: &&String| line.contains(": pulled, 10");
    assert_eq!(seen.iter().filter(pulled).count(), layers, "{seen:#?}");
    let end = format!("Pulled: {name}");
    assert_eq!(seen[layers + 1], end, "{seen:#?}");
    assert!(!seen.iter().any(|line| line.contains('[')), "{seen:#?}");
    assert_eq!(seen[layers + 2..].concat(), digest.trim());

    // The same of a push, a save, a load and a copy: no bar is left.
    let archive = world.path("a.tar").display().to_string();
    let other = require!(World::empty());
    let layout = format!("oci:{}:x", world.path("layout").display());
    let to = format!("{}/other:v1", registry.host);
    for (world, args) in [
        (&world, vec!["push", "--compression", "zstd", &name, &to]),
        (&world, vec!["save", "-o", &archive, &name]),
        (&world, vec!["save", "--compress", "-o", &archive, &name]),
        (&other, vec!["load", "-i", &archive]),
        (&world, vec!["image", "copy", &name, &layout]),
    ] {
        let (drawn, ok) = on_terminal(&mut world.command(&args), size);
        assert!(ok, "{drawn}");
        assert!(drawn.contains(" MB"), "{args:?}: {drawn:?}");
        let seen = screen(&drawn, size.1.into());
        assert!(!seen.iter().any(|line| line.contains('[')), "{seen:#?}");
        if args[0] == "save" {
            assert_eq!(seen, [""; 0]);
        }
    }
}

#[test]
fn an_error_stands_below_what_was_done_and_the_bars_are_gone() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let (name, _) = pushed(&world, &registry, "bad:v1", "linux/amd64");
    let manifest = raw(&format!("docker://{name}"));
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let file = registry.blob(layer);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let other = require!(World::empty());
    let (drawn, ok) = on_terminal(&mut other.command(&["pull", &name]), (24, 500));
    assert!(!ok);
    let seen = screen(&drawn, 500);
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert_eq!(seen[0], format!("Pulling {name}"));
    assert!(seen[1].starts_with("carrack: "), "{seen:#?}");
    // Of the image nothing is left, its documents neither.
    let documents = std::fs::read_dir(other.path("root/blobs/sha256")).unwrap();
    assert_eq!(documents.count(), 0);
}

/// Runs `pull` or another verb in a new world; the image is not there.
fn pulled(args: &[&str]) -> Output {
    World::empty().unwrap().carrack(args).ok()
}

#[test]
fn elsewhere_there_are_lines_or_json_or_nothing() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let (name, _) = pushed(&world, &registry, "a:v1", "linux/amd64");
    let layer = raw(&format!("docker://{name}"))["layers"][0].clone();
    let short = &layer["digest"].as_str().unwrap()["sha256:".len()..][..12];
    let lines = format!("Pulling {name}\n{short}: pulled, {} B\n", layer["size"]);
    assert_eq!(pulled(&["pull", &name]).stderr, lines);
    // Bars need a terminal that can draw them.
    for mode in ["plain", "tty"] {
        assert_eq!(pulled(&["pull", "--progress", mode, &name]).stderr, lines);
    }
    let dumb = World::empty().unwrap();
    let mut command = dumb.command(&["pull", &name]);
    let (drawn, _) = on_terminal(command.env("TERM", "dumb"), (24, 200));
    assert!(drawn.starts_with(&lines.replace('\n', "\r\n")), "{drawn:?}");

    let quiet = pulled(&["pull", "-q", &name]);
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.stdout.trim().len(), 64);
    let none = pulled(&["pull", "--progress", "none", &name]);
    assert_eq!(none.stderr, "");
    assert!(none.stdout.starts_with("Pulled: "));

    let json = pulled(&["pull", "--progress", "json", &name]);
    let documents: Vec<Value> = json
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let status: Vec<&str> = documents
        .iter()
        .filter_map(|d| d["status"].as_str())
        .collect();
    assert_eq!(
        status,
        ["resolving", "layers", "pulling", "flushing", "done"]
    );
    assert_eq!(documents[0]["reference"], name.as_str());
    assert_eq!(documents[1]["layers"][0]["digest"], layer["digest"]);
    assert_eq!(documents[2]["read"], layer["size"]);

    // What scripts read of a load is docker's line.
    let archive = world.path("a.tar").display().to_string();
    world.carrack(&["save", "-o", &archive, "a:v1"]).ok();
    let loaded = pulled(&["load", "-i", &archive]);
    assert_eq!(loaded.stdout, "Loaded image: a:v1\n");
    assert!(loaded.stderr.contains(": loaded, "), "{loaded}");
    let quiet = finish(
        &mut World::empty()
            .unwrap()
            .command(&["load", "-q", "-i", &archive]),
    )
    .ok();
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("a:v1\n", "")
    );
}
