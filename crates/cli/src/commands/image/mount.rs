//! `image mount`, `image unmount`.

use crate::image_args::{MountFlags, UnmountFlags};
use crate::table;
use anyhow::Result;
use carrack_engine::Engine;

/// `carrack image mount`.
///
/// # Errors
/// The mounts cannot be listed; images that cannot be mounted are told, and the code is 1.
pub fn mount(engine: &Engine, flags: &MountFlags) -> Result<u8> {
    if flags.images.is_empty() {
        let rows: Vec<Vec<String>> = engine
            .mounts()?
            .into_iter()
            .map(|(id, path)| vec![id.short().to_owned(), path.display().to_string()])
            .collect();
        table::print_rows(&rows);
        return Ok(0);
    }
    Ok(super::super::each(&flags.images, |name| {
        Ok(engine.mount_image(name)?.display().to_string())
    }))
}

/// `carrack image unmount`.
///
/// # Errors
/// The mounts cannot be listed; images that cannot be unmounted are told, and the code is 1.
pub fn unmount(engine: &Engine, flags: &UnmountFlags) -> Result<u8> {
    let names = match flags.all {
        false => flags.images.clone(),
        true => engine
            .mounts()?
            .into_iter()
            .map(|(id, _)| id.to_string())
            .collect(),
    };
    Ok(super::super::each(&names, |name| {
        Ok(engine.unmount_image(name)?.to_string())
    }))
}
