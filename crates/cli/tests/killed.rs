//! `carrack` killed at random moments of pull, load, prune and tag, half the time with a second `carrack` that
//! does the same beside it: `system check` finds nothing wrong, nothing is lost that was there, the second
//! is not disturbed, and the next try succeeds.
//!
//! And an archive that is being saved appears whole or not at all, whatever ends `carrack`.
//!
//! `CARRACK_KILLS` is the number of kills (`make soak`), `CARRACK_KILLS_SEED` repeats a run.

mod world;

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Compression, ImageWriter};
use carrack_testkit::runtime::finish;
use carrack_testkit::{DockerRegistry, require, skip};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use world::World;

/// Kills of a short run.
const KILLS: u64 = 12;
const FORMAT: &str = "{{.Repository}}:{{.Tag}} {{.ID}}";
const LAYERS: u64 = 3;
const FILES: u64 = 30;
const FILE_BYTES: u64 = 6 << 10;

/// Numbers that only look random (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From zero to one.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// An archive with an image of layers that do not compress; the first is the same in every image.
fn archive(world: &World, name: &str) -> PathBuf {
    let mut image = ImageWriter::new(ContainerConfig::default());
    let seed = name.bytes().fold(1, |n: u64, b| n * 31 + u64::from(b));
    for layer in 0..LAYERS {
        let mut random = Random(if layer == 0 { 1 } else { seed + layer });
        let mut tar = Writer::new(Vec::new());
        for n in 0..FILES {
            let bytes: Vec<u8> = (0..FILE_BYTES / 8)
                .flat_map(|_| random.next().to_le_bytes())
                .collect();
            let entry = Entry {
                size: FILE_BYTES,
                ..Entry::new(Kind::Regular, format!("d{layer}/{}/f{n}", n % 5))
            };
            tar.append(&entry, &mut bytes.as_slice()).unwrap();
        }
        let tar = tar.finish().unwrap();
        image.layer(tar, Compression::Gzip).unwrap();
    }
    let path = world.path(&format!("{name}.tar"));
    let file = std::fs::File::create(&path).unwrap();
    let reference = format!("{name}:1").parse().unwrap();
    image.write_layout(Some(&reference), file).unwrap();
    path
}

/// One kind of command, and the names that it and its undoing change.
struct Act {
    command: Vec<String>,
    /// Makes the store ready for it.
    before: Vec<Vec<String>>,
    /// Fails until it was done.
    after: Vec<String>,
    /// How long it takes when it is not killed.
    takes: Duration,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Act {
    fn new(command: &str, before: &[&str], after: &str) -> Self {
        Self {
            command: words(command),
            before: before.iter().map(|b| words(b)).collect(),
            after: words(after),
            takes: Duration::ZERO,
        }
    }

    fn prepare(&self, world: &World) {
        for command in &self.before {
            carrack(world, command).ok();
        }
    }

    fn start(&self, world: &World) -> Child {
        let args: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let mut command = world.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Measures it.
    fn rehearse(&mut self, world: &World) {
        self.prepare(world);
        let start = Instant::now();
        carrack(world, &self.command).ok();
        self.takes = start.elapsed();
        carrack(world, &self.after).ok();
    }
}

fn carrack(world: &World, args: &[String]) -> carrack_testkit::runtime::Output {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    finish(&mut world.command(&args))
}

/// The store is whole, and what was there before is there.
fn assert_whole(world: &World, kept: &str, how: &str) {
    let checked = world.carrack(&["system", "check"]);
    assert!(checked.stdout.contains("nothing wrong"), "{how}: {checked}");
    let names = world.carrack(&["images", "--no-trunc", "--format", FORMAT]);
    for name in ["kept:1", "also:1"] {
        let line = format!("{name} {kept}\n");
        assert!(names.stdout.contains(&line), "{how}: {names}");
    }
    for directory in ["root/tmp", "root/leases"] {
        let left = std::fs::read_dir(world.path(directory)).unwrap().count();
        assert_eq!(left, 0, "{how}: left in {directory}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let load = |name| {
        let path = archive(&world, name).display().to_string();
        world.carrack(&["load", "-q", "-i", &path]).ok();
        path
    };
    let pulled = format!("{}/app:1", registry.host);
    load("pulled");
    world.carrack(&["push", "-q", "pulled:1", &pulled]).ok();
    let loaded = load("loaded");
    load("kept");
    world.carrack(&["tag", "kept:1", "also:1"]).ok();
    world.carrack(&["rmi", "pulled:1", "loaded:1"]).ok();
    let kept = world.carrack(&["images", "--no-trunc", "--format", FORMAT, "kept:1"]);
    let kept = kept.ok().stdout.trim().replace("kept:1 ", "");

    let gone = |name: &str| format!("image rm --force --ignore {name}");
    let load = format!("load -q -i {loaded}");
    let mut acts = [
        Act::new(
            &format!("pull -q {pulled}"),
            &[&gone(&pulled)],
            &format!("image inspect {pulled}"),
        ),
        Act::new(&load, &[&gone("loaded:1")], "image inspect loaded:1"),
        Act::new(
            "image prune --force",
            &[&load, "untag loaded:1"],
            "images --filter dangling=true",
        ),
        Act::new(
            "tag kept:1 moving:1",
            &[&load, "tag loaded:1 moving:1"],
            "image inspect moving:1",
        ),
    ];
    for act in &mut acts {
        act.rehearse(&world);
    }
    let seed = number("CARRACK_KILLS_SEED", u64::from(std::process::id()));
    let kills = number("CARRACK_KILLS", KILLS);
    println!("{kills} kills, CARRACK_KILLS_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(2) + 1);
    let (mut done, mut killed, mut beside) = (0, 0, 0);
    while killed < kills {
        let act = &acts[done % acts.len()];
        done += 1;
        act.prepare(&world);
        let moment = act.takes.mul_f64(random.part());
        let how = format!("{:?} killed after {moment:?}", act.command);
        let other = (random.part() < 0.5).then(|| act.start(&world));
        let mut child = act.start(&world);
        std::thread::sleep(moment);
        child.kill().unwrap();
        // One that ended before was not killed.
        killed += u64::from(!child.wait().unwrap().success());
        if let Some(mut other) = other {
            beside += 1;
            assert!(other.wait().unwrap().success(), "{how}: the other one");
        }
        assert_whole(&world, &kept, &how);
        carrack(&world, &act.command).ok();
        carrack(&world, &act.after).ok();
    }
    assert_whole(&world, &kept, "at the end");
    println!("{done} tries, {killed} killed, {beside} with another one beside");
}

/// Runs a command that gets a signal at the `count`th write(2) of one of its threads; true when that ended it.
fn ended_at_write(command: &Command, signal: &str, count: u32) -> bool {
    // A test run in the background of a shell has SIGINT ignored.
    let mut traced = Command::new("env");
    traced.args(["--default-signal=INT,TERM", "strace"]);
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e"]);
    traced.arg(format!("inject=write:signal={signal}:when={count}"));
    traced.arg(command.get_program()).args(command.get_args());
    traced.stdin(Stdio::null()).stdout(Stdio::null());
    !traced.status().unwrap().success()
}

#[test]
fn an_archive_that_is_being_saved_when_carrack_ends_leaves_nothing() {
    let world = require!(World::new());
    require!(skip::strace());
    let directory = world.path("saved");
    let file = directory.join("a.tar");
    let place = format!("oci-archive:{}:x", file.display());
    let save = ["save", "-q", "-o", file.to_str().unwrap(), "busybox:test"];
    let push = ["push", "-q", "busybox:test", &place];
    for (args, old) in [
        (&save[..], None),
        (&save[..], Some("old")),
        (&push[..], None),
    ] {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        if let Some(old) = old {
            std::fs::write(&file, old).unwrap();
        }
        let command = world.command(args);
        let mut count = 1;
        while ended_at_write(&command, ["KILL", "INT", "TERM"][count as usize % 3], count) {
            let names: Vec<_> = std::fs::read_dir(&directory).unwrap().flatten().collect();
            assert_eq!(
                names.len(),
                usize::from(old.is_some()),
                "{args:?}: {names:?}"
            );
            let text = std::fs::read_to_string(&file).ok();
            assert_eq!(text.as_deref(), old, "{args:?}");
            // Close together at first, then wider.
            count += 1 + count / 4;
        }
        assert!(count > 5, "{args:?}: only {count} were tried");
        assert!(file.metadata().unwrap().len() > 100_000);
    }
    world.assert_nothing_left("carrack-none");
}
