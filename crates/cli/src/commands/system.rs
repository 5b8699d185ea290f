//! `system df`, `system prune`, `system check`.

use super::image::change::{agreed, prune_options, report};
use crate::image_args::{CheckFlags, DfFlags, SystemPruneFlags, SystemVerb};
use crate::progress::{Direction, Progress};
use crate::registry_args::ProgressMode;
use crate::table;
use crate::template::Template;
use anyhow::Result;
use carrack_engine::images::{Access, CheckOptions, Usage};
use carrack_engine::{ContainerStatus, Engine, EngineError};
use serde_json::json;
use std::io::Write;

/// Exit code of a check that found something it did not mend.
const CODE_PROBLEMS: u8 = 1;

/// `carrack system VERB`.
///
/// # Errors
/// The verb's.
pub fn system(engine: &Engine, verb: &SystemVerb) -> Result<u8> {
    match verb {
        SystemVerb::Df(flags) => df(engine, flags),
        SystemVerb::Prune(flags) => prune(engine, flags),
        SystemVerb::Check(flags) => check(engine, flags),
    }
}

fn df(engine: &Engine, flags: &DfFlags) -> Result<u8> {
    let usage = engine.store().usage().map_err(EngineError::from)?;
    let running = engine.containers()?;
    let active = running
        .iter()
        .filter(|(_, s)| *s == ContainerStatus::Running)
        .count();
    let used = usage.images.iter().filter(|i| i.containers > 0).count();
    let layers: u64 = usage.layers.values().sum();
    let snapshots: u64 = usage.snapshots.values().sum();
    let row = |kind: &str, total: usize, active: usize, bytes: u64, free: u64| {
        let percent = (free * 100).checked_div(bytes).unwrap_or(0);
        json!({
            "Type": kind,
            "TotalCount": total,
            "Active": active,
            "Size": table::size(bytes),
            "Reclaimable": format!("{} ({percent}%)", table::size(free)),
            "Bytes": bytes,
            "ReclaimableBytes": free,
        })
    };
    let ended = usage.snapshots.len().saturating_sub(active);
    let free = match active {
        0 => snapshots,
        _ => 0,
    };
    let rows = [
        row(
            "Images",
            usage.images.len(),
            used,
            layers + usage.shared_objects,
            usage.reclaimable,
        ),
        row(
            "Containers",
            usage.snapshots.len(),
            usage.snapshots.len() - ended,
            snapshots,
            free,
        ),
        row("Documents", usage.images.len(), used, usage.documents, 0),
        row("Unfinished", 0, 0, usage.unfinished, 0),
    ];
    if let Some(format) = &flags.format {
        Template::parse(format)?.print(&rows)?;
        return Ok(0);
    }
    if flags.verbose {
        verbose(&usage);
        return Ok(0);
    }
    let columns = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cell = |c: &&str| row[*c].as_str().map_or(row[*c].to_string(), str::to_owned);
            columns.iter().map(cell).collect()
        })
        .collect();
    table::print(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &cells);
    writeln!(std::io::stdout(), "\nOn disk: {}", table::size(usage.total))?;
    Ok(0)
}

fn verbose(usage: &Usage) {
    let images: Vec<Vec<String>> = usage
        .images
        .iter()
        .map(|image| {
            vec![
                image.record.name(),
                image.record.id.short().to_owned(),
                table::size(image.total),
                table::size(image.shared),
                table::size(image.total - image.shared),
                image.containers.to_string(),
            ]
        })
        .collect();
    let heading = [
        "IMAGE",
        "ID",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ];
    table::print(&heading, &images);
    let containers: Vec<Vec<String>> = usage
        .snapshots
        .iter()
        .map(|(id, bytes)| vec![id.clone(), table::size(*bytes)])
        .collect();
    println!();
    table::print(&["CONTAINER", "WRITABLE SIZE"], &containers);
    println!("\nOn disk: {}", table::size(usage.total));
}

fn prune(engine: &Engine, flags: &SystemPruneFlags) -> Result<u8> {
    let options = prune_options(flags.all, &flags.filter)?;
    let what = match flags.all {
        true => "containers that ended, and all images that no container uses",
        false => "containers that ended, and all images without a name",
    };
    if !flags.force && !agreed(what)? {
        return Ok(CODE_PROBLEMS);
    }
    engine.sweep()?;
    for (record, status) in engine.containers()? {
        if status != ContainerStatus::Running {
            engine.remove(&record.id, false)?;
            writeln!(std::io::stdout(), "Removed container: {}", record.id)?;
        }
    }
    let pruned = engine.store().prune(&options).map_err(EngineError::from)?;
    report(&pruned)?;
    Ok(0)
}

fn things(n: usize) -> &'static str {
    if n == 1 { "thing" } else { "things" }
}

fn check(engine: &Engine, flags: &CheckFlags) -> Result<u8> {
    let options = CheckOptions {
        quick: flags.quick,
        repair: flags.repair,
    };
    let progress = Progress::new(Direction::In, ProgressMode::Auto, flags.quiet);
    let access = || -> Result<Access, EngineError> {
        let options = flags.access.options();
        let options = options.map_err(|e| EngineError::NotFetched(e.to_string()))?;
        Ok(Access::open(options)?)
    };
    let looking = |layer: &carrack_spec::Digest| log::info!("looking at layer {}", layer.short());
    let (checked, refetched) =
        engine.check(options, &access, &looking, &|event| progress.tell(event))?;
    drop(progress);
    let mut out = std::io::stdout();
    for problem in &checked.problems {
        writeln!(out, "{problem}")?;
    }
    let mut lost = false;
    for image in &refetched {
        match &image.error {
            None => writeln!(out, "Fetched again: {}", image.record.name())?,
            Some(error) => {
                lost = true;
                eprintln!(
                    "carrack: cannot fetch {} again: {error}",
                    image.record.name()
                );
            }
        }
    }
    if !flags.quiet {
        let found = match (checked.problems.len(), flags.repair) {
            (0, _) => "nothing wrong".to_owned(),
            (n, true) => format!("{n} {} wrong, mended what can be", things(n)),
            (1, false) => "1 thing wrong; --repair mends it".to_owned(),
            (n, false) => format!("{n} things wrong; --repair mends them"),
        };
        writeln!(
            out,
            "{} images, {} layers, {} documents: {found}",
            checked.images, checked.layers, checked.blobs
        )?;
    }
    let mended = flags.repair && !lost;
    Ok(if checked.is_clean() || mended {
        0
    } else {
        CODE_PROBLEMS
    })
}
