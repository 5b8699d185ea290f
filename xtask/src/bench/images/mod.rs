//! `cargo xtask bench-images`: what images cost, side by side with podman and the floor.
//!
//! Images come from `bench/images` (generated, the same everywhere) and are pulled from Debian's
//! docker-registry on the loopback. Every pull has a fresh file system of its own ([`place`]); every
//! round has every contender once, in an order that rotates. Costs come from `bench/measure.c`.
//! The table shows medians; the targets are ratios of medians. With `--check` a missed one is a failure.
//! `docs/bench-images.md` says how to read it.
//!
//! | contender | runs |
//! |---|---|
//! | `overlay`, `pool` | `carrack` with this driver |
//! | `podman` | Debian's, with its overlay driver |
//! | `floor` | `bench/images/src/floor`: the same work without a store |

mod contender;
mod place;
mod pulls;
mod rest;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use carrack_testkit::{DockerRegistry, TempDir};

use super::bundle;
use crate::debian;
use contender::Contender;
use place::Medium;
use table::Table;

/// Rounds unless `--rounds` says otherwise.
const ROUNDS: usize = 5;
/// Shapes of images that are pulled; the others are for the rest.
const SHAPES: [&str; 4] = ["base", "python", "small", "fat"];
/// Where the images are kept between runs; the number changes with what `images-make` makes.
const IMAGES: &str = "target/bench-images/1";

/// What the command line asked for.
struct Options {
    rounds: usize,
    medium: Medium,
    shapes: Vec<String>,
    pulls: bool,
    rest: bool,
    podman: bool,
    check: bool,
    carrack: PathBuf,
    floor: PathBuf,
}

/// What stands ready before the first measurement.
struct Bench {
    carrack: PathBuf,
    floor: PathBuf,
    measure: PathBuf,
    podman: bool,
    medium: Medium,
    rounds: usize,
    images: PathBuf,
    registry: DockerRegistry,
    /// Where `measure` is and what it writes.
    scratch: TempDir,
}

/// Measures and prints; true when every target is reached or `--check` was not given.
pub fn run(root: &Path, args: &[String]) -> Result<bool> {
    let options = parse(root, args)?;
    if !rustix::process::geteuid().is_root() {
        bail!("file systems are mounted and owners set: run it as root");
    }
    debian::ensure(debian::BENCH_IMAGES)?;
    let bench = prepare(root, &options)?;
    let mut table = Table::default();
    if options.pulls {
        pulls::measure(&bench, &options.shapes, &mut table)?;
    }
    if options.rest {
        rest::measure(&bench, &root.join("target"), &mut table)?;
    }
    table.print();
    println!("\n{:<52} {:>8} {:>8}", "target", "at most", "reached");
    let mut reached = true;
    if options.pulls {
        reached &= pulls::targets(&options.shapes, &table);
    }
    if options.rest {
        reached &= rest::targets(&table);
    }
    Ok(reached || !options.check)
}

/// Makes the images and puts them into a registry.
fn prepare(root: &Path, options: &Options) -> Result<Bench> {
    let images = root.join(IMAGES);
    let make = options.floor.with_file_name("images-make");
    let status = Command::new(&make).arg(&images).status();
    let status =
        status.with_context(|| format!("{}; make bench-images builds it", make.display()))?;
    if !status.success() {
        bail!("{} {}: {status}", make.display(), images.display());
    }
    let scratch = TempDir::new();
    let bench = Bench {
        carrack: options.carrack.clone(),
        floor: options.floor.clone(),
        measure: bundle::compile(root, scratch.path(), "measure")?,
        podman: options.podman && Path::new(contender::PODMAN).exists(),
        medium: options.medium.clone(),
        rounds: options.rounds,
        images,
        registry: DockerRegistry::start("").map_err(|skip| anyhow::anyhow!("{}", skip.reason()))?,
        scratch,
    };
    for shape in options.shapes.iter().map(String::as_str).chain(["deep"]) {
        let from = format!("oci:{}", bench.images.join(shape).display());
        let to = format!("docker://{}", bench.name(shape));
        let args = ["image", "copy", "--tls-verify=false", &from, &to];
        bench.quietly(Contender::Overlay, bench.scratch.path(), &args)?;
    }
    Ok(bench)
}

impl Bench {
    /// The name of a shape in the registry.
    fn name(&self, shape: &str) -> String {
        format!("{}/bench/{shape}:latest", self.registry.host)
    }
}

fn parse(root: &Path, args: &[String]) -> Result<Options> {
    let release = root.join("target/release");
    let mut options = Options {
        rounds: ROUNDS,
        medium: Medium::Tmpfs,
        shapes: SHAPES.map(String::from).to_vec(),
        pulls: true,
        rest: true,
        podman: true,
        check: false,
        carrack: release.join("carrack"),
        floor: release.join("images-floor"),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
            "--on" => options.medium = value()?.parse()?,
            "--shapes" => options.shapes = value()?.split(',').map(String::from).collect(),
            "--part" => match value()?.as_str() {
                "pulls" => options.rest = false,
                "rest" => options.pulls = false,
                other => bail!("--part {other}: pulls or rest"),
            },
            "--no-podman" => options.podman = false,
            "--check" => options.check = true,
            "--carrack" => options.carrack = value()?.into(),
            "--floor" => options.floor = value()?.into(),
            other => bail!("unknown argument {other}"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    for shape in &options.shapes {
        if !SHAPES.contains(&shape.as_str()) {
            bail!("--shapes {shape}: there are {}", SHAPES.join(", "));
        }
    }
    Ok(options)
}
