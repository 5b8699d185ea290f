//! `config.json`: read once, never more than the limit.

use crate::error::Error;
use carrack_spec::runtime::{CONFIG_BYTES_MAX, Spec};
use std::fs::File;
use std::path::Path;

/// The configuration at `path`, and its text.
pub fn read(path: &Path) -> Result<(Vec<u8>, Spec), Error> {
    let failed = |e| Error::path("cannot read", path, e);
    let file = File::open(path).map_err(failed)?;
    let mut text = Vec::with_capacity(32 << 10);
    // One byte more than the limit shows the parser that the file is too large.
    while text.len() <= CONFIG_BYTES_MAX {
        text.reserve(1);
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))
        });
        if read.map_err(|e| failed(e.into()))? == 0 {
            break;
        }
    }
    let spec = Spec::from_json(&text).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })?;
    Ok((text, spec))
}
