//! `config.json`: read once, never more than the limit.

use crate::error::Error;
use carrack_spec::runtime::{CONFIG_BYTES_MAX, Spec};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The configuration at `path`, and its text.
pub fn read(path: &Path) -> Result<(Vec<u8>, Spec), Error> {
    let failed = |e| Error::path("cannot read", path, e);
    let file = File::open(path).map_err(failed)?;
    let mut text = Vec::with_capacity(32 << 10);
    // One byte more shows the parser that the file is too large.
    (&file)
        .take(CONFIG_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let spec = Spec::from_json(&text).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })?;
    Ok((text, spec))
}
