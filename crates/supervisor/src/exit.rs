//! The durable exit record.

use carrack_task::Exit;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the record in the monitor's directory.
pub const EXIT_RECORD: &str = "exit.json";
/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 4096;

/// An exit noticed now.
pub(crate) fn now(exit: carrack_sys::pidfd::Exit) -> Exit {
    use carrack_sys::pidfd::Exit::{Code, Signal};
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Exit {
        code: exit.shell_code(),
        signal: match exit {
            Code(_) => None,
            Signal(signal) => Some(signal),
        },
        at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Writes the record: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write(directory: &Path, exit: &Exit) -> std::io::Result<()> {
    let temporary = directory.join(".exit.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, directory.join(EXIT_RECORD))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(&directory)?)
}

/// Reads the record of a monitor's directory; `None` when there is none.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn read_exit(directory: &Path) -> std::io::Result<Option<Exit>> {
    use std::io::Read;
    let mut text = Vec::new();
    match File::open(directory.join(EXIT_RECORD)) {
        Ok(file) => file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_sys::pidfd::Exit as How;

    #[test]
    fn a_record_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(directory.path()).unwrap(), None);
        for (how, code, signal) in [(How::Code(3), 3, None), (How::Signal(9), 137, Some(9))] {
            let exit = now(how);
            assert_eq!((exit.code, exit.signal), (code, signal));
            write(directory.path(), &exit).unwrap();
            assert_eq!(read_exit(directory.path()).unwrap(), Some(exit));
        }
    }
}
