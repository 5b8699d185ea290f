//! What is done with images besides pulling them.
//!
//! | operation | beside |
//! |---|---|
//! | `pull again` of an image that is there | podman |
//! | `images` with 1,000 of them | – |
//! | `image rm`, `image prune` | `rm -r` of the same files |
//! | `mount`, and `mount first` that makes what later ones use | – |
//! | `save`, `load`, on the machine's disk, flushed | `dd` of the same bytes, flushed |

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Bench;
use super::contender::Contender;
use super::place::{Medium, Place};
use super::table::Table;
use crate::bench::cost::verdict;

/// A pull of an image that is there, in milliseconds.
const AGAIN_MS_MAX: f64 = 30.0;
/// A list of a thousand images.
const LIST_MS_MAX: f64 = 10.0;
/// A mount of fifty layers by the EROFS driver.
const MOUNT_MS_MAX: f64 = 5.0;
/// Removal over that by `rm -r`.
const REMOVE_MAX: f64 = 1.3;
/// Loading and saving over what the disk needs for the bytes.
const DISK_MAX: f64 = 1.3;
/// Short commands are measured so many times in a round.
const TIMES: usize = 10;
/// The image that is saved and loaded.
const SAVED: &str = "python";

/// Measures everything; `disk` is a directory on the machine's disk.
pub fn measure(bench: &Bench, disk: &Path, table: &mut Table) -> Result<()> {
    again(bench, table)?;
    list(bench, table)?;
    mounts(bench, table)?;
    for _ in 0..bench.rounds {
        removal(bench, table)?;
        archives(bench, disk, table)?;
    }
    Ok(())
}

/// Pulls of an image that is there.
fn again(bench: &Bench, table: &mut Table) -> Result<()> {
    let mut places = Vec::new();
    for contender in bench.contenders() {
        if contender != Contender::Floor {
            let place = Place::fresh(&bench.medium)?;
            bench.pull(contender, place.path(), "base")?;
            places.push((contender, place));
        }
    }
    for _ in 0..TIMES * bench.rounds {
        for (contender, place) in &places {
            let sample = bench.pull(*contender, place.path(), "base")?;
            table.add("pull again", contender.name(), sample);
        }
    }
    Ok(())
}

/// `images` with a thousand of them.
fn list(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = Place::fresh(&bench.medium)?;
    let many = bench.images.join("many");
    let many = many.to_str().context("a path that is no text")?;
    bench.quietly(Contender::Overlay, place.path(), &["load", "-i", many])?;
    for _ in 0..TIMES * bench.rounds {
        let sample = bench.cost(Contender::Overlay, place.path(), &["images"])?;
        table.add("images, 1,000", Contender::Overlay.name(), sample);
    }
    Ok(())
}

/// Mounts of fifty layers.
fn mounts(bench: &Bench, table: &mut Table) -> Result<()> {
    for driver in Contender::DRIVERS {
        let place = Place::fresh(&bench.medium)?;
        bench.pull(driver, place.path(), "deep")?;
        let name = bench.name("deep");
        for time in 0..TIMES * bench.rounds {
            let sample = bench.cost(driver, place.path(), &["image", "mount", &name])?;
            let what = if time == 0 { "mount first" } else { "mount" };
            table.add(what, driver.name(), sample);
            bench.quietly(driver, place.path(), &["image", "unmount", &name])?;
        }
    }
    Ok(())
}

/// Removal of an image beside that of its files.
fn removal(bench: &Bench, table: &mut Table) -> Result<()> {
    let shape = "small";
    let name = bench.name(shape);
    let verbs: [(&str, &[&str]); 2] = [
        ("image rm", &["image", "rm", &name]),
        ("image prune", &["image", "prune", "--all", "--force"]),
    ];
    for driver in Contender::DRIVERS {
        for (what, args) in verbs {
            let place = Place::fresh(&bench.medium)?;
            bench.pull(driver, place.path(), shape)?;
            let sample = bench.cost(driver, place.path(), args)?;
            table.add(what, driver.name(), sample);
        }
        let place = Place::fresh(&bench.medium)?;
        bench.pull(driver, place.path(), shape)?;
        let mut command = Command::new("rm");
        command.arg("-r").arg(place.path().join("store"));
        table.add("rm -r", driver.name(), bench.measure(&command)?);
    }
    Ok(())
}

/// `save` and `load` on the machine's disk.
fn archives(bench: &Bench, disk: &Path, table: &mut Table) -> Result<()> {
    for driver in Contender::DRIVERS {
        let place = Place::fresh(&Medium::Ext4(disk.to_owned()))?;
        let at = place.path();
        bench.pull(driver, at, SAVED)?;
        let archive = at.join("archive").display().to_string();
        let name = bench.name(SAVED);
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\" && sync -f \"$0\"", &archive]);
        let save = bench.command(driver, at, &["save", "-o", &archive, &name]);
        command.arg(save.get_program()).args(save.get_args());
        table.add("save", driver.name(), bench.measure(&command)?);
        let mut command = Command::new("dd");
        command.args(["bs=1M", "conv=fsync", "status=none"]);
        command.arg(format!("if={archive}"));
        command.arg(format!("of={archive}.copy"));
        table.add("dd", driver.name(), bench.measure(&command)?);
        bench.quietly(driver, at, &["image", "rm", &name])?;
        let sample = bench.cost(driver, at, &["load", "-i", &archive])?;
        table.add("load", driver.name(), sample);
    }
    Ok(())
}

/// Prints the targets; true when all of the usual driver, and of mounts by the other, are reached.
pub fn targets(table: &Table) -> bool {
    let mut reached = true;
    for driver in Contender::DRIVERS.map(Contender::name) {
        let usual = driver == Contender::Overlay.name();
        if let Some(ms) = table.wall("pull again", driver) {
            let text = format!("pull of an image that is there, {driver}, ms");
            reached &= verdict(&text, AGAIN_MS_MAX, ms);
        }
        let ratios = [
            ("image rm", "rm -r", REMOVE_MAX),
            ("image prune", "rm -r", REMOVE_MAX),
            ("save", "dd", DISK_MAX),
            ("load", "dd", DISK_MAX),
        ];
        for (what, beside, max) in ratios {
            let both = table.wall(what, driver).zip(table.wall(beside, driver));
            if let Some((ours, theirs)) = both {
                let text = format!("{what}, {driver}: wall / {beside}");
                reached &= verdict(&text, max, ours / theirs) || !usual;
            }
        }
        if let Some(ms) = table.wall("mount", driver) {
            let text = format!("mount of 50 layers, {driver}, ms");
            reached &= verdict(&text, MOUNT_MS_MAX, ms) || usual;
        }
    }
    if let Some(ms) = table.wall("images, 1,000", Contender::Overlay.name()) {
        reached &= verdict("images with 1,000 of them, ms", LIST_MS_MAX, ms);
    }
    reached
}
