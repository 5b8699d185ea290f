//! Pulls of every shape by every contender.

use anyhow::Result;

use super::Bench;
use super::contender::Contender;
use super::place::Place;
use super::table::Table;
use crate::bench::cost::verdict;

/// Wall time over that of the floor.
const WALL_MAX: f64 = 1.3;
/// CPU time over that of the floor.
const CPU_MAX: f64 = 1.4;
/// Wall time over that of podman: two and a half times faster.
const PODMAN_MAX: f64 = 0.4;
/// Memory of `carrack`, for any image.
const PEAK_MIB_MAX: f64 = 64.0;

/// Measures pulls.
pub fn measure(bench: &Bench, shapes: &[String], table: &mut Table) -> Result<()> {
    let contenders = bench.contenders();
    for round in 0..bench.rounds {
        for shape in shapes {
            for step in 0..contenders.len() {
                let Some(&contender) = contenders.get((round + step) % contenders.len()) else {
                    continue;
                };
                let place = Place::fresh(&bench.medium)?;
                let sample = bench.pull(contender, place.path(), shape)?;
                table.add(&format!("pull {shape}"), contender.name(), sample);
            }
            eprint!(
                "\rpulls: round {} of {}, {shape}   ",
                round + 1,
                bench.rounds
            );
        }
    }
    eprintln!();
    Ok(())
}

/// Prints the targets of pulls; true when all are reached. They are the usual driver's; figures of
/// the other stand beside them.
pub fn targets(shapes: &[String], table: &Table) -> bool {
    let mut reached = true;
    for driver in Contender::DRIVERS.map(Contender::name) {
        let usual = driver == Contender::Overlay.name();
        for shape in shapes {
            let operation = format!("pull {shape}");
            let wall = |of| table.wall(&operation, of);
            let cpu = |of| table.cpu(&operation, of);
            let ratios = [
                ("wall", "floor", WALL_MAX, wall(driver), wall("floor")),
                ("CPU", "floor", CPU_MAX, cpu(driver), cpu("floor")),
                ("wall", "podman", PODMAN_MAX, wall(driver), wall("podman")),
            ];
            for (what, beside, max, ours, theirs) in ratios {
                if let Some((ours, theirs)) = ours.zip(theirs) {
                    let text = format!("{operation}, {driver}: {what} / {beside}");
                    reached &= verdict(&text, max, ours / theirs) || !usual;
                }
            }
        }
        let text = format!("peak RSS, {driver}, MiB");
        reached &= verdict(&text, PEAK_MIB_MAX, table.peak_mib(driver)) || !usual;
    }
    reached
}
