//! `cargo xtask bench-runtime`: what a container costs, side by side with the peers.
//!
//! Every round runs every operation once for every contender, in an order that
//! rotates, so that drift of the machine falls on all alike. Costs come from
//! `bench/measure.c`: wall time, CPU time of the whole process tree, peak resident
//! set. The table shows medians and minima; the targets are ratios of medians.
//! A missed target is not a failure of the command, as times are no test; with `--check` those
//! are that do not depend on time: peak memory, size of the program, number of system calls.
//!
//! | contender | runs |
//! |---|---|
//! | `carrack` | as the machine is |
//! | `carrack -u` | in a mount namespace without the unified hierarchy, beside crun |
//! | `runc` | as the machine is |
//! | `crun -u` | without the unified hierarchy, where there is one beside v1: it refuses otherwise |
//! | `floor` | `bench/floor.c`, `run` and `exec` only |

pub mod bundle;
mod contender;
mod cost;
pub mod images;
mod report;
mod scale;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::debian;
use contender::{Contender, Operation};
use report::Report;

/// Rounds unless `--rounds` says otherwise.
const ROUNDS: usize = 40;

/// What the command line asked for.
struct Options {
    rounds: usize,
    scale: bool,
    check: bool,
    runtime: PathBuf,
}

/// Measures and prints; an error only when nothing could be measured.
pub fn run(root: &Path, args: &[String]) -> Result<bool> {
    let options = parse(root, args)?;
    if !rustix::process::geteuid().is_root() {
        bail!("containers with cgroups are measured: run it as root");
    }
    debian::ensure(debian::BENCH)?;
    let bench = bundle::prepare(root)?;
    let mut contenders = contender::all(&bench, &options.runtime);
    contenders.retain(works);
    if contenders.is_empty() {
        bail!("no runtime works here");
    }
    let mut report = Report::new(&contenders);
    for contender in &contenders {
        report.size(contender);
        report.syscalls(contender)?;
    }
    let sleepers: Vec<_> = contenders.iter().map(Contender::start_sleeper).collect();
    for round in 0..options.rounds {
        measure_round(&contenders, round, &mut report)?;
        eprint!("\rround {} of {}", round + 1, options.rounds);
    }
    eprintln!();
    drop(sleepers);
    report.print_table();
    let growth = if options.scale {
        scale::measure(&contenders, options.rounds.div_ceil(2))?
    } else {
        Vec::new()
    };
    let untimed_reached = report.print_targets(&growth);
    Ok(untimed_reached || !options.check)
}

/// Tries one `run`; says why a contender is left out.
fn works(contender: &Contender<'_>) -> bool {
    match contender.measure(Operation::Run, "try") {
        Ok(_) => true,
        Err(error) => {
            println!("{} is left out: {error:#}", contender.name());
            false
        }
    }
}

fn measure_round(contenders: &[Contender<'_>], round: usize, report: &mut Report) -> Result<()> {
    for operation in Operation::ALL {
        if operation == Operation::Delete {
            // All containers that `start` let go have ended by then.
            std::thread::sleep(std::time::Duration::from_millis(60));
        }
        for step in 0..contenders.len() {
            let at = (round + step) % contenders.len();
            let Some(contender) = contenders.get(at) else {
                continue;
            };
            if contender.can(operation) {
                let id = format!("r{round}");
                let sample = contender.measure(operation, &id).with_context(|| {
                    format!("{} {} in round {round}", contender.name(), operation.name())
                })?;
                report.add(at, operation, sample);
            }
        }
    }
    Ok(())
}

fn parse(root: &Path, args: &[String]) -> Result<Options> {
    let runtime = root.join("target/release/carrack-runtime");
    let mut options = Options {
        rounds: ROUNDS,
        scale: true,
        check: false,
        runtime,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => {
                let value = args.next().context("--rounds needs a number")?;
                options.rounds = value.parse().with_context(|| format!("--rounds {value}"))?;
            }
            "--runtime" => options.runtime = args.next().context("--runtime needs a path")?.into(),
            "--no-scale" => options.scale = false,
            "--check" => options.check = true,
            other => bail!("unknown argument {other}"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    Ok(options)
}
