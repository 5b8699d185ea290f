//! `tag`, `untag`, `rmi`, `image prune`.

use crate::image_args::{PruneFlags, RemoveFlags, TagFlags, UntagFlags};
use crate::{table, time};
use anyhow::{Result, bail};
use carrack_engine::images::{PruneOptions, Pruned};
use carrack_engine::{Engine, EngineError, ImageError};
use std::io::{BufRead, Write};

/// `carrack tag`.
///
/// # Errors
/// The image is not there.
pub fn tag(engine: &Engine, flags: &TagFlags) -> Result<u8> {
    for name in &flags.names {
        let tagged = engine.store().tag_image(&flags.image, name);
        tagged.map_err(EngineError::from)?;
    }
    Ok(0)
}

/// `carrack untag`.
///
/// # Errors
/// The image is not there.
pub fn untag(engine: &Engine, flags: &UntagFlags) -> Result<u8> {
    let store = engine.store();
    let image = store.find_image(&flags.image).map_err(EngineError::from)?;
    let names = match flags.names.is_empty() {
        false => flags.names.clone(),
        true => {
            let all = store.images().map_err(EngineError::from)?;
            let same = all.into_iter().filter(|other| other.id == image.id);
            same.filter_map(|other| other.reference).collect()
        }
    };
    for name in &names {
        // A name of another image is a slip that must not take that name away.
        let found = store.find_image(name).map_err(EngineError::from)?;
        if found.id != image.id {
            bail!("{name} is no name of {}", flags.image);
        }
        let untagged = store.untag_image(name).map_err(EngineError::from)?;
        writeln!(std::io::stdout(), "Untagged: {}", untagged.name())?;
    }
    Ok(0)
}

/// `carrack rmi`.
///
/// # Errors
/// The records cannot be read; images that cannot be removed are told, and the code is 1.
pub fn remove(engine: &Engine, flags: &RemoveFlags) -> Result<u8> {
    let names = match flags.all {
        false => flags.images.clone(),
        true => {
            let images = engine.store().images().map_err(EngineError::from)?;
            images
                .into_iter()
                .map(|i| i.reference.unwrap_or(i.id.to_string()))
                .collect()
        }
    };
    let mut code = 0;
    for name in &names {
        match engine.store().remove_image(name, flags.force) {
            Ok(removed) => {
                let mut out = std::io::stdout();
                for record in &removed.records {
                    if record.reference.is_some() {
                        writeln!(out, "Untagged: {}", record.name())?;
                    }
                }
                if let Some(record) = removed.records.first().filter(|_| removed.last) {
                    writeln!(out, "Deleted: {}", record.id)?;
                }
            }
            Err(ImageError::NotFound(_)) if flags.ignore => {}
            Err(error) => {
                eprintln!(
                    "carrack: {}",
                    crate::sentence(&EngineError::from(error).into())
                );
                code = 1;
            }
        }
    }
    Ok(code)
}

/// `carrack image prune`.
///
/// # Errors
/// A filter is wrong, nobody agreed, or the store cannot be used.
pub fn prune(engine: &Engine, flags: &PruneFlags) -> Result<u8> {
    let options = prune_options(flags.all, &flags.filter)?;
    let what = match flags.all {
        true => "all images that no container uses",
        false => "all images without a name",
    };
    if !flags.force && !agreed(what)? {
        return Ok(1);
    }
    let pruned = engine.store().prune(&options).map_err(EngineError::from)?;
    report(&pruned)?;
    Ok(0)
}

/// Filters as docker writes them.
///
/// # Errors
/// Names those that there are.
pub fn prune_options(all: bool, filters: &[String]) -> Result<PruneOptions> {
    let mut options = PruneOptions {
        all,
        ..PruneOptions::default()
    };
    let label = |text: &str| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    for filter in filters {
        if let Some(value) = filter.strip_prefix("until=") {
            let Some(point) = time::point(value) else {
                bail!("{value:?} is no time; write 24h, 2024-05-06 or 2024-05-06T07:08:09Z");
            };
            options.before = Some(point);
        } else if let Some(value) = filter.strip_prefix("label!=") {
            options.without_labels.push(label(value));
        } else if let Some(value) = filter.strip_prefix("label=") {
            options.labels.push(label(value));
        } else {
            bail!(
                "no filter {filter:?}; there are until=TIME, label=KEY[=VALUE] and label!=KEY[=VALUE]"
            );
        }
    }
    Ok(options)
}

/// Asks a person on the terminal.
///
/// # Errors
/// There is no terminal.
pub fn agreed(what: &str) -> Result<bool> {
    if !rustix::termios::isatty(std::io::stdin()) {
        bail!("this removes {what}; say --force where nobody can be asked");
    }
    eprint!("This removes {what}. Go on? [y/N] ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// What a pruning did.
///
/// # Errors
/// Standard output cannot be written.
pub fn report(pruned: &Pruned) -> Result<()> {
    let mut out = std::io::stdout();
    for image in &pruned.images {
        match image.reference {
            Some(_) => writeln!(out, "Untagged: {}", image.name())?,
            None => writeln!(out, "Deleted: {}", image.id)?,
        }
    }
    let bytes = table::size(pruned.reclaimed.bytes);
    writeln!(out, "Total reclaimed space: {bytes}")?;
    Ok(())
}
