//! The file that tells a caller the id of a process.

use crate::error::Error;
use std::path::Path;

/// Writes a pid file: whole or not at all.
pub fn write(path: &Path, pid: i32) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let failed = |e| Error::path("cannot write the pid file", path, e);
    let written = std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: what is wrong has been found already.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        super::write(&path, 7).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7");
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = super::write(&taken, 7).unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
