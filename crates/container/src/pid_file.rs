//! The file that tells a caller the id of a process.

use crate::error::Error;
use std::path::Path;

/// Writes a pid file: whole or not at all.
pub fn write(path: &Path, pid: i32) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let failed = |e| Error::path("cannot write the pid file", path, e);
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}
