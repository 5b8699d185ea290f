//! `load`, `images`, `rmi`.

use crate::args::{ImagesFlags, LoadFlags, RmiFlags};
use crate::table;
use carrack_engine::{Engine, EngineError, ImageRecord, LoadOptions};
use std::io::Write;
use std::path::Path;

/// `carrack load`.
///
/// # Errors
/// The archive cannot be loaded.
pub fn load(engine: &Engine, flags: &LoadFlags) -> anyhow::Result<u8> {
    let path = flags.input.clone().filter(|p| p != Path::new("-"));
    if path.is_none() && rustix::termios::isatty(std::io::stdin()) {
        anyhow::bail!("name an archive with -i, or pipe one in");
    }
    let options = LoadOptions {
        path,
        name: flags.name.clone(),
    };
    let mut out = std::io::stdout();
    for image in engine.store().load(&options).map_err(EngineError::from)? {
        for record in &image.records {
            match flags.quiet {
                true => writeln!(out, "{}", record.name())?,
                false => writeln!(
                    out,
                    "Loaded image: {} ({} layers unpacked, {} in the store before)",
                    record.name(),
                    image.unpacked,
                    image.shared
                )?,
            }
        }
    }
    Ok(0)
}

/// `carrack images`.
///
/// # Errors
/// The records cannot be read.
pub fn list(engine: &Engine, flags: &ImagesFlags) -> anyhow::Result<u8> {
    let mut images = engine.store().images().map_err(EngineError::from)?;
    images.sort_by_cached_key(|image| (std::cmp::Reverse(image.loaded), image.name()));
    if flags.quiet {
        for image in &images {
            writeln!(std::io::stdout(), "{}", image.id.short())?;
        }
        return Ok(0);
    }
    let row = |image: &ImageRecord| {
        let name = match &image.reference {
            Some(_) => image.name(),
            None => "<none>".to_owned(),
        };
        vec![
            name,
            image.id.short().to_owned(),
            image.layers.len().to_string(),
            table::size(image.size),
            table::ago(image.loaded),
        ]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    table::print(&["NAME", "ID", "LAYERS", "SIZE", "LOADED"], &rows);
    Ok(0)
}

/// `carrack rmi`.
///
/// # Errors
/// The store cannot be locked.
pub fn remove(engine: &Engine, flags: &RmiFlags) -> anyhow::Result<u8> {
    Ok(super::each(&flags.images, |name| {
        let removed = engine
            .store()
            .remove_image(name, false)
            .map_err(EngineError::from)?;
        let names: Vec<String> = removed.records.iter().map(ImageRecord::name).collect();
        Ok(format!("Removed {}", names.join(", ")))
    }))
}
