//! Reads all image records, with three calls for each.
//!
//! They are read each time: there is no list of them beside the files that a crash could leave behind the
//! truth. Who removes or replaces one meanwhile is seen or not; each record is whole.

use crate::images::ImageError;
use crate::images::record::{Found, parse};
use crate::store::{Store, StoreError};
use carrack_spec::image;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What one read takes; records are smaller unless they have hundreds of layers.
const READ_BYTES: usize = 16 << 10;

/// Records, and those that cannot be read.
type Read = (Vec<Found>, Vec<ImageError>);

impl Store {
    /// All records in no order, and those that cannot be read. One that vanishes meanwhile is in neither.
    pub(crate) fn records(&self) -> Result<Read, StoreError> {
        let path = self.path("images");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |e: Errno| StoreError::io("list", &path)(e.into());
        let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().ok();
            names.extend(name.filter(|n| n.ends_with(".json")).map(str::to_owned));
        }
        Ok(Records { path, directory }.read(&names))
    }
}

/// The directory of the records.
struct Records {
    path: PathBuf,
    directory: OwnedFd,
}

impl Records {
    fn read(&self, names: &[String]) -> Read {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let (mut found, mut bad) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            match self.read_one(name, &mut buffer) {
                Ok(record) => found.extend(record),
                Err(error) => bad.push(error),
            }
        }
        (found, bad)
    }

    fn read_one(&self, name: &str, buffer: &mut Vec<u8>) -> Result<Option<Found>, ImageError> {
        let failed = |action, e: Errno| StoreError::io(action, self.path.join(name))(e.into());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(|e| failed("open", e))?,
        };
        buffer.clear();
        fill(&file, buffer).map_err(|e| failed("read", e))?;
        parse(self.path.join(name), buffer).map(Some)
    }
}

/// One call for a short file: a read that leaves room in the buffer has met the end.
fn fill(file: &OwnedFd, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    loop {
        buffer.reserve(READ_BYTES);
        let room = buffer.capacity() - buffer.len();
        let got = rustix::io::retry_on_intr(|| {
            rustix::io::read(file, rustix::buffer::spare_capacity(buffer))
        })?;
        if got < room || buffer.len() > image::DOCUMENT_BYTES_MAX {
            return Ok(());
        }
    }
}
